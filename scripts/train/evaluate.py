"""Draws things with latentd and says how many are what they were called; `evaluate` runs it.

Every thing is drawn on the ground that goes without saying, white, and once more on a named colour. What a drawing on white is most
like is looked up among all pictures of the data file, not only among those that the model was shown. Drawings are kept, with the model's
checksum in the folder's name, so that what was stopped goes on.
"""

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

import card
from nearest import NEAR, ground_is, ranking, references
from pictures import COLOURS, WHITE, read_pictures, read_things
from sheet import lay_out

JOB = {"width": 512, "height": 512, "num_inference_steps": 20, "scheduler": "K-LMS", "guidance_scale": 5}
COUNT = 200
SHOWN = 64  # on the contact sheet
WANTED = {"first": 0.70, "five": 0.85, "ground": 0.95}


class Drawing(NamedTuple):
    """One job: what is asked for, on which ground, and from which seed."""

    name: str
    colour: str
    seed: int

    @property
    def prompt(self) -> str:
        """What latentd is told."""
        return self.name if self.colour == WHITE else f"{self.name} on a {self.colour} background"


class Figures(NamedTuple):
    """Shares of the drawings."""

    count: int
    first: float
    five: float
    ground: float

    def good(self) -> bool:
        """Whether they are all that was wanted."""
        return all(getattr(self, name) >= least for name, least in WANTED.items())


def plan(names: list[str], count: int) -> list[Drawing]:
    """What is drawn: names by chance, the same every time, each on white and on a colour."""
    rng = random.Random("evaluate")
    colours = [name for name in COLOURS if name != WHITE]
    drawings = []
    for seed, name in enumerate(rng.sample(names, min(count, len(names)))):
        drawings += [Drawing(name, WHITE, seed), Drawing(name, rng.choice(colours), seed)]
    return drawings


def draw(model: Path, folder: Path, drawing: Drawing) -> Path:
    """The drawing's PNG; drawn by latentd unless it is there. Exits with latentd's words if that fails."""
    place = folder / f"{drawing.seed}-{drawing.colour}"
    found = list(place.glob("*.png"))
    if not found:
        job = json.dumps({"input": {"prompt": drawing.prompt, "seed": drawing.seed, **JOB}})
        words = [os.environ["LATENTD"], "run", "--model", str(model), "--test-input", job, "--out", str(place)]
        done = subprocess.run(words, capture_output=True, text=True)
        found = list(place.glob("*.png"))
        if done.returncode or not found:
            sys.exit(f"evaluate: latentd ended with {done.returncode} on {drawing.prompt!r}: {done.stderr[-2000:]}")
    return found[0]


def pixels(file: Path) -> torch.Tensor:
    """A PNG as `[3, h, w]` in [-1, 1]."""
    return torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1) / 127.5 - 1


def measure(drawings: list[Drawing], files: list[Path], data: Path) -> tuple[Figures, list[str]]:
    """The figures, and a line for each thing that was not recognised or has a wrong ground."""
    things = read_things(data, [""])
    known = references(read_pictures(data, things))
    number = {thing.name: thing.number for thing in things}
    first = five = grounds = 0
    wrong = []
    for drawing, file in zip(drawings, files):
        picture = pixels(file)
        if drawing.colour != WHITE:
            grounds += ground_is(picture, drawing.colour)
            if not ground_is(picture, drawing.colour):
                wrong.append(f"{drawing.prompt}: the ground is another")
            continue
        order = ranking(picture, known)[:5].tolist()
        first += order[0] == number[drawing.name]
        five += number[drawing.name] in order
        if order[0] != number[drawing.name]:
            wrong.append(f"{drawing.prompt}: most like {', '.join(things[place].name for place in order)}")
    count = len(drawings) // 2
    return Figures(count, first / count, five / count, grounds / count), wrong


def table(figures: Figures, names: int) -> str:
    """The figures in Markdown."""
    return f"""| of {figures.count} things of {names}, by chance | share | wanted |
|---|---|---|
| the named picture is the nearest of all | {figures.first:.1%} | {WANTED["first"]:.0%} |
| it is among the nearest five | {figures.five:.1%} | {WANTED["five"]:.0%} |
| a named ground is right (all corners within {NEAR} of 255 in each of red, green, blue) | {figures.ground:.1%} | {WANTED["ground"]:.0%} |
"""


def main(model: Path, data: Path, count: int = COUNT) -> None:
    """Writes `evaluation.md` and `evaluation.png` into the model's folder; ends with 1 if the figures are not what is wanted."""
    torch.set_num_threads(1)
    names = (model / "names.txt").read_text().splitlines()
    weights = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(model.rglob("*.safetensors")))).hexdigest()
    folder = model.parent / f"{model.name}.drawn" / weights[:12]
    drawings = plan(names, count)
    files = []
    for place, drawing in enumerate(drawings):
        files.append(draw(model, folder, drawing))
        if place % 20 == 19:
            print(f"evaluate: {place + 1} of {len(drawings)} drawn", file=sys.stderr, flush=True)
    figures, wrong = measure(drawings, files, data)
    text = table(figures, len(names))
    (model / "evaluation.md").write_text(text)
    (folder / "wrong.txt").write_text("".join(f"{line}\n" for line in wrong))
    # Half of the sheet on white, half on colours; of different things.
    shown = [(drawing, file) for drawing, file in zip(drawings, files) if (drawing.colour == WHITE) == (drawing.seed % 2 == 0)][:SHOWN]
    sheet = lay_out([Image.open(file) for _, file in shown], [drawing.prompt for drawing, _ in shown], columns=8)
    sheet.quantize(256, dither=Image.Dither.NONE).save(model / "evaluation.png", optimize=True)
    card.write(model)
    print(text)
    print(f"evaluate: what went wrong is in {folder / 'wrong.txt'}", file=sys.stderr)
    sys.exit(not figures.good())


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]), *map(int, sys.argv[3:]))
