"""Writes a trained model as a folder in diffusers' layout, f16, with the list of what it can draw."""

import copy
import json
import os
import shutil
from pathlib import Path

from diffusers import AutoencoderTiny, StableDiffusionPipeline

import card
from fit import Fit
from model import default_scheduler, read_tokenizer
from pictures import Thing

MOST = 64e6  # bytes; it is kept in git


def export(folder: Path, run: Fit, vae: AutoencoderTiny, tokenizer: Path, things: list[Thing], name: str) -> None:
    """Rewrites the folder from the averaged weights of a run of the settings `name`; the old one stays until the new one is whole."""
    painter, config = run.average, run.config
    unfinished = folder.with_suffix(".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    text, unet, vae = (copy.deepcopy(part).cpu().half() for part in (painter.text, painter.unet, vae))
    pipe = StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=read_tokenizer(tokenizer), unet=unet, scheduler=default_scheduler(config),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.save_pretrained(unfinished)
    # Where the run kept it does not matter.
    described = unfinished / "vae" / "config.json"
    facts = json.loads(described.read_text())
    facts.pop("_name_or_path", None)
    described.write_text(json.dumps(facts, indent=2) + "\n")
    # The library would write the same words in another layout.
    shutil.rmtree(unfinished / "tokenizer")
    shutil.copytree(tokenizer, unfinished / "tokenizer")
    (unfinished / "names.txt").write_text("".join(f"{thing.name}\n" for thing in things))
    parts = {"unet": unet, "text": text, "vae": vae}
    facts = {
        "config": name, "seed": config.seed, "seen": run.pictures, "hours": round(run.seconds / 3600, 2), "hardware": card.hardware(),
        "beta_start": config.noise.beta_start, "beta_end": config.noise.beta_end,
        **{part: sum(weight.numel() for weight in net.parameters()) / 1e6 for part, net in parts.items()},
    }  # fmt: skip
    (unfinished / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    card.write(unfinished)
    size = sum(file.stat().st_size for file in unfinished.rglob("*") if file.is_file())
    if size > MOST:
        raise SystemExit(f"export: the model has {size / 1e6:.1f} MB, more than {MOST / 1e6:.0f}: take fewer channels")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(unfinished, folder)
    print(f"export: {size / 1e6:.1f} MB in {folder}")
