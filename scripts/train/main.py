"""Trains a model and writes its folder: the autoencoder is centred, the text encoder is shown what words
look like, latents are encoded, the UNet learns, the result is exported.

    python main.py CONFIG OUT [--as-it-stands]

Each stage leaves its result in OUT and is passed over once it is there, so that a run that was killed goes on where it was.
"""

import json
import sys
from pathlib import Path

import torch

import autoencoder
import data
import words
from config import read
from export import export
from fit import Batches, Fit, fit
from latents import Store
from model import read_tokenizer
from pictures import read_pictures, read_things

MINIATURE = Path(__file__).resolve().parents[2] / "models" / "miniature"  # whose autoencoder and tokenizer are the start


def main(file: Path, out: Path, as_it_stands: bool = False) -> None:
    """Runs what has not been run; `as_it_stands`, only exports what the last checkpoint holds."""
    config = read(file)
    out.mkdir(parents=True, exist_ok=True)
    agree(out, file)
    if not (out / "pictures.zip").exists():
        data.pack(out / "pictures.zip")
    device = torch.device("cuda" if torch.cuda.is_available() and not as_it_stands else "cpu")
    torch.set_float32_matmul_precision("high")
    things = read_things(out / "pictures.zip", config.data.groups, config.data.most or None)
    pictures = read_pictures(out / "pictures.zip", things).to(device)
    tokenizer = read_tokenizer(MINIATURE / "tokenizer")
    print(f"train: {len(things)} things, on {device}", flush=True)
    vae = autoencoder.prepare(MINIATURE / "vae", out / "autoencoder", pictures, config)
    text = words.teach(config, tokenizer, out / "words.pt", things, pictures)
    run = Fit(config, tokenizer, text, out)
    if not as_it_stands:
        fit(config, run, Batches(config, things, tokenizer, Store(out / "latents", vae, pictures, config)), vae)
    export(out / "model", run, vae, MINIATURE / "tokenizer", things, file.stem)


def agree(out: Path, file: Path) -> None:
    """Exits if what lies in `out` was made with other settings; how long and how fast is learned may change on the way."""
    settings = read(file)
    fixed = json.dumps([settings.seed, *(part._asdict() for part in (settings.data, settings.unet, settings.text, settings.noise))], indent=1)
    stamp = out / "settings.json"
    if stamp.exists() and stamp.read_text() != fixed:
        sys.exit(f"train: {stamp} is not what {file} says: {out} was begun with other data, networks or noise; take another folder")
    stamp.write_text(fixed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), "--as-it-stands" in sys.argv)
