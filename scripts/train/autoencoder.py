"""Centres the latents of the trained autoencoder, and lets its decoder get used to that.

The autoencoder in models/miniature puts white, the most frequent ground, far from zero. A noise schedule leaves some of the mean in
its last step, so a model trained there draws wrong grounds from pure noise. Here white becomes zero, and every channel gets the
same spread, inside the autoencoder, so that whoever loads it need not know. The encoder ends with a convolution, where that is
exact. The decoder begins with 3 tanh(x / 3), which the new latents pass almost unbent, the old ones not: its first convolution is
fitted by least squares, then the whole decoder is trained for some minutes.
"""

import json
import os
import random
import shutil
import time
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from torch.nn import functional as F

from config import Config
from pictures import COLOURS, WHITE, compose

SPREAD = 0.25  # of a channel of the new latents, well inside the straight part of the tanh
FACTOR = 16  # pixels a latent
STEPS = "steps.json"  # in the folder: how long its decoder was trained
WHOLE = 4  # a crop of 128 is taken from a picture of 512, or of 256


@torch.no_grad()
def centred(vae: AutoencoderTiny, pictures: Tensor) -> AutoencoderTiny:
    """Moves white to zero and the root mean square of each channel of the latents of `pictures` `[n, 3, h, w]` to `SPREAD`."""
    old = vae.encode(pictures).latents
    # Far from any edge.
    white = vae.encode(torch.ones(1, 3, 16 * FACTOR, 16 * FACTOR, device=old.device)).latents[0, :, 8, 8]
    scale = SPREAD / (old - white[:, None, None]).square().mean((0, 2, 3)).sqrt()
    first = vae.decoder.layers[0]
    expected = first(3 * torch.tanh(old / 3))
    last = vae.encoder.layers[-1]
    last.weight *= scale[:, None, None, None]
    last.bias.copy_((last.bias - white) * scale)
    new = 3 * torch.tanh(vae.encode(pictures).latents / 3)
    patches = F.unfold(new, 3, padding=1).transpose(1, 2).flatten(0, 1).double()
    patches = torch.cat([patches, torch.ones_like(patches[:, :1])], 1)
    fitted = torch.linalg.lstsq(patches, expected.flatten(2).transpose(1, 2).flatten(0, 1).double()).solution
    first.weight.copy_(fitted[:-1].T.reshape(first.weight.shape))
    first.bias = torch.nn.Parameter(fitted[-1].float())
    vae.register_to_config(scaling_factor=1 / SPREAD, shift_factor=0.0)
    return vae


def accustom(vae: AutoencoderTiny, folder: Path, pictures: Tensor, config: Config) -> None:
    """Trains the decoder on random squares of random pictures `[n, 4, 256, 256]` on random grounds; writes it to `folder` every minute."""
    settings = config.autoencoder
    begun = json.loads((folder / STEPS).read_text())
    decoder = vae.decoder.train()
    optimizer = torch.optim.Adam(decoder.parameters(), settings.rate)
    kept = time.monotonic()
    for step in range(begun, settings.steps):
        rng = random.Random(f"{config.seed} {step}")
        squares = torch.stack([square(pictures, settings.crop, rng) for _ in range(settings.batch)])
        with torch.no_grad():
            latents = vae.encode(squares).latents
        drawn = vae.decode(latents + astray(latents, settings.noise, step)).sample
        loss = F.l1_loss(drawn, squares) + F.mse_loss(drawn, squares) + edges(drawn - squares) + 2 * hue(drawn - squares)
        for group in optimizer.param_groups:
            # Up in 20 steps, also when going on, since Adam starts without memory; down along a line.
            group["lr"] = settings.rate * min(1, (step - begun + 1) / 20, 1.02 - step / settings.steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == settings.steps - 1 or time.monotonic() - kept > 60:
            print(f"autoencoder: step {step + 1} of {settings.steps}, L1 {F.l1_loss(drawn, squares).item():.4f}", flush=True)
            write(vae, folder, step + 1)
            kept = time.monotonic()
    vae.eval()


def astray(latents: Tensor, noise: list[float], seed: int) -> Tensor:
    """What makes latents `[n, 4, h, w]` as inexact as those that a UNet draws: by channel, half of it alike all over a picture."""
    rng = torch.Generator().manual_seed(seed)
    far = torch.tensor(noise)[:, None, None] / 2**0.5
    apart, alike = torch.randn(latents.shape, generator=rng), torch.randn(*latents.shape[:2], 1, 1, generator=rng)
    return (far * (apart + alike)).to(latents.device)


def write(vae: AutoencoderTiny, folder: Path, steps: int) -> None:
    """Writes the autoencoder as diffusers does, with the number of steps its decoder was trained for."""
    unfinished = folder.with_suffix(".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    vae.save_pretrained(unfinished)
    (unfinished / STEPS).write_text(json.dumps(steps))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(unfinished, folder)


def square(pictures: Tensor, crop: int, rng: random.Random) -> Tensor:
    """A square `[3, crop, crop]` of a picture."""
    side = rng.choice((WHOLE * crop // 2, WHOLE * crop))
    # The named grounds must come out right; any colour must come out well.
    named, free = rng.choice(list(COLOURS.values())), tuple(rng.randrange(256) for _ in range(3))
    colour = rng.choices((COLOURS[WHITE], named, free), (0.3, 0.45, 0.25))[0]
    whole = compose(pictures[rng.randrange(len(pictures))], colour, side, side)
    top, left = (rng.randrange(0, side - crop + 1, FACTOR) for _ in range(2))
    return whole[:, top : top + crop, left : left + crop]


def edges(difference: Tensor) -> Tensor:
    """How much neighbours differ in it, down and across."""
    return difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()


def hue(difference: Tensor) -> Tensor:
    """How far the mean colour of what a latent covers is off: a plain ground has nothing else."""
    return F.avg_pool2d(difference, FACTOR).abs().mean()


def prepare(start: Path, folder: Path, pictures: Tensor, config: Config) -> AutoencoderTiny:
    """The centred autoencoder, f32: made from the one in `start` unless it is in `folder`; its decoder learns on if steps are left."""
    if not (folder / STEPS).exists():
        vae = AutoencoderTiny.from_pretrained(start).to(pictures.device)
        rng = random.Random(config.seed)
        few = rng.sample(range(len(pictures)), min(32, len(pictures)))
        colours = [COLOURS[WHITE] if number % 2 else rng.choice(list(COLOURS.values())) for number in range(len(few))]
        centred(vae, torch.stack([compose(pictures[number], colour, 512, 512) for number, colour in zip(few, colours)]))
        write(vae, folder, 0)
    # Channels last is a quarter faster on a CPU.
    vae = AutoencoderTiny.from_pretrained(folder).to(pictures.device, memory_format=torch.channels_last)
    accustom(vae, folder, pictures, config)
    return vae
