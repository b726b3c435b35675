"""Names weights as original SDXL checkpoints do, and proves it with diffusers' own converters."""

from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint, convert_open_clip_checkpoint
from safetensors.torch import save_file
from torch import Tensor

import ldm

ADDED = {"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
FIRST, SECOND = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
# Of a refiner, which has one.
ALONE = "conditioner.embedders.0.model."
OPEN_CLIP_ENDS = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}
OPEN_CLIP_LAYER = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "self_attn.out_proj": "attn.out_proj"}
LAYERS = "text_model.encoder.layers."


def open_clip(text: dict[str, Tensor]) -> dict[str, Tensor]:
    """The second text encoder in OpenCLIP's layout: query, key and value in one tensor, the projection transposed."""
    found = {OPEN_CLIP_ENDS[key]: weight for key, weight in text.items() if key in OPEN_CLIP_ENDS}
    found |= {"text_projection": text["text_projection.weight"].T, "logit_scale": torch.tensor(4.6)}
    for key, weight in text.items():
        if not key.startswith(LAYERS):
            continue
        number, rest = key.removeprefix(LAYERS).split(".", 1)
        block = f"transformer.resblocks.{number}."
        module, kind = rest.rsplit(".", 1)
        if module in OPEN_CLIP_LAYER:
            found[f"{block}{OPEN_CLIP_LAYER[module]}.{kind}"] = weight
        elif module == "self_attn.q_proj":
            found[f"{block}attn.in_proj_{kind}"] = torch.cat([text[f"{LAYERS}{number}.self_attn.{one}_proj.{kind}"] for one in "qkv"])
    return found


def unet_key(key: str, blocks: list[tuple[str, str]]) -> str:
    """The original name of one of the UNet's weights."""
    return ldm.renamed(key, "", ADDED) if key.startswith("add_embedding.") else ldm.unet_key(key, blocks)


def write(pipe: StableDiffusionXLPipeline, file: Path) -> None:
    """Writes the whole model into one file and fails unless diffusers' converters give the weights back."""
    unet, vae = pipe.unet.state_dict(), pipe.vae.state_dict()
    second, second_at = pipe.text_encoder_2.state_dict(), SECOND if pipe.text_encoder else ALONE
    blocks, stages = list(ldm.unet_blocks(pipe.unet.config)), len(pipe.vae.config.block_out_channels)
    weights = {"denoiser.sigmas": ((1 - pipe.scheduler.alphas_cumprod) / pipe.scheduler.alphas_cumprod).sqrt()}
    weights |= {f"model.diffusion_model.{unet_key(key, blocks)}": weight for key, weight in unet.items()}
    names = {key: ldm.vae_key(key, stages) for key in vae}
    weights |= {f"first_stage_model.{names[key]}": ldm.vae_weight(names[key], weight) for key, weight in vae.items()}
    if pipe.text_encoder:
        weights |= {f"{FIRST}text_model.{key}": weight for key, weight in pipe.text_encoder.state_dict().items()}
        weights[f"{FIRST}text_model.embeddings.position_ids"] = torch.arange(77)[None]
    weights |= {second_at + key: weight for key, weight in open_clip(second).items()}
    ldm.same(unet, convert_ldm_unet_checkpoint(dict(weights), pipe.unet.config))
    ldm.same(vae, convert_ldm_vae_checkpoint(dict(weights), pipe.vae.config))
    if pipe.text_encoder:
        back = convert_ldm_clip_checkpoint({key: weight for key, weight in weights.items() if key.startswith(FIRST)})
        ldm.same(pipe.text_encoder.state_dict(), {key.removeprefix("text_model."): weight for key, weight in back.items() if not key.endswith("position_ids")})
    ldm.same(second, convert_open_clip_checkpoint(pipe.text_encoder_2, dict(weights), prefix=second_at))
    save_file({key: weight.clone().contiguous() for key, weight in weights.items()}, file, metadata={"format": "pt"})
