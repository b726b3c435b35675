"""The things that can be drawn: their pictures on any ground at any size, and what one may say to name them."""

import json
import random
import zipfile
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

SIDE = 256  # of the pictures in the data file
WHITE = "white"
COLOURS = {
    WHITE: (255, 255, 255),
    "black": (16, 16, 16),
    "grey": (128, 128, 128),
    "red": (214, 40, 40),
    "orange": (245, 135, 30),
    "yellow": (250, 210, 50),
    "green": (50, 150, 65),
    "turquoise": (50, 190, 185),
    "blue": (40, 90, 210),
    "purple": (125, 60, 165),
    "pink": (245, 145, 185),
    "brown": (120, 75, 45),
}


class Thing(NamedTuple):
    """What can be drawn. `group` is `group/subgroup`, `number` its place in the data file."""

    number: int
    name: str
    tags: list[str]
    group: str


def read_things(file: Path, groups: list[str], most: int | None = None) -> list[Thing]:
    """The things of the data file whose group begins with one of `groups`, the first `most` of them."""
    with zipfile.ZipFile(file) as data:
        index = [Thing(number, **thing) for number, thing in enumerate(json.loads(data.read("index.json")))]
    return [thing for thing in index if thing.group.startswith(tuple(groups))][:most]


def read_pictures(file: Path, things: list[Thing]) -> Tensor:
    """Their pictures, uint8 `[n, 4, 256, 256]`, red, green, blue and opacity."""
    with zipfile.ZipFile(file) as data:
        pixels = [np.asarray(Image.open(BytesIO(data.read(f"{thing.number}.webp"))).convert("RGBA").resize((SIDE, SIDE))) for thing in things]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)


def layers(pictures: Tensor) -> Tensor:
    """Pictures, uint8 `[n, 4, h, w]`, as float in [0, 1], ready to be scaled.

    Colours are weighed by opacity, or what hides under full transparency would fringe the edges.
    """
    parts = pictures.float() / 255
    return torch.cat([parts[:, :3] * parts[:, 3:], parts[:, 3:]], 1)


def compose(picture: Tensor, colour: tuple[int, int, int], height: int, width: int) -> Tensor:
    """One picture, uint8 `[4, 256, 256]`, as large as fits in the middle of a coloured ground: float `[3, height, width]` in [-1, 1]."""
    side = min(height, width)
    parts = layers(picture[None])
    if side != SIDE:
        parts = F.interpolate(parts, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
    ground = torch.tensor(colour, dtype=torch.float32, device=picture.device)[:, None, None] / 255
    canvas = ground.expand(3, height, width).clone()
    top, left = (height - side) // 2, (width - side) // 2
    canvas[:, top : top + side, left : left + side] = parts[0, :3] + ground * (1 - parts[0, 3:])
    return (canvas * 2 - 1).clamp(-1, 1)


def caption(thing: Thing, colour: str, rng: random.Random) -> str:
    """One way of asking for a thing on a ground. It always holds the name; a white ground is mostly left unsaid."""
    name = thing.name
    article = "an" if name[0].lower() in "aeiou" else "a"
    tags = rng.sample(thing.tags, min(len(thing.tags), rng.choice((1, 2, 3))))
    forms = {
        name: 4,
        f"{article} {name}": 4,
        f"{name} emoji": 1,
        f"{article} {name} emoji": 1,
        f"a picture of {article} {name}": 1,
        ", ".join([name, *tags]): 1,
        ", ".join([*tags, name]): 1,
    }
    text = rng.choices(list(forms), list(forms.values()))[0]
    if colour == WHITE and rng.random() < 0.9:
        return text
    return text + rng.choice((f" on a {colour} background", f" on a {colour} background", f", {colour} background", f" on {colour}"))
