"""Writes random-weight miniatures of the SD v1 architecture: diffusers folders, single files, and old layouts.

    miniatures.py OUT          writes OUT/miniatures/{a,b,c,d,e,f}/, variants of them, and OUT/miniatures/{a,b,f}.safetensors

`a` and `b` have the proportions that original checkpoints take for granted (8 heads, norm groups of 32, text heads of 64, the KL
autoencoder), so they are also written as single files. `c`, `d` and `e` go through what else a diffusers folder can say. `f` is an
inpainting model, whose UNet takes a mask and a masked image beside the latents.
"""

import argparse
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, AutoPipelineForInpainting, DiffusionPipeline, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import calibrate
import ldm

BOXED = Path(__file__).resolve().parents[2] / "models" / "miniature"
CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
UP = {CROSS: "CrossAttnUpBlock2D", PLAIN: "UpBlock2D"}


@dataclass(frozen=True)
class Shape:
    """One miniature: what differs from SD 1.5's own configuration files."""

    seed: int
    text: dict
    unet: dict
    vae: dict
    half_exact: bool = False  # weights are rounded to f16, so that a copy in f16 is the same model

    @property
    def factor(self) -> int:
        """Pixels a latent, along each side."""
        return 2 ** (len(self.vae["block_out_channels"]) - 1)


SHAPES = {
    "a": Shape(
        seed=11,
        text={"hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 3, "intermediate_size": 256, "hidden_act": "quick_gelu"},
        unet={"block_out_channels": (32, 32, 64, 64), "down": (CROSS, CROSS, CROSS, PLAIN), "layers_per_block": 2, "attention_head_dim": 8, "norm_num_groups": 32},
        vae={"block_out_channels": (32, 32, 64, 64), "layers_per_block": 2, "norm_num_groups": 32, "scaling_factor": 0.18215},
    ),
    "b": Shape(
        seed=12,
        text={"hidden_size": 128, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 512, "hidden_act": "quick_gelu"},
        unet={"block_out_channels": (32, 64, 64), "down": (CROSS, CROSS, PLAIN), "layers_per_block": 1, "attention_head_dim": 8, "norm_num_groups": 32},
        vae={"block_out_channels": (32, 32, 32, 64), "layers_per_block": 1, "norm_num_groups": 32, "scaling_factor": 0.18215},
    ),
    "c": Shape(
        seed=13,
        text={"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 96, "hidden_act": "gelu"},
        unet={"block_out_channels": (24, 32), "down": (PLAIN, CROSS), "layers_per_block": 1, "attention_head_dim": (1, 2), "norm_num_groups": 8, "use_linear_projection": True},
        vae={"block_out_channels": (16,) * 4, "num_encoder_blocks": (1, 1, 1, 1), "num_decoder_blocks": (1, 1, 1, 1), "scaling_factor": 2.5},
    ),
    "d": Shape(
        seed=14,
        text={"hidden_size": 48, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 128, "hidden_act": "gelu"},
        unet={"block_out_channels": (24, 32, 48, 64), "down": (PLAIN, CROSS, CROSS, PLAIN), "layers_per_block": 1, "attention_head_dim": (1, 2, 4, 8), "norm_num_groups": 8, "use_linear_projection": True, "transformer_layers_per_block": 2},
        vae={"block_out_channels": (24,) * 5, "num_encoder_blocks": (1, 1, 2, 2, 3), "num_decoder_blocks": (3, 2, 2, 1, 1), "scaling_factor": 3.25},
    ),
    "e": Shape(
        seed=15,
        text={"hidden_size": 96, "num_attention_heads": 4, "num_hidden_layers": 1, "intermediate_size": 160, "hidden_act": "quick_gelu"},
        unet={"block_out_channels": (24, 24, 36), "down": (PLAIN, CROSS, CROSS), "layers_per_block": 2, "attention_head_dim": 4, "norm_num_groups": 6},
        vae={"block_out_channels": (16,) * 3, "num_encoder_blocks": (1, 2, 1), "num_decoder_blocks": (2, 1, 1), "scaling_factor": 2.5},
        half_exact=True,
    ),
    "f": Shape(
        seed=16,
        text={"hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 2, "intermediate_size": 128, "hidden_act": "quick_gelu"},
        unet={"in_channels": 9, "block_out_channels": (32, 64), "down": (CROSS, PLAIN), "layers_per_block": 1, "attention_head_dim": 8, "norm_num_groups": 32},
        vae={"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1, "norm_num_groups": 32, "scaling_factor": 0.18215},
    ),
}
SINGLE_FILES = ("a", "b", "f")
# The reference keeps the published prefix away since transformers 5; checkpoints have it.
PUBLISHED_TEXT_KEYS = ("a", "b", "e")


def write(shape: Shape, folder: Path, merges: int = 1022) -> StableDiffusionPipeline:
    """Makes a miniature and writes it as a diffusers folder of f32 weights."""
    shutil.rmtree(folder, ignore_errors=True)
    cut_tokenizer(merges, folder / "tokenizer")
    pipe = build(shape, folder / "tokenizer")
    # The tokenizer and the scheduler stay as published: saved by this release they would say more, and other things.
    for name, part in (("unet", pipe.unet), ("vae", pipe.vae), ("text_encoder", pipe.text_encoder)):
        part.save_pretrained(folder / name)
    save_config(pipe, folder)
    shutil.copytree(BOXED / "scheduler", folder / "scheduler")
    return pipe


def save_config(pipe: DiffusionPipeline, folder: Path) -> None:
    """Writes the list of parts, as the pipeline that the model is for writes it."""
    (AutoPipelineForInpainting.from_pipe(pipe) if calibrate.inpaints(pipe.unet) else pipe).save_config(folder)


def cut_tokenizer(merges: int, out: Path) -> int:
    """Writes the boxed model's tokenizer cut to its first `merges` merges; gives the number of its entries."""
    source = BOXED / "tokenizer"
    entries = list(json.loads((source / "vocab.json").read_text(encoding="utf-8")))
    kept = entries[: 512 + merges] + entries[-2:]
    lines = (source / "merges.txt").read_text(encoding="utf-8").splitlines()[: 1 + merges]
    out.mkdir(parents=True)
    (out / "vocab.json").write_text(json.dumps({entry: i for i, entry in enumerate(kept)}, ensure_ascii=False), encoding="utf-8")
    (out / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.copy(source / "tokenizer_config.json", out)
    return len(kept)


def build(shape: Shape, tokenizer: Path) -> StableDiffusionPipeline:
    """The miniature in memory: scattered weights, output layers fitted."""
    size = len(CLIPTokenizer.from_pretrained(tokenizer))
    text_config = CLIPTextConfig(vocab_size=size, bos_token_id=size - 2, eos_token_id=size - 1, pad_token_id=size - 1, **shape.text)
    unet_options = dict(shape.unet)
    down = unet_options.pop("down")
    unet = UNet2DConditionModel(
        sample_size=16, cross_attention_dim=text_config.hidden_size, down_block_types=down, up_block_types=tuple(UP[kind] for kind in reversed(down)), **unet_options
    )
    pipe = StableDiffusionPipeline(
        vae=autoencoder(shape.vae), text_encoder=CLIPTextModel(text_config), tokenizer=CLIPTokenizer.from_pretrained(tokenizer), unet=unet,
        scheduler=PNDMScheduler.from_pretrained(BOXED / "scheduler"), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    parts = (pipe.text_encoder, pipe.unet, pipe.vae)
    for index, part in enumerate(parts):
        calibrate.scatter(part.eval(), 100 * shape.seed + index)
        round_weights(part, shape.half_exact)
    draw = calibrate.prompt_fields(pipe, 16, batch=16, pull=0.3, seed=shape.seed)
    told = unet
    if calibrate.inpaints(unet):
        told, draw = calibrate.Inpainting(unet), calibrate.masked(draw)
    explained = calibrate.fit_denoiser(told, draw, batches=24, ridge=1e-4, seed=shape.seed)
    round_weights(unet, shape.half_exact)
    calibrate.spread_pixels(pipe, 16 * shape.factor)
    round_weights(pipe.vae, shape.half_exact)
    print(f"  denoiser: {explained:.0%} of the noise explained")
    return pipe


def autoencoder(options: dict) -> AutoencoderKL | AutoencoderTiny:
    """KL where it says how many layers a block has, else tiny."""
    if "layers_per_block" in options:
        stages = len(options["block_out_channels"])
        return AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * stages, up_block_types=("UpDecoderBlock2D",) * stages, **options)
    channels = options["block_out_channels"]
    rest = {key: value for key, value in options.items() if key != "block_out_channels"}
    return AutoencoderTiny(encoder_block_out_channels=channels, decoder_block_out_channels=channels, **rest)


def round_weights(module: torch.nn.Module, wanted: bool) -> None:
    """Rounds every weight to the nearest f16, kept as f32."""
    for weight in module.state_dict().values() if wanted else ():
        if weight.is_floating_point():
            weight.copy_(weight.half().float())


def rewrite(file: Path, change, out: Path | None = None) -> None:
    """Rewrites a weight file through `change`, a function of its whole dictionary."""
    tensors = {key: tensor.contiguous() for key, tensor in change(load_file(file)).items()}
    save_file(tensors, out or file, metadata={"format": "pt"})


def publish_text_keys(weights: dict) -> dict:
    """The keys as checkpoints were published: prefixed, and with the buffer of positions that older releases stored."""
    positions = weights["embeddings.position_embedding.weight"].shape[0]
    named = {f"text_model.{key}": tensor for key, tensor in weights.items()}
    return named | {"text_model.embeddings.position_ids": torch.arange(positions)[None]}


def write_old_attention(source: Path, out: Path) -> None:
    """A copy whose autoencoder names its attention as SD 1.5's published one does."""
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(key: str) -> str:
        for new, old in names.items():
            key = key.replace(f"mid_block.attentions.0.{new}.", f"mid_block.attentions.0.{old}.")
        return key

    shutil.copytree(source, out)
    rewrite(out / "vae" / "diffusion_pytorch_model.safetensors", lambda weights: {rename(key): tensor for key, tensor in weights.items()})


def write_half(source: Path, out: Path) -> None:
    """A copy that has only `*.fp16.safetensors`."""
    shutil.copytree(source, out)
    for file in out.glob("*/*.safetensors"):
        half = file.with_suffix(".fp16.safetensors")
        rewrite(file, lambda weights: {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in weights.items()}, half)
        file.unlink()


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
        if name in PUBLISHED_TEXT_KEYS:
            rewrite(folder / "text_encoder" / "model.safetensors", publish_text_keys)
        if name in SINGLE_FILES:
            ldm.write(pipe, folder.with_suffix(".safetensors"))
    write_old_attention(out / "a", out / "a-old-attention")
    write_half(out / "e", out / "e-half")
    # A model that was trained, as it is.
    shutil.copytree(BOXED.parent / "emoji", out / "emoji")


if __name__ == "__main__":
    main()
