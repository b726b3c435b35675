"""What is trained on: the latents of every picture on a few grounds at every size, encoded once and kept in a file."""

import os
import random
import time
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from config import Config
from pictures import COLOURS, WHITE, compose

NAMES = list(COLOURS)


def grounds(count: int, config: Config) -> list[list[str]]:
    """For each of `count` pictures the colours it is seen on: white, and others by chance."""
    rng = random.Random(config.seed)
    return [[WHITE, *rng.sample([name for name in NAMES if name != WHITE], config.data.colours - 1)] for _ in range(count)]


@torch.no_grad()
def encode(vae: AutoencoderTiny, pictures: Tensor, colours: list[list[str]], size: tuple[int, int], file: Path) -> None:
    """Writes scaled latents, f16 `[n, colours, 4, height / 16, width / 16]`, of pictures `[n, 4, 256, 256]` at `size`, width and height.

    What is encoded is kept every minute, for who goes on.
    """
    width, height = size
    unfinished = file.with_suffix(".part")
    done = list(torch.load(unfinished, map_location=pictures.device)) if unfinished.exists() else []
    kept = time.monotonic()
    for picture, names in list(zip(pictures, colours))[len(done) :]:
        batch = torch.stack([compose(picture, COLOURS[name], height, width) for name in names])
        done.append((vae.encode(batch).latents * vae.config.scaling_factor).half())
        if time.monotonic() - kept > 60 or len(done) == len(pictures):
            print(f"latents: {len(done)} of {len(pictures)} pictures at {width}x{height}", flush=True)
            write(torch.stack(done), unfinished)
            kept = time.monotonic()
    os.replace(unfinished, file)


def write(tensor: Tensor, file: Path) -> None:
    """Writes a tensor's file at one stroke."""
    new = file.with_suffix(".new")
    torch.save(tensor, new)
    os.replace(new, file)


class Store:
    """The latents of the training's pictures, size by size; encoded when first asked for."""

    def __init__(self, folder: Path, vae: AutoencoderTiny, pictures: Tensor, config: Config) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.vae, self.pictures = folder, vae, pictures
        self.colours = grounds(len(pictures), config)
        self.read: dict[tuple[int, int], Tensor] = {}

    def at(self, width: int, height: int) -> Tensor:
        """Latents as `encode` writes them, a ground for each of a picture's `colours`."""
        if (width, height) not in self.read:
            file = self.folder / f"{width}x{height}.pt"
            if not file.exists():
                encode(self.vae, self.pictures, self.colours, (width, height), file)
            self.read[width, height] = torch.load(file, map_location=self.pictures.device)
        return self.read[width, height]
