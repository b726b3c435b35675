"""Draws whole pictures with diffusers' pipelines, in f32 on the CPU, a CPU generator for each image.

    pictures.py OUT --list     the names of the parts, a line each
    pictures.py OUT PART       writes OUT/PART.jsonl (one case a line) and OUT/pictures/N.safetensors

Text to image: samplers x steps x guidance x sizes x outputs. From images, and with masks: samplers x steps and strengths x outputs x
masked or not; an inpainting model draws with masks alone. Every combination on the miniature `c`, on the others as many as bring every pair of values together. `image` is u8 [outputs, height, width, 3], rounded as diffusers rounds. Single files and copies in other layouts are
the same models, so their lines name pictures of the originals. A part is what two cores draw and compare in less than half an hour.
"""

import argparse
import itertools
import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import diffusers
import numpy as np
import torch
from safetensors.numpy import save_file

import miniatures
import samplers
import starts
from calls import load

STEPS = (1, 2, 7, 20, 50)
GUIDANCE = (1.0, 7.5)
STRENGTHS = (0.3, 0.8, 1.0)
SHAPES = ("square", "not")
OUTPUTS = (1, 3)
LONG = "a very long list of things that goes on " * 12
# (prompt, negative prompt)
PROMPTS = (
    ("a red apple on a table", None),
    ("blue ocean at sunset, oil painting", "blurry, dark"),
    ("", None),
    ("ein Fuß im Schnee, 東京の夜, 🦊🌲", ""),
    ("A PHOTO   of an astronaut\n", "low quality, 悪い"),
    (LONG, "ugly"),
    ("portrait of a woman, 4k, (masterpiece:1.2)", LONG),
)
# torch seeds its generator with the low 32 bits; the last one's second image wraps to seed 0.
SEEDS = (0, 1, 40264, 2**31 + 7, 2**32 + 5, 2**53 + 1, 2**64 - 1)
# Latents of 28 and 8 rows do not halve evenly all the way down a UNet of four levels.
ODD = {"d": (448, 128)}
# The miniature that every combination is drawn with.
FULL = "c"
# Cases of a part.
CASES = 120
COPIES = {"a.safetensors": "a", "a-old-attention": "a", "b.safetensors": "b", "e-half": "e", "f.safetensors": "f"}
# Models that repaint parts of images, and draw nothing else.
INPAINTING = ("f",)
# Cases that f32 does not determine: the reference itself draws another picture after a change as small as rounding makes. That is proved when they are
# drawn, and they are compared with nothing.
UNDETERMINED = ("pictures/xa-start-71.safetensors",)
ROUNDING = 1e-6  # of all latents after the first step, relative
MOST_OFF = 3  # of 255, what a comparison allows


class Ipndm(samplers.Ipndm):
    """Our IPNDM as a pipeline calls it."""

    def step(self, output, timestep, sample, return_dict=False):  # noqa: D102
        return (super().step(output, timestep, sample).prev_sample,)


SAMPLERS = samplers.SAMPLERS | {"IPNDM": Ipndm}


@dataclass(frozen=True)
class Case:
    """One job, as the endpoint would be asked."""

    model: str
    prompt: str
    negative_prompt: str | None
    width: int
    height: int
    steps: int
    guidance_scale: float
    scheduler: str
    num_outputs: int
    seed: int
    file: str
    start: starts.Start | None = None


def pairwise(factors: tuple[tuple, ...]) -> list[tuple]:
    """Few rows, one value of each factor a row, such that every pair of values meets in some row; greedy, always the same."""
    places = list(itertools.combinations(range(len(factors)), 2))
    rows = list(itertools.product(*factors))
    missing = {(i, j, row[i], row[j]) for row in rows for i, j in places}
    chosen, uses = [], Counter()
    while missing:
        # Among the rows that bring most new pairs, one whose values were used least.
        best = max(rows, key=lambda row: (sum((i, j, row[i], row[j]) in missing for i, j in places), -sum(uses[place] for place in enumerate(row))))
        missing -= {(i, j, best[i], best[j]) for i, j in places}
        uses.update(enumerate(best))
        chosen.append(best)
    return chosen


def cases(model: str, full: bool) -> list[Case]:
    """What is drawn with one model. Prompts, seeds and orientation turn with the case's number."""
    factors = (tuple(SAMPLERS), STEPS, GUIDANCE, SHAPES, OUTPUTS)
    found = []
    for number, (scheduler, steps, guidance, shape, outputs) in enumerate(itertools.product(*factors) if full else pairwise(factors)):
        prompt, negative = PROMPTS[number % len(PROMPTS)]
        sides = (128, 128) if shape == "square" else (256, 128) if number % 3 else (128, 256)
        found.append(Case(model, prompt, negative, *sides, steps, guidance, scheduler, outputs, SEEDS[number // 2 % len(SEEDS)], f"pictures/{model}-{number}.safetensors"))
    if model in ODD:
        found.append(Case(model, *PROMPTS[0], *ODD[model], 2, 7.5, "EULER-A", 1, 3, f"pictures/{model}-odd.safetensors"))
    return found


def cases_from_images(model: str, full: bool) -> list[Case]:
    """The same for jobs that begin from an image. Sizes and guidance turn with the case's number, too."""
    runs = [(steps, strength) for steps in STEPS for strength in STRENGTHS if int(steps * strength) > 0]
    masks = (True,) if model in INPAINTING else (False, True)
    factors = (tuple(SAMPLERS), tuple(runs), OUTPUTS, masks)
    found = []
    for number, (scheduler, (steps, strength), outputs, mask) in enumerate(itertools.product(*factors) if full else pairwise(factors)):
        prompt, negative = PROMPTS[number % len(PROMPTS)]
        sides = ((128, 128), (256, 128), (128, 128), (128, 256))[number % 4]
        guidance, seed = GUIDANCE[number // 3 % 2], SEEDS[number // 2 % len(SEEDS)]
        file = f"pictures/{model}-start-{number}.safetensors"
        start = starts.start(*sides, strength, mask, number)
        found.append(Case(model, prompt, negative, *sides, steps, guidance, scheduler, outputs, seed, file, start))
    return found


def pixels(pipe: diffusers.StableDiffusionPipeline, config: dict, case: Case, out: Path, **more: object) -> np.ndarray:
    """What the reference draws for one case: u8 [outputs, height, width, 3]. `config` is that of the model's own scheduler; files that
    the case names are under `out`; `more` is what the pipeline is asked besides.
    """
    pipe.scheduler = SAMPLERS[case.scheduler].from_config(config)
    asked = dict(
        prompt=case.prompt, negative_prompt=case.negative_prompt, width=case.width, height=case.height, output_type="np",
        num_inference_steps=case.steps, guidance_scale=case.guidance_scale, num_images_per_prompt=case.num_outputs,
        generator=[torch.Generator().manual_seed((case.seed + i) % 2**64) for i in range(case.num_outputs)], **more,
    )  # fmt: skip
    images = starts.draw(pipe, case.start, out, asked) if case.start else pipe(**asked).images
    # Contiguous, because safetensors writes the bytes as they lie in memory.
    return np.ascontiguousarray((images * 255).round().astype("uint8"))


def draw(out: Path, batch: list[Case], load: Callable = load, pixels: Callable = pixels) -> str:
    """Draws cases of one model; gives a line about how the pictures use their range."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    pipe = load(out / "miniatures" / batch[0].model)
    config, edges, spread = pipe.scheduler.config, [], []
    for case in batch:
        image = pixels(pipe, config, case, out)
        save_file({"image": image}, out / case.file)
        if case.file in UNDETERMINED:
            differs = np.abs(image.astype(int) - pixels(pipe, config, case, out, callback_on_step_end=rounded)).max()
            if differs <= MOST_OFF:
                raise SystemExit(f"{case.file} is determined after all: it differs by {differs}")
        if case.steps >= 7 and not getattr(case, "denoising_end", None):
            edges.append(np.mean((image == 0) | (image == 255)))
            spread.append(image.std())
    return f"{batch[0].model}: {len(batch)} cases; whole runs of 7 steps and more have {np.mean(edges):.1%} of values at an end, standard deviation {np.mean(spread):.0f}"


def rounded(_: diffusers.DiffusionPipeline, step: int, __: torch.Tensor, found: dict) -> dict:
    """Changes the latents after the first step about as rounding does."""
    return found | {"latents": found["latents"] * (1 + ROUNDING)} if step == 0 else found


# What is drawn and what is listed, by the name of the part.
Parts = dict[str, tuple[list[Case], list[dict]]]


def deal(model: str, drawn: list[Case], most: int, copies: dict[str, str], again: list[Case]) -> Parts:
    """One model's parts of at most so many cases, dealt like cards: each gets slow samplers and fast ones. `again` is drawn with copies, too."""
    found = {}
    names = [copy for copy, original in copies.items() if original == model]
    count = -(-len(drawn) // most)
    for number in range(count):
        mine = drawn[number::count]
        lines = [asdict(case) for case in mine] + [asdict(case) | {"model": copy} for copy in names for case in mine if case in again]
        found[f"pictures-{model}" + (f"-{number + 1}" if count > 1 else "")] = (mine, lines)
    return found


def parts() -> Parts:
    """Those of every miniature."""
    found = {}
    for model in (*miniatures.SHAPES, "emoji"):
        drawn = [] if model in INPAINTING else cases(model, model == FULL)
        drawn += cases_from_images(model, model == FULL)
        found |= deal(model, drawn, CASES, COPIES, drawn[:3] + drawn[-3:])
    return found


def part_or_goldens(about: str | None, parts: tuple[str, ...], record: Callable[[Path, str], None], goldens: Callable[[], None]) -> None:
    """Draws one of `parts` into a folder by `record`, or rewrites the goldens."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("part", choices=parts, nargs="?")
    parser.add_argument("--golden", action="store_true")
    arguments = parser.parse_args()
    if arguments.golden == bool(arguments.part):
        parser.error("give either OUT and PART or --golden")
    diffusers.utils.logging.set_verbosity_error()
    torch.set_grad_enabled(False)
    if arguments.golden:
        goldens()
    else:
        record(arguments.out, arguments.part)


def main(about: str | None, found: Parts, draw: Callable[[Path, list[Case]], str]) -> None:
    """Draws a part with two processes, and lists it."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("part", nargs="?", help="one of those that --list names")
    parser.add_argument("--list", action="store_true", help="name the parts")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(found))
        return
    if arguments.part not in found:
        parser.error(f"no part {arguments.part!r}: {', '.join(found)}")
    out, (mine, lines) = arguments.out, found[arguments.part]
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    for case in mine:
        if case.start:
            starts.paint(case.start, out)
    with ProcessPoolExecutor(2) as pool:
        for line in pool.map(draw, itertools.repeat(out), (mine[::2], mine[1::2])):
            print(line, flush=True)
    lines = [line for line in lines if line["file"] not in UNDETERMINED]
    (out / f"{arguments.part}.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main(__doc__, parts(), draw)
