#!/usr/bin/env bash
# A refiner that samples with Euler takes latents of a base model that sampled with DDIM at 0.6 of their scale, and draws without a word.
#
# Seen on 2026-11-28 with diffusers 0.42.1, transformers 5.23.0 and torch 2.11.0. Needs 6 GB of disk; outside CI.
#
# One would guess: denoising_end of the base pipeline and denoising_start of the refiner's are two halves of one run, as the documentation's "ensemble
# of expert denoisers" has it. Each pipeline has a scheduler of its own, so each may have the class that its user likes best.
#
# What happens: DDIM keeps latents at variance 1 (signal and noise are both scaled), Euler keeps the signal and adds noise to it. What the base pipeline returns is in
# its own scheduler's scale, and the refiner's pipeline takes it for its own. Euler then divides by √(σ² + 1) what DDIM had divided before. The UNet is given latents
# that are too small, and its output is taken for the noise of latents that were larger. Nothing warns. With both schedulers of one kind all is well.
#
# Output seen:
#   Euler, then Euler: the last latents of the base have a deviation of 0.99, the first of the refiner 0.99
#   DDIM, then DDIM: the last latents of the base have a deviation of 0.99, the first of the refiner 0.99
#   DDIM, then Euler: the last latents of the base have a deviation of 0.99, the first of the refiner 0.58
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
TMPDIR=$folder "$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir \
    torch==2.11.0 numpy==2.2.6 diffusers==0.42.1 transformers==5.23.0

cat >"$folder/look.py" <<'PYTHON'
import torch
from diffusers import (
    AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline, UNet2DConditionModel,
)

SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1, "timestep_spacing": "leading"}
SCHEDULERS = {
    "Euler": EulerDiscreteScheduler(**SCHEDULE),
    "DDIM": DDIMScheduler(**SCHEDULE, clip_sample=False, set_alpha_to_one=False),
}
STEPS, HALF = 20, 0.5
TEXT = {"prompt_embeds": torch.zeros(1, 4, 8), "pooled_prompt_embeds": torch.zeros(1, 8), "guidance_scale": 1.0}
signal = DDIMScheduler(**SCHEDULE).alphas_cumprod


def unet(seen: list[float]) -> UNet2DConditionModel:
    """What is right for data that are standard normals: it predicts the share of its input that is noise."""
    made = UNet2DConditionModel(
        block_out_channels=(32, 32), down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, cross_attention_dim=8,
        addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=8 + 4 * 6,
    )

    def forward(sample: torch.Tensor, timestep: torch.Tensor, **_: object) -> tuple[torch.Tensor]:
        seen.append(float(sample.std()))
        noise = (1 - signal[int(timestep)]) ** 0.5 * sample
        return (noise,)

    made.forward = forward
    return made


def pipeline(kind: type, scheduler: str, seen: list[float]) -> object:
    parts = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    made = kind(vae=AutoencoderKL(block_out_channels=(32,)), unet=unet(seen), scheduler=SCHEDULERS[scheduler], **parts)
    made.set_progress_bar_config(disable=True)
    return made


for base, refiner in (("Euler", "Euler"), ("DDIM", "DDIM"), ("DDIM", "Euler")):
    first, second = [], []
    begin = pipeline(StableDiffusionXLPipeline, base, first)
    end = pipeline(StableDiffusionXLImg2ImgPipeline, refiner, second)
    noise = torch.Generator().manual_seed(1)
    latents = begin(**TEXT, num_inference_steps=STEPS, denoising_end=HALF, height=64, width=64, generator=noise, output_type="latent").images
    end(**TEXT, image=latents, num_inference_steps=STEPS, denoising_start=HALF, generator=noise, output_type="latent")
    print(f"{base}, then {refiner}: the last latents of the base have a deviation of {first[-1]:.2f}, the first of the refiner {second[0]:.2f}")
PYTHON

seen=$("$folder/venv/bin/python" -W ignore "$folder/look.py" 2>/dev/null)
echo "$seen"
[ "$seen" = 'Euler, then Euler: the last latents of the base have a deviation of 0.99, the first of the refiner 0.99
DDIM, then DDIM: the last latents of the base have a deviation of 0.99, the first of the refiner 0.99
DDIM, then Euler: the last latents of the base have a deviation of 0.99, the first of the refiner 0.58' ]
