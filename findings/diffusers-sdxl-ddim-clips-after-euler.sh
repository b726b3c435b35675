#!/usr/bin/env bash
# An SDXL pipeline whose scheduler was made as EulerDiscreteScheduler clips its latents to ±1 once DDIM is put in its place.
#
# Seen on 2026-11-28 with diffusers 0.42.1, transformers 5.23.0 and torch 2.11.0. Needs 6 GB of disk; outside CI.
#
# One would guess: `pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)`, as the documentation has it, changes the sampler
# and nothing else, in an SDXL pipeline as in one of SD v1; so that what counts is the noise schedule, which both classes have in common.
#
# What happens: EulerDiscreteScheduler has no clip_sample, DDIMScheduler's default is true, and with it the clean latents that are predicted are
# clamped to ±1 at every step, which latents are not bounded by. StableDiffusionPipeline switches that off when it is made, and so does no SDXL pipeline.
# The published SDXL file has `clip_sample: false`, a key of no use to Euler, which survives in the file; a scheduler that a training script makes and
# saves has not. DDPMScheduler does the same. Nothing warns.
#
# Output seen:
#   published file: DDIM clips False, clean latents up to 4.00
#   made as Euler: DDIM clips True, clean latents up to 1.00
#   SD v1 pipeline: DDIM clips False
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
TMPDIR=$folder "$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir \
    torch==2.11.0 numpy==2.2.6 diffusers==0.42.1 transformers==5.23.0

cat >"$folder/look.py" <<'PYTHON'
import torch
from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PUBLISHED = {**BETAS, "steps_offset": 1, "timestep_spacing": "leading", "clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True}


def look(config: dict) -> str:
    """What DDIM, made of a configuration, takes for the clean latents where they are 4 everywhere."""
    scheduler = DDIMScheduler.from_config(config)
    scheduler.set_timesteps(4)
    clean, noise, step = torch.full((1, 4, 2, 2), 4.0), torch.zeros(1, 4, 2, 2), scheduler.timesteps[1]
    sample = scheduler.add_noise(clean, noise, step[None])
    found = scheduler.step(noise, step, sample).pred_original_sample
    return f"DDIM clips {scheduler.config.clip_sample}, clean latents up to {float(found.max()):.2f}"


print("published file:", look(EulerDiscreteScheduler.from_config(PUBLISHED).config))
made = EulerDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1)
print("made as Euler:", look(made.config))
parts = {
    "vae": AutoencoderKL(block_out_channels=(32,)),
    "text_encoder": CLIPTextModel(CLIPTextConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)),
    "unet": UNet2DConditionModel(block_out_channels=(32, 32), down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2),
    "tokenizer": None, "safety_checker": None, "feature_extractor": None, "requires_safety_checker": False,
}
first = StableDiffusionPipeline(scheduler=DDIMScheduler.from_config(made.config), **parts)
print("SD v1 pipeline: DDIM clips", first.scheduler.config.clip_sample)
PYTHON

seen=$("$folder/venv/bin/python" -W ignore "$folder/look.py" 2>/dev/null)
echo "$seen"
[ "$seen" = 'published file: DDIM clips False, clean latents up to 4.00
made as Euler: DDIM clips True, clean latents up to 1.00
SD v1 pipeline: DDIM clips False' ]
