"""Writes a model of Stable Diffusion 1.5's size with random weights: for load times, memory and speed, which do not need trained ones.

    sd15.py OUT [--single-file]     writes the diffusers folder OUT in f16 (2 GB), or with --single-file OUT.safetensors beside it as well
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import calibrate
import ldm
from tokenizer import derived_vocabulary

MODELS = Path(__file__).resolve().parents[2] / "models"
# What the published configuration files say; the rest are the classes' defaults.
TEXT = {
    "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "hidden_act": "quick_gelu", "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407,
}  # fmt: skip
UNET = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8, "block_out_channels": (320, 640, 1280, 1280)}
STAGES = 4
VAE = {
    "block_out_channels": (128, 256, 512, 512), "down_block_types": ("DownEncoderBlock2D",) * STAGES, "up_block_types": ("UpDecoderBlock2D",) * STAGES,
    "layers_per_block": 2, "sample_size": 512, "scaling_factor": 0.18215,
}  # fmt: skip


def write_tokenizer(out: Path) -> CLIPTokenizer:
    """CLIP's own tokenizer with its vocabulary written out, as the reference wants it."""
    shutil.copytree(MODELS / "clip-tokenizer", out, ignore=shutil.ignore_patterns("README.md"))
    merges = (out / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    (out / "vocab.json").write_text(json.dumps(derived_vocabulary([merge.split() for merge in merges if merge])), encoding="utf-8")
    return CLIPTokenizer.from_pretrained(out)


def build(tokenizer: CLIPTokenizer) -> StableDiffusionPipeline:
    """The model in memory, f16; the same weights each time."""
    with torch.device("meta"):
        parts = [CLIPTextModel(CLIPTextConfig(**TEXT)), UNet2DConditionModel(**UNET), AutoencoderKL(**VAE)]
    for seed, part in enumerate(parts):
        part.half().to_empty(device="cpu").eval()
        calibrate.scatter(part, seed)
    text, unet, vae = parts
    text.embeddings.position_ids.copy_(torch.arange(77)[None])  # a buffer, not a weight
    return StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=tokenizer, unet=unet, scheduler=PNDMScheduler.from_pretrained(MODELS / "miniature" / "scheduler"),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def main() -> None:
    """Writes the folder, and the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--single-file", action="store_true")
    arguments = parser.parse_args()
    out = arguments.out
    torch.set_grad_enabled(False)
    shutil.rmtree(out, ignore_errors=True)
    pipe = build(write_tokenizer(out / "tokenizer"))
    for name, part in (("unet", pipe.unet), ("vae", pipe.vae), ("text_encoder", pipe.text_encoder)):
        # One file a part, as it was published.
        part.save_pretrained(out / name, max_shard_size="20GB")
    pipe.save_config(out)
    shutil.copytree(MODELS / "miniature" / "scheduler", out / "scheduler")
    if arguments.single_file:
        ldm.write(pipe, out.with_suffix(".safetensors"))


if __name__ == "__main__":
    main()
