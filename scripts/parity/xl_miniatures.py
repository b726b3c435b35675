"""Writes miniatures of the SDXL architecture with calibrated random weights: diffusers folders, single files, and other layouts.

    xl_miniatures.py OUT       writes OUT/miniatures/{xa,xb,xc,xd,xi}/, variants of them, and OUT/miniatures/{xa,xb,xi}.safetensors;
                               refiners as OUT/refiners/xr/ and OUT/refiners/xr.safetensors

`xa` and `xb` have the proportions that original checkpoints take for granted (heads of 64 in the text encoders and the UNet, norm groups
of 32, the KL autoencoder, quick GELU and GELU), so they are also written as single files. `xc` and `xd` go through what else a diffusers
folder can say. `xi` is an inpainting model, whose UNet takes a mask and a masked image beside the latents.
"""

import argparse
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import calibrate
import xl_samplers
import xl_single_file
from miniatures import CROSS, PLAIN, UP, autoencoder, cut_tokenizer, publish_text_keys, rewrite, round_weights, save_config, write_half

# What a published configuration says of a text encoder's end token where it means: the largest id.
LEGACY_END = 2
PARTS = ("text_encoder", "text_encoder_2", "unet", "vae")
# What a refiner is told of a picture's beauty: diffusers' scores of a prompt and of a negative prompt, and others.
SCORES = (6.0, 2.5, 5.0, 7.0)


@dataclass(frozen=True)
class Shape:
    """One miniature: what differs from SDXL's own configuration files."""

    seed: int
    texts: tuple[dict | None, dict]  # a refiner has the second alone
    unet: dict
    vae: dict
    legacy_end: bool = True  # the text encoders' files give LEGACY_END, not the id
    zeros: bool = True  # `force_zeros_for_empty_prompt`
    scheduler: dict = field(default_factory=lambda: xl_samplers.BASE)
    half_exact: bool = False  # weights are rounded to f16, so that a copy in f16 is the same model
    # What a prompt adds at each attention. Many layers together make sampling from a picture chaotic: rounding then decides what is drawn.
    attention: float = 1.0

    @property
    def factor(self) -> int:
        """Pixels a latent, along each side."""
        return 2 ** (len(self.vae["block_out_channels"]) - 1)


SHAPES = {
    "xa": Shape(
        seed=31,
        texts=(
            {"hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 3, "intermediate_size": 256, "hidden_act": "quick_gelu"},
            {"hidden_size": 128, "num_attention_heads": 2, "num_hidden_layers": 4, "intermediate_size": 512, "hidden_act": "gelu", "projection_dim": 96},
        ),
        unet={"block_out_channels": (64, 64, 128), "down": (PLAIN, CROSS, CROSS), "layers_per_block": 2, "attention_head_dim": (1, 1, 2), "transformer_layers_per_block": (1, 2, 3), "norm_num_groups": 32, "addition_time_embed_dim": 32},
        vae={"block_out_channels": (32, 32, 32, 64), "layers_per_block": 1, "norm_num_groups": 32, "scaling_factor": 0.13025, "force_upcast": True},
        attention=0.4,
    ),
    "xb": Shape(
        seed=32,
        texts=(
            {"hidden_size": 128, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 512, "hidden_act": "quick_gelu"},
            {"hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 3, "intermediate_size": 256, "hidden_act": "gelu", "projection_dim": 32},
        ),
        unet={"block_out_channels": (32, 64), "down": (PLAIN, CROSS), "layers_per_block": 1, "attention_head_dim": (1, 1), "transformer_layers_per_block": (1, 2), "norm_num_groups": 32, "addition_time_embed_dim": 16},
        vae={"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1, "norm_num_groups": 32, "scaling_factor": 0.13025, "force_upcast": False},
        legacy_end=False,
        zeros=False,
        scheduler=xl_samplers.TURBO,
    ),
    "xc": Shape(
        seed=33,
        texts=(
            {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 96, "hidden_act": "gelu"},
            {"hidden_size": 48, "num_attention_heads": 3, "num_hidden_layers": 3, "intermediate_size": 128, "hidden_act": "quick_gelu", "projection_dim": 20},
        ),
        unet={"block_out_channels": (24, 32, 48), "down": (PLAIN, CROSS, CROSS), "layers_per_block": 1, "attention_head_dim": (1, 2, 4), "transformer_layers_per_block": (1, 1, 2), "norm_num_groups": 8, "addition_time_embed_dim": 8},
        vae={"block_out_channels": (16,) * 4, "num_encoder_blocks": (1, 1, 1, 1), "num_decoder_blocks": (1, 1, 1, 1), "scaling_factor": 1.0},
        half_exact=True,
    ),
    "xd": Shape(
        seed=34,
        texts=(
            {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 64, "hidden_act": "quick_gelu"},
            {"hidden_size": 40, "num_attention_heads": 5, "num_hidden_layers": 2, "intermediate_size": 80, "hidden_act": "gelu", "projection_dim": 40},
        ),
        unet={"block_out_channels": (24, 48), "down": (CROSS, CROSS), "layers_per_block": 2, "attention_head_dim": (2, 3), "transformer_layers_per_block": (2, 1), "norm_num_groups": 6, "use_linear_projection": False, "addition_time_embed_dim": 10},
        vae={"block_out_channels": (16, 16, 24), "layers_per_block": 1, "norm_num_groups": 8, "scaling_factor": 0.18215},
        legacy_end=False,
        scheduler=xl_samplers.SPARSE,
    ),
    "xi": Shape(
        seed=35,
        texts=(
            {"hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 2, "intermediate_size": 128, "hidden_act": "quick_gelu"},
            {"hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 3, "intermediate_size": 128, "hidden_act": "gelu", "projection_dim": 32},
        ),
        unet={"in_channels": 9, "block_out_channels": (32, 64), "down": (PLAIN, CROSS), "layers_per_block": 1, "attention_head_dim": (1, 1), "transformer_layers_per_block": (1, 2), "norm_num_groups": 32, "addition_time_embed_dim": 16},
        vae={"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1, "norm_num_groups": 32, "scaling_factor": 0.13025, "force_upcast": True},
    ),
}  # fmt: skip
REFINERS = {
    "xr": Shape(
        seed=35,
        texts=(None, {"hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 3, "intermediate_size": 256, "hidden_act": "gelu", "projection_dim": 48}),
        unet={"block_out_channels": (64, 64, 128), "down": (PLAIN, CROSS, PLAIN), "layers_per_block": 1, "attention_head_dim": (1, 1, 2), "transformer_layers_per_block": 2, "norm_num_groups": 32, "addition_time_embed_dim": 16},
        vae={"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1, "norm_num_groups": 32, "scaling_factor": 0.13025, "force_upcast": True},
        zeros=False,
        attention=0.5,
    ),
}  # fmt: skip
SINGLE_FILES = ("xa", "xb", "xi")
# The reference keeps the published prefix away since transformers 5; checkpoints have it.
PUBLISHED_TEXT_KEYS = ("xa", "xc")
SHARDED = "xd"


class Conditioned:
    """A UNet as `calibrate.fit_denoiser` calls it, with all that the prompt and the size say in one value."""

    def __init__(self, unet: UNet2DConditionModel):
        self.unet, self.conv_out = unet, unet.conv_out

    def __call__(self, sample: Tensor, steps: Tensor, said: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        states, pooled, ids = said
        return self.unet(sample, steps, states, added_cond_kwargs={"text_embeds": pooled, "time_ids": ids}).sample


def write(shape: Shape, folder: Path, merges: int = 1022) -> StableDiffusionXLPipeline:
    """Makes a miniature and writes it as a diffusers folder of f32 weights."""
    shutil.rmtree(folder, ignore_errors=True)
    write_tokenizers(folder, merges)
    pipe = build(shape, folder)
    # Tokenizers and scheduler stay as published: saved by this release they would say more, and other things.
    for name in parts(pipe):
        getattr(pipe, name).save_pretrained(folder / name)
    save_config(pipe, folder)
    if pipe.text_encoder is None:
        shutil.rmtree(folder / "tokenizer")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(shape.scheduler, indent=2) + "\n")
    return pipe


def parts(pipe: StableDiffusionXLPipeline) -> list[str]:
    """The parts with weights that it has, by name."""
    return [name for name in PARTS if getattr(pipe, name) is not None]


def write_tokenizers(folder: Path, merges: int) -> None:
    """Both tokenizers; the second pads with `!`, as an added special token, as published."""
    last = cut_tokenizer(merges, folder / "tokenizer") - 1
    second = folder / "tokenizer_2"
    shutil.copytree(folder / "tokenizer", second)
    begin, end = "<|startoftext|>", "<|endoftext|>"
    numbered = {0: token("!", normalized=False), last - 1: token(begin), last: token(end)}
    config = {
        "add_prefix_space": False, "added_tokens_decoder": {str(i): one | {"special": True} for i, one in numbered.items()}, "bos_token": begin,
        "clean_up_tokenization_spaces": True, "do_lower_case": True, "eos_token": end, "errors": "replace", "model_max_length": 77, "pad_token": "!",
        "tokenizer_class": "CLIPTokenizer", "unk_token": end,
    }  # fmt: skip
    named = {"bos_token": token(begin), "eos_token": token(end), "pad_token": "!", "unk_token": token(end)}
    for name, content in (("tokenizer_config.json", config), ("special_tokens_map.json", named)):
        (second / name).write_text(json.dumps(content, indent=2) + "\n")


def token(content: str, normalized: bool = True) -> dict:
    """An added token in full."""
    return {"content": content, "lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False}


def build(shape: Shape, folder: Path) -> StableDiffusionXLPipeline:
    """The miniature in memory: scattered weights, output layers fitted."""
    pipe = assemble(shape, folder)
    for index, name in enumerate(parts(pipe)):
        calibrate.scatter(getattr(pipe, name).eval(), 100 * shape.seed + index)
    unet, vae = pipe.unet, pipe.vae
    for name, weight in unet.named_parameters():
        if "attn2.to_out" in name:
            weight.mul_(shape.attention)
    # `scatter` takes it for a table of embeddings by its name. What prompt and size say through it is kept small, as attention's is.
    for linear, gain in ((unet.add_embedding.linear_1, 1.0), (unet.add_embedding.linear_2, 0.5)):
        linear.weight.mul_(gain / 0.02 / linear.in_features**0.5)
    for name in parts(pipe):
        round_weights(getattr(pipe, name), shape.half_exact)
    draw = said_fields(pipe, 16, batch=16, pull=0.3, seed=shape.seed)
    told = Conditioned(unet)
    if calibrate.inpaints(unet):
        told, draw = calibrate.Inpainting(told), calibrate.masked(draw)
    explained = calibrate.fit_denoiser(told, draw, batches=24, ridge=1e-4, seed=shape.seed)
    round_weights(unet, shape.half_exact)
    # Pictures of a refiner are decoded by the base model's autoencoder.
    if pipe.text_encoder:
        calibrate.spread_pixels(pipe, 16 * shape.factor)
        round_weights(vae, shape.half_exact)
    print(f"  denoiser: {explained:.0%} of the noise explained")
    return pipe


def assemble(shape: Shape, folder: Path) -> StableDiffusionXLPipeline:
    """The parts with the weights that their classes draw; tokenizers from `folder`."""
    tokenizers = [CLIPTokenizer.from_pretrained(folder / name) for name in ("tokenizer", "tokenizer_2")]
    size = len(tokenizers[0])
    end = LEGACY_END if shape.legacy_end else size - 1
    first, second = (text and CLIPTextConfig(vocab_size=size, bos_token_id=0, eos_token_id=end, pad_token_id=1, **text) for text in shape.texts)
    options = {"use_linear_projection": True, "sample_size": 16} | shape.unet
    down = options.pop("down")
    width = second.hidden_size + (first.hidden_size if first else 0)
    added = (6 if first else 5) * options["addition_time_embed_dim"] + second.projection_dim
    unet = UNet2DConditionModel(
        cross_attention_dim=width, down_block_types=down, up_block_types=tuple(UP[kind] for kind in reversed(down)),
        addition_embed_type="text_time", projection_class_embeddings_input_dim=added, **options,
    )  # fmt: skip
    rest = dict(
        vae=autoencoder(shape.vae), text_encoder_2=CLIPTextModelWithProjection(second), tokenizer_2=tokenizers[1], unet=unet,
        scheduler=xl_samplers.own(shape.scheduler), force_zeros_for_empty_prompt=shape.zeros, add_watermarker=False,
    )  # fmt: skip
    if first:
        pipe = StableDiffusionXLPipeline(text_encoder=CLIPTextModel(first), tokenizer=tokenizers[0], **rest)
    else:
        pipe = StableDiffusionXLImg2ImgPipeline(text_encoder=None, tokenizer=None, requires_aesthetics_score=True, **rest)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def said_fields(pipe: StableDiffusionXLPipeline, side: int, batch: int, pull: float, seed: int) -> calibrate.Draw:
    """Smooth fields around a mean that depends on the prompt, and the size of the picture; one in eight prompts is none or empty."""
    states, _, pooled, _ = pipe.encode_prompt(["", *calibrate.WORDS], device="cpu", do_classifier_free_guidance=False)
    if pipe.config.force_zeros_for_empty_prompt:
        states, pooled = (torch.cat([torch.zeros_like(said[:1]), said]) for said in (states, pooled))
    summary = states.mean(1)
    summary = (summary - summary.mean(0)) / summary.std(0).mean()
    projection = torch.randn(summary.shape[1], 4, generator=torch.Generator().manual_seed(seed)) / summary.shape[1] ** 0.5
    means = pull * (summary @ projection)[:, :, None, None]

    def draw(generator: torch.Generator) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        picks = torch.randint(0, len(means), (batch,), generator=generator)
        picks[torch.rand(batch, generator=generator) < 1 / 8] = 0
        sides = 8 * torch.randint(8, 129, (batch, 2), generator=generator).float()
        ids = torch.cat([sides, torch.zeros_like(sides), sides], 1)
        if pipe.text_encoder is None:
            scores = torch.tensor(SCORES)[torch.randint(0, len(SCORES), (batch, 1), generator=generator)]
            ids = torch.cat([ids[:, :4], scores], 1)
        return means[picks] + 0.7 * calibrate.smooth_fields(batch, side, side, generator), (states[picks], pooled[picks], ids)

    return draw


def publish_projection_keys(weights: dict) -> dict:
    """The second text encoder as older releases stored it: with the buffer of positions."""
    positions = weights["text_model.embeddings.position_embedding.weight"].shape[0]
    return weights | {"text_model.embeddings.position_ids": torch.arange(positions)[None]}


def write_sharded(pipe: StableDiffusionXLPipeline, source: Path, out: Path) -> None:
    """A copy whose weights are in several files a part, with an index."""
    shutil.copytree(source, out)
    for name in PARTS:
        for file in (out / name).glob("*.safetensors"):
            file.unlink()
        getattr(pipe, name).save_pretrained(out / name, max_shard_size="400KB")


def main() -> None:
    """Makes every miniature again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    out = arguments.out / "miniatures"
    shutil.rmtree(out, ignore_errors=True)
    for name, shape in SHAPES.items():
        print(name)
        folder = out / name
        pipe = write(shape, folder)
        if name == SHARDED:
            write_sharded(pipe, folder, out / f"{name}-sharded")
        if name in PUBLISHED_TEXT_KEYS:
            rewrite(folder / "text_encoder" / "model.safetensors", publish_text_keys)
            rewrite(folder / "text_encoder_2" / "model.safetensors", publish_projection_keys)
        if name in SINGLE_FILES:
            xl_single_file.write(pipe, folder.with_suffix(".safetensors"))
    write_half(out / "xc", out / "xc-half")
    for name, shape in REFINERS.items():
        print(name)
        folder = arguments.out / "refiners" / name
        xl_single_file.write(write(shape, folder), folder.with_suffix(".safetensors"))


if __name__ == "__main__":
    main()
