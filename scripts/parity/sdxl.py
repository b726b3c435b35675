"""Writes a model of SDXL's size with random weights: for load times, memory and speed, which do not need trained ones.

    sdxl.py OUT     writes the diffusers folder OUT in f16 (7 GB)
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import calibrate
import sd15

# What the published configuration files say; the rest are the classes' defaults.
TEXT = {**sd15.TEXT, "eos_token_id": 2, "pad_token_id": 1, "projection_dim": 768}
TEXT_2 = {**TEXT, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "hidden_act": "gelu", "projection_dim": 1280}
UNET = {
    "sample_size": 128, "cross_attention_dim": 2048, "attention_head_dim": (5, 10, 20), "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip
VAE = {**sd15.VAE, "sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True}
SCHEDULER = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1, "timestep_spacing": "leading",
}  # fmt: skip


def write_second_tokenizer(first: Path, out: Path) -> CLIPTokenizer:
    """The same tokenizer, padding with an exclamation mark."""
    shutil.copytree(first, out)
    file = out / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), "pad_token": "!"}), encoding="utf-8")
    return CLIPTokenizer.from_pretrained(out)


def build(out: Path) -> StableDiffusionXLPipeline:
    """The model in memory, f16; the same weights each time."""
    tokenizers = sd15.write_tokenizer(out / "tokenizer"), write_second_tokenizer(out / "tokenizer", out / "tokenizer_2")
    with torch.device("meta"):
        parts = [
            CLIPTextModel(CLIPTextConfig(**TEXT)), CLIPTextModelWithProjection(CLIPTextConfig(**TEXT_2)),
            UNet2DConditionModel(**UNET), AutoencoderKL(**VAE),
        ]  # fmt: skip
    for seed, part in enumerate(parts):
        part.half().to_empty(device="cpu").eval()
        calibrate.scatter(part, seed)
    text, text_2, unet, vae = parts
    for module in (*text.modules(), *text_2.modules()):
        if hasattr(module, "position_ids"):
            module.position_ids.copy_(torch.arange(77)[None])  # a buffer, not a weight
    return StableDiffusionXLPipeline(
        vae=vae, text_encoder=text, text_encoder_2=text_2, tokenizer=tokenizers[0], tokenizer_2=tokenizers[1], unet=unet,
        scheduler=EulerDiscreteScheduler(**SCHEDULER), add_watermarker=False,
    )  # fmt: skip


def main() -> None:
    """Writes the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    torch.set_grad_enabled(False)
    shutil.rmtree(out, ignore_errors=True)
    pipe = build(out)
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        # One file a part, as it was published.
        getattr(pipe, name).save_pretrained(out / name, max_shard_size="20GB")
    pipe.scheduler.save_pretrained(out / "scheduler")
    pipe.save_config(out)


if __name__ == "__main__":
    main()
