"""Names weights as original single-file checkpoints do, and proves it with diffusers' own converters."""

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from safetensors.torch import save_file
from torch import Tensor

UNET_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
UNET_ENDS = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def renamed(key: str, prefix: str, names: dict[str, str]) -> str:
    """`key` without `prefix`, its head replaced by the table's entry."""
    rest = key.removeprefix(prefix)
    head = next((name for name in names if rest.startswith(f"{name}.")), None)
    return rest if head is None else names[head] + rest.removeprefix(head)


def unet_blocks(config: dict) -> Iterator[tuple[str, str]]:
    """Pairs of (diffusers' prefix, original prefix) for everything between the UNet's ends, in the order the original counts."""
    levels, layers = len(config["block_out_channels"]), config["layers_per_block"]
    number = 0
    for level in range(levels):
        for layer in range(layers):
            number += 1
            yield f"down_blocks.{level}.resnets.{layer}.", f"input_blocks.{number}.0."
            yield f"down_blocks.{level}.attentions.{layer}.", f"input_blocks.{number}.1."
        if level + 1 < levels:
            number += 1
            yield f"down_blocks.{level}.downsamplers.0.conv.", f"input_blocks.{number}.0.op."
    yield "mid_block.resnets.0.", "middle_block.0."
    yield "mid_block.attentions.0.", "middle_block.1."
    yield "mid_block.resnets.1.", "middle_block.2."
    number = -1
    for level in range(levels):
        for layer in range(layers + 1):
            number += 1
            yield f"up_blocks.{level}.resnets.{layer}.", f"output_blocks.{number}.0."
            yield f"up_blocks.{level}.attentions.{layer}.", f"output_blocks.{number}.1."
        after = 2 if config["up_block_types"][level].startswith("CrossAttn") else 1
        yield f"up_blocks.{level}.upsamplers.0.conv.", f"output_blocks.{number}.{after}.conv."


def unet_key(key: str, blocks: list[tuple[str, str]]) -> str:
    """The original name of one of the UNet's weights."""
    for new, old in blocks:
        if key.startswith(new):
            return old + renamed(key, new, UNET_RESNET if ".resnets." in new else {})
    return renamed(key, "", UNET_ENDS)


def vae_key(key: str, stages: int) -> str:
    """The original name of one of the KL autoencoder's weights; the original counts the decoder's stages from the picture's side."""
    key = re.sub(r"up_blocks\.(\d+)\.", lambda found: f"up.{stages - 1 - int(found[1])}.", key).replace("down_blocks.", "down.")
    key = key.replace(".resnets.", ".block.").replace("mid_block.block.0.", "mid.block_1.").replace("mid_block.block.1.", "mid.block_2.")
    key = key.replace("samplers.0.", "sample.").replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    if ".attentions.0." in key:
        side, rest = key.split("mid_block.attentions.0.")
        return f"{side}mid.attn_1.{renamed(rest, '', VAE_ATTENTION)}"
    return key


def vae_weight(key: str, weight: Tensor) -> Tensor:
    """The original keeps the attention's projections as 1x1 convolutions."""
    return weight[:, :, None, None].contiguous() if ".attn_1." in key and weight.dim() == 2 else weight


def schedule_buffers(config: dict) -> dict[str, Tensor]:
    """Tensors that original checkpoints carry besides weights."""
    schedule = DDPMScheduler.from_config(config)
    products = schedule.alphas_cumprod
    return {"betas": schedule.betas, "alphas_cumprod": products, "sqrt_alphas_cumprod": products.sqrt(), "sqrt_one_minus_alphas_cumprod": (1 - products).sqrt()}


def write(pipe: StableDiffusionPipeline, file: Path) -> None:
    """Writes the whole model into one file and fails unless diffusers' converters give the weights back."""
    unet, vae, text = pipe.unet.state_dict(), pipe.vae.state_dict(), pipe.text_encoder.state_dict()
    blocks, stages = list(unet_blocks(pipe.unet.config)), len(pipe.vae.config.block_out_channels)
    weights = schedule_buffers(pipe.scheduler.config)
    weights |= {f"model.diffusion_model.{unet_key(key, blocks)}": weight for key, weight in unet.items()}
    names = {key: vae_key(key, stages) for key in vae}
    weights |= {f"first_stage_model.{names[key]}": vae_weight(names[key], weight) for key, weight in vae.items()}
    prefix = "cond_stage_model.transformer.text_model."
    weights |= {prefix + key: weight for key, weight in text.items()}
    weights[f"{prefix}embeddings.position_ids"] = torch.arange(77)[None]
    same(unet, convert_ldm_unet_checkpoint(dict(weights), pipe.unet.config))
    same(vae, convert_ldm_vae_checkpoint(dict(weights), pipe.vae.config))
    back = convert_ldm_clip_checkpoint(dict(weights))
    same(text, {key.removeprefix("text_model."): weight for key, weight in back.items() if not key.endswith("position_ids")})
    save_file({key: weight.clone().contiguous() for key, weight in weights.items()}, file, metadata={"format": "pt"})


def same(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Fails unless both hold the same tensors."""
    if wanted.keys() != found.keys():
        raise SystemExit(f"names differ: {sorted(wanted.keys() ^ found.keys())[:8]}")
    differing = [key for key in wanted if not torch.equal(wanted[key], found[key])]
    if differing:
        raise SystemExit(f"weights differ: {differing[:8]}")
