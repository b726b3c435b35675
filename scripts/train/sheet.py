"""Draws samples, and lays pictures out on a sheet."""

import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from transformers import CLIPTokenizer

from config import Config
from model import Painter, sampler, tokens
from pictures import COLOURS, WHITE, Thing

STEPS = 20
GUIDANCE = 5.0
COLUMNS = 6
ROWS = 2
CELL = 160  # pixels of a picture on a sheet
LINE = 14  # pixels of its caption


def sheet_prompts(things: list[Thing]) -> list[str]:
    """What a run's sheets show, the same every time: things from all over the list, every third on a coloured ground."""
    rng = random.Random("sheet")
    names = [thing.name for thing in rng.sample(things, min(len(things), COLUMNS * ROWS))]
    colours = [name for name in COLOURS if name != WHITE]
    return [f"{name} on a {rng.choice(colours)} background" if place % 3 == 2 else name for place, name in enumerate(names)]


@torch.no_grad()
def draw(painter: Painter, vae: torch.nn.Module, tokenizer: CLIPTokenizer, config: Config, prompts: list[str]) -> Tensor:
    """Pictures, uint8 `[n, 3, height, width]`, of the size that is trained most in the end, drawn with K-LMS from one seed."""
    device = next(painter.parameters()).device
    states = painter.text(input_ids=tokens(tokenizer, [""] * len(prompts) + prompts).to(device)).last_hidden_state
    scheduler = sampler(config)
    scheduler.set_timesteps(STEPS, device=device)
    width, height, *_ = max(config.train.sizes, key=lambda size: size[-1])
    noise = torch.randn(len(prompts), 4, height // 16, width // 16, generator=torch.Generator().manual_seed(config.seed))
    latents = noise.to(device) * scheduler.init_noise_sigma
    for step in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, step)
        empty, asked = painter.unet(torch.cat([scaled, scaled]), step, states).sample.chunk(2)
        latents = scheduler.step(empty + GUIDANCE * (asked - empty), step, latents).prev_sample
    pixels = [vae.decode(one[None] / vae.config.scaling_factor).sample[0] for one in latents]
    return ((torch.stack(pixels).clamp(-1, 1) + 1) * 127.5).round().byte().cpu()


def lay_out(pictures: list[Image.Image], captions: list[str], columns: int = COLUMNS) -> Image.Image:
    """Pictures with captions below them, row by row."""
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * CELL, rows * (CELL + LINE)), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (picture, words) in enumerate(zip(pictures, captions)):
        top, left = place // columns * (CELL + LINE), place % columns * CELL
        sheet.paste(picture.resize((CELL, CELL), Image.Resampling.LANCZOS), (left, top))
        pen.text((left + 2, top + CELL), words.replace(" background", "")[:27], fill="black")
    return sheet


def draw_sheet(file: Path, painter: Painter, vae: torch.nn.Module, tokenizer: CLIPTokenizer, config: Config, prompts: list[str]) -> None:
    """Draws a sheet of samples into a PNG."""
    pictures = [Image.fromarray(np.asarray(one.permute(1, 2, 0))) for one in draw(painter, vae, tokenizer, config, prompts)]
    file.parent.mkdir(exist_ok=True)
    lay_out(pictures, prompts).save(file)
