"""The model card: README.md of a trained model's folder."""

import json
import os
from pathlib import Path

import torch

from data import PICTURES, WORDS
from pictures import COLOURS

CARD = """# A model that draws what it is told

A small latent diffusion model of the Stable Diffusion v1 architecture that draws what its prompt names, one thing on a plain ground.
It was made by this project's own recipe, `scripts/train/`, and loads in diffusers' `StableDiffusionPipeline` and in latentd.

![what it draws](evaluation.png)

## What it draws

The {count} things of [names.txt](names.txt), on a ground of one of these colours: {colours}.
Say what you want as "red apple", "a red apple" or "a red apple on a blue background"; without a colour the ground is white. It is best at
512x512, and at a guidance of 5 or a little more: that is what it was trained to be right at, and weaker is paler. At other
sizes from 256 to 768, oblong ones too, it draws the one thing as well, the rougher the larger: 768x768, 512x768 and 768x512 came to its training late. It does not draw scenes, two things at once, text, or what is not on the list, though a name may lead to something like it.

{evaluation}
Drawn by latentd at 512x512 with 20 steps of K-LMS, guidance 5, fixed seeds; compared with all pictures of the data, on white, as
32x32 RGB, best of 27 shifts and scales: `scripts/train/evaluate`.

## How it was made

* Data: {pictures} {pictures_version} (npm, MIT) for the pictures, {words} {words_version} (npm, MIT) for their names and tags; no other.
* Command: `scripts/train/run {config}`, seed {seed}. {seen:,} pictures were shown, {views:,} times each thing, in {hours:.1f} hours on {hardware}.
* UNet {unet:.1f} M parameters, text encoder {text:.1f} M, autoencoder {vae:.1f} M (factor 16, centred so that white is zero); epsilon prediction,
  scaled-linear betas from {beta_start} to {beta_end}; weights in f16.
* It begins with the autoencoder of `models/miniature`, trained on the same pictures, and CLIP's byte-level BPE, cut to 8,192 entries (MIT).

## Licence

MIT OR Apache-2.0, like the program. The pictures that it learned are Microsoft's Fluent emoji, MIT.
"""
UNKNOWN = "It has not been evaluated.\n"


def hardware() -> str:
    """What this machine computes with."""
    if torch.cuda.is_available():
        return f"one {torch.cuda.get_device_name()}"
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {names[0] if names else 'a CPU'}, shared with other work"


def write(folder: Path) -> None:
    """Writes the card from what the folder holds: `training.json`, `names.txt`, and `evaluation.md` if there is one."""
    facts = json.loads((folder / "training.json").read_text())
    evaluation = folder / "evaluation.md"
    count = len((folder / "names.txt").read_text().splitlines())
    text = CARD.format(
        count=count, colours=", ".join(COLOURS), views=facts["seen"] // count,
        evaluation=evaluation.read_text() if evaluation.exists() else UNKNOWN, pictures=PICTURES.name, pictures_version=PICTURES.version,
        words=WORDS.name, words_version=WORDS.version, **facts,
    )  # fmt: skip
    if not evaluation.exists():
        text = text.replace("![what it draws](evaluation.png)\n\n", "")
    (folder / "README.md").write_text(text)
