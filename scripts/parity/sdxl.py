"""Writes a model of SDXL's size with random weights: for load times, memory and speed, which do not need trained ones.

    sdxl.py OUT                    writes a base model's diffusers folder OUT in f16 (7 GB)
    sdxl.py OUT --refiner          a refiner's (6 GB)
    sdxl.py OUT --turbo-of BASE    SDXL Turbo's, of links to the parts of the base model BASE, and Turbo's scheduler file
"""

import argparse
import json
import os
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import calibrate
import sd15
import xl_samplers

# What the published configuration files say; the rest are the classes' defaults.
TEXT = {**sd15.TEXT, "eos_token_id": 2, "pad_token_id": 1, "projection_dim": 768}
TEXT_2 = {**TEXT, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "hidden_act": "gelu", "projection_dim": 1280}
UNET = {
    "sample_size": 128, "cross_attention_dim": 2048, "attention_head_dim": (5, 10, 20), "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip
REFINER_UNET = {
    **UNET, "cross_attention_dim": 1280, "attention_head_dim": (6, 12, 24, 24), "block_out_channels": (384, 768, 1536, 1536),
    "transformer_layers_per_block": 4, "projection_class_embeddings_input_dim": 2560,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
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


def build(out: Path, is_refiner: bool) -> StableDiffusionXLPipeline | StableDiffusionXLImg2ImgPipeline:
    """The model in memory, f16; the same weights each time."""
    tokenizers = sd15.write_tokenizer(out / "tokenizer"), write_second_tokenizer(out / "tokenizer", out / "tokenizer_2")
    with torch.device("meta"):
        parts = [
            CLIPTextModel(CLIPTextConfig(**TEXT)), CLIPTextModelWithProjection(CLIPTextConfig(**TEXT_2)),
            UNet2DConditionModel(**(REFINER_UNET if is_refiner else UNET)), AutoencoderKL(**VAE),
        ]  # fmt: skip
    for seed, part in enumerate(parts):
        part.half().to_empty(device="cpu").eval()
        calibrate.scatter(part, seed)
    text, text_2, unet, vae = parts
    for module in (*text.modules(), *text_2.modules()):
        if hasattr(module, "position_ids"):
            module.position_ids.copy_(torch.arange(77)[None])  # a buffer, not a weight
    rest = dict(vae=vae, text_encoder_2=text_2, tokenizer_2=tokenizers[1], unet=unet, scheduler=EulerDiscreteScheduler(**SCHEDULER), add_watermarker=False)
    if is_refiner:
        shutil.rmtree(out / "tokenizer")
        alone = {"requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False}
        return StableDiffusionXLImg2ImgPipeline(text_encoder=None, tokenizer=None, **alone, **rest)
    return StableDiffusionXLPipeline(text_encoder=text, tokenizer=tokenizers[0], **rest)


def write_turbo(out: Path, base: Path) -> None:
    """Turbo's folder beside that of a base model, with the weights of that."""
    out.mkdir(parents=True)
    for part in base.iterdir():
        if part.name not in ("scheduler", "model_index.json"):
            (out / part.name).symlink_to(os.path.relpath(part.resolve(), out.resolve()))
    (out / "scheduler").mkdir()
    (out / "scheduler" / "scheduler_config.json").write_text(json.dumps(xl_samplers.TURBO, indent=2), encoding="utf-8")
    index = json.loads((base / "model_index.json").read_text(encoding="utf-8"))
    index["scheduler"] = ["diffusers", xl_samplers.TURBO["_class_name"]]
    (out / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def main() -> None:
    """Writes the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--refiner", action="store_true")
    kinds.add_argument("--turbo-of", type=Path, metavar="BASE")
    arguments = parser.parse_args()
    out = arguments.out
    torch.set_grad_enabled(False)
    shutil.rmtree(out, ignore_errors=True)
    if arguments.turbo_of:
        return write_turbo(out, arguments.turbo_of)
    pipe = build(out, arguments.refiner)
    for name in ("unet", "vae", "text_encoder_2", *(() if arguments.refiner else ("text_encoder",))):
        # One file a part, as it was published.
        getattr(pipe, name).save_pretrained(out / name, max_shard_size="20GB")
    pipe.scheduler.save_pretrained(out / "scheduler")
    pipe.save_config(out)


if __name__ == "__main__":
    main()
