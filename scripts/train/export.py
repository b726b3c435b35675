"""Writes a trained model as a folder in diffusers' layout, f16, with the list of what it can draw."""

import copy
import os
import shutil
from pathlib import Path

from config import Config
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from model import Painter, default_scheduler, read_tokenizer
from pictures import Thing

MOST = 64e6  # bytes; it is kept in git


def export(folder: Path, painter: Painter, vae: AutoencoderTiny, tokenizer: Path, things: list[Thing], config: Config) -> None:
    """Writes the folder anew; the old one stays until the new one is whole."""
    unfinished = folder.with_suffix(".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    text, unet, vae = (copy.deepcopy(part).cpu().half() for part in (painter.text, painter.unet, vae))
    pipe = StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=read_tokenizer(tokenizer), unet=unet, scheduler=default_scheduler(config),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.save_pretrained(unfinished)
    # The library would write the same words in another layout.
    shutil.rmtree(unfinished / "tokenizer")
    shutil.copytree(tokenizer, unfinished / "tokenizer")
    (unfinished / "names.txt").write_text("".join(f"{thing.name}\n" for thing in things))
    size = sum(file.stat().st_size for file in unfinished.rglob("*") if file.is_file())
    if size > MOST:
        raise SystemExit(f"export: the model has {size / 1e6:.1f} MB, more than {MOST / 1e6:.0f}: take fewer channels")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(unfinished, folder)
    print(f"export: {size / 1e6:.1f} MB in {folder}")
