"""A training run's settings, from a TOML file. Every key is needed and none other is known: a file says all that a run depends on."""

import dataclasses
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple


class Data(NamedTuple):
    """`groups` of emojibase (`group` or `group/subgroup`), `most` of their things (0: all), `colours` of ground a picture, white among them."""

    groups: list[str]
    most: int
    colours: int


class Autoencoder(NamedTuple):
    """How long the decoder learns to live with the centred latents: `steps` of `batch` squares of `crop` pixels.

    `noise` is how far the latents it learns from are astray, by channel, as those that a UNet draws are."""

    steps: int
    batch: int
    crop: int
    rate: float
    noise: list[float]


class Denoiser(NamedTuple):
    """The UNet: a list entry a level, from the latents' size down; a level with 0 heads has no attention."""

    channels: list[int]
    heads: list[int]
    layers: int
    norm_groups: int


class Text(NamedTuple):
    """The text encoder, CLIP's."""

    width: int
    layers: int
    heads: int


class Words(NamedTuple):
    """How long the text encoder is shown what its words look like: `steps` of `batch` captions."""

    steps: int
    batch: int
    rate: float


class Noise(NamedTuple):
    """The schedule of betas, and the share of noise that is the same all over a channel."""

    beta_start: float
    beta_end: float
    offset: float


class Train(NamedTuple):
    """The loop. `sizes` are [width, height, share at first, share at last]; `grow` says from which to which share of the run one gives
    way to the other. `guidance` is how strong it is at which pictures come out right, and from which to which share of the run it grows
    so strong from 1. Minutes are between two checkpoints or sheets of samples."""

    pictures: int
    batch: int
    rate: float
    warm_up: int
    decay: float
    ema: float
    empty: float
    sizes: list[list[float]]
    grow: list[float]
    guidance: list[float]
    compile: bool
    bf16: bool
    checkpoint_minutes: float
    sheet_minutes: float


@dataclasses.dataclass(frozen=True)
class Config:
    """The sections of the file."""

    seed: int
    data: Data
    autoencoder: Autoencoder
    unet: Denoiser
    text: Text
    words: Words
    noise: Noise
    train: Train


def read(file: Path) -> Config:
    """The settings in a file. Exits, naming the key, where one is missing or unknown."""
    raw = tomllib.loads(file.read_text())
    kinds = {field.name: field.type for field in dataclasses.fields(Config)}
    differ(file, "", raw.keys(), kinds.keys())
    for name, kind in kinds.items():
        if kind is not int:
            differ(file, f"{name}.", raw[name].keys(), kind._fields)
            raw[name] = kind(**raw[name])
    return Config(**raw)


def differ(file: Path, prefix: str, found: set[str], wanted: set[str]) -> None:
    """Exits if the two sets of keys are not the same."""
    for problem, keys in (("is missing", set(wanted) - set(found)), ("is unknown", set(found) - set(wanted))):
        if keys:
            sys.exit(f"{file}: {prefix}{sorted(keys)[0]} {problem}")
