"""Draws whole pictures with diffusers' SDXL pipelines, in f32 on the CPU, a CPU generator for each image.

    xl_pictures.py OUT --list     the names of the parts, a line each
    xl_pictures.py OUT PART       writes OUT/PART.jsonl (one case a line) and OUT/pictures/N.safetensors

Text to picture: samplers x steps x guidance with a negative prompt, none or an empty one x sizes x outputs x where denoising ends. From pictures:
samplers x steps and strengths x guidance x outputs, and with masks samplers x steps and strengths x outputs. On the miniature `xc` every
combination of sampler with steps and guidance, with where denoising ends, and with steps and strength; on the others as many as bring every pair of values together. Files and parts are as those of pictures.py.
"""

import itertools
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline, StableDiffusionXLPipeline
from PIL import Image, ImageOps

import pictures
import starts
import xl_miniatures
import xl_samplers
from pictures import LONG, SAMPLERS, SEEDS, pairwise
from xl_calls import load

STEPS = (1, 2, 7, 20, 50)
TEXT = "text"
# Guidance, and the negative prompt: none, an empty one, or a text.
GUIDES = ((0.0, None), (1.0, TEXT), (5.0, None), (5.0, ""), (5.0, TEXT), (7.5, None), (7.5, TEXT))
# Width and height; the last is 9 x 13 latents.
SIZES = ((128, 128), (72, 136), (104, 72))
OUTPUTS = (1, 3)
ENDS = (0.2, 0.5, 0.8, 0.98)
# Steps and strength; a strength that leaves no step is refused by the reference.
RUNS = ((1, 1.0), (2, 0.99), (2, 1.0), (7, 0.3), (7, 0.99), (20, 0.3), (20, 0.5), (20, 1.0), (50, 0.3), (50, 0.99))
# The same with a mask.
MASKED = ((2, 1.0), (7, 0.3), (7, 0.99), (20, 0.5), (20, 1.0))
PROMPTS = (
    "a red apple on a table",
    "blue ocean at sunset!, oil painting!!",
    "",
    "ein Fuß im Schnee, 東京の夜, 🦊🌲 !",
    LONG,
    "A PHOTO   of an astronaut\n",
    "wow! a cat!!b, 4k, (masterpiece:1.2)",
)
NEGATIVES = ("blurry, dark", "low quality!, 悪い", LONG)
# The miniature with most combinations.
FULL = "xc"
# Cases of a part.
CASES = 160
# Not `xb.safetensors`, which cannot say what its folder does of timesteps and of none for a negative prompt.
COPIES = {"xa.safetensors": "xa", "xc-half": "xc", "xd-sharded": "xd", "xi.safetensors": "xi"}
# Models that repaint parts of pictures, and draw nothing else.
INPAINTING = ("xi",)


@dataclass(frozen=True)
class Case:
    """One job, as the endpoint would be asked."""

    model: str
    prompt: str
    negative_prompt: str | None
    width: int
    height: int
    steps: int
    denoising_end: float | None
    guidance_scale: float
    scheduler: str
    num_outputs: int
    seed: int
    file: str
    start: starts.Start | None = None


def case(model: str, number: int, scheduler: str, steps: int, guide: tuple, size: tuple[int, int], outputs: int, end: float | None, strength: float | None = None, mask: bool = False) -> Case:
    """A case whose prompts and seed turn with its number."""
    guidance, negative = guide
    if negative == TEXT:
        negative = NEGATIVES[number // 2 % len(NEGATIVES)]
    start = None if strength is None else starts.start(*size, strength, mask, number)
    kind = "" if start is None else "mask-" if mask else "start-"
    file = f"pictures/{model}-{kind}{number}.safetensors"
    seed = SEEDS[number // 2 % len(SEEDS)]
    return Case(model, PROMPTS[number % len(PROMPTS)], negative, *size, steps, end, guidance, scheduler, outputs, seed, file, start)


def evaluations(model: str, scheduler: str, steps: int, end: float) -> int:
    """How many of a sampler's timesteps lie before the end, as the pipelines count."""
    config = xl_miniatures.SHAPES[model].scheduler
    found = timesteps(scheduler, tuple(sorted(config.items())), steps)
    return sum(timestep >= round(1000 - end * 1000) for timestep in found)


@cache
def timesteps(scheduler: str, config: tuple, steps: int) -> list[float]:
    """What a sampler visits."""
    found = SAMPLERS[scheduler].from_config(xl_samplers.own(dict(config)).config)
    found.set_timesteps(steps)
    return found.timesteps.tolist()


def cases(model: str) -> list[Case]:
    """What is drawn from text with one model."""
    if model == FULL:
        whole = [
            (*row, SIZES[number % 3], OUTPUTS[number // 3 % 5 == 0], None)
            for number, row in enumerate(itertools.product(SAMPLERS, STEPS, GUIDES))
        ]
        ended = [
            (scheduler, steps, GUIDES[number % len(GUIDES)], SIZES[number % 3], 1, end)
            for number, (scheduler, steps, end) in enumerate(itertools.product(SAMPLERS, STEPS, ENDS))
        ]
        rows = whole + ended
    else:
        rows = few((tuple(SAMPLERS), STEPS, GUIDES, SIZES, OUTPUTS, (None, *ENDS)))
    drawn = [row for row in rows if row[-1] is None or evaluations(model, row[0], row[1], row[-1]) > 0]
    return [case(model, number, *row) for number, row in enumerate(drawn)]


def cases_from_pictures(model: str) -> list[Case]:
    """The same for jobs that begin from a picture. Sizes turn with the case's number."""
    if model == FULL:
        rows = [(*row, GUIDES[number % len(GUIDES)], OUTPUTS[number % 4 == 0]) for number, row in enumerate(itertools.product(SAMPLERS, RUNS))]
    else:
        rows = few((tuple(SAMPLERS), RUNS, GUIDES, OUTPUTS))
    return [
        case(model, number, scheduler, steps, guide, SIZES[number % 3], outputs, None, strength)
        for number, (scheduler, (steps, strength), guide, outputs) in enumerate(rows)
    ]


def cases_with_masks(model: str) -> list[Case]:
    """What is drawn with masks; sizes and guidance turn with the case's number."""
    rows = few((tuple(SAMPLERS), MASKED, OUTPUTS))
    return [
        case(model, number, scheduler, steps, GUIDES[number % len(GUIDES)], SIZES[number % 3], outputs, None, strength, True)
        for number, (scheduler, (steps, strength), outputs) in enumerate(rows)
    ]


@cache
def few(factors: tuple[tuple, ...]) -> list[tuple]:
    """Rows in which every pair of values meets."""
    return pairwise(factors)


@cache
def sharing(pipe: StableDiffusionXLPipeline, kind: type) -> diffusers.DiffusionPipeline:
    """A pipeline of another kind with the same parts."""
    found = kind(**pipe.components, force_zeros_for_empty_prompt=pipe.config.force_zeros_for_empty_prompt, add_watermarker=False)
    found.set_progress_bar_config(disable=True)
    return found


def pixels(pipe: StableDiffusionXLPipeline, config: dict, case: Case, out: Path, **more: object) -> np.ndarray:
    """What the reference draws for one case: u8 [outputs, height, width, 3]. `config` is that of the model's own scheduler; files that
    the case names are under `out`; `more` is what the pipeline is asked besides.
    """
    asked = dict(
        prompt=case.prompt, negative_prompt=case.negative_prompt, num_inference_steps=case.steps, guidance_scale=case.guidance_scale,
        denoising_end=case.denoising_end, output_type="np", **more,
    )  # fmt: skip
    generators = [torch.Generator().manual_seed((case.seed + i) % 2**64) for i in range(case.num_outputs)]
    if case.start is None or case.start.mask:
        asked |= {"width": case.width, "height": case.height}
    if case.start:
        asked |= {"image": Image.open(out / case.start.image), "strength": case.start.strength}
        pipe = sharing(pipe, StableDiffusionXLInpaintPipeline if case.start.mask else StableDiffusionXLImg2ImgPipeline)
    pipe.scheduler = SAMPLERS[case.scheduler].from_config(config)
    if case.start and case.start.mask:
        mask = Image.open(out / case.start.mask).convert("L")
        asked["mask_image"] = mask if case.start.repaint == "white" else ImageOps.invert(mask)
        # Of several outputs the reference draws the image's latents once, from the first generator: asked one by one, each has its own.
        images = np.concatenate([pipe(generator=[generator], **asked).images for generator in generators])
    else:
        images = pipe(generator=generators, num_images_per_prompt=case.num_outputs, **asked).images
    # Contiguous, because safetensors writes the bytes as they lie in memory.
    return np.ascontiguousarray((images * 255).round().astype("uint8"))


def parts() -> pictures.Parts:
    """Those of every miniature."""
    found = {}
    for model in xl_miniatures.SHAPES:
        masked = cases_with_masks(model)
        if model in INPAINTING:
            found |= pictures.deal(model, masked, CASES, COPIES, masked[:12])
            continue
        drawn = cases(model) + cases_from_pictures(model)
        found |= pictures.deal(model, drawn, CASES, COPIES, drawn[:12] + drawn[-8:])
        found[f"pictures-{model}-masks"] = (masked, [asdict(case) for case in masked])
    return found


if __name__ == "__main__":
    diffusers.utils.logging.set_verbosity_error()
    pictures.main(__doc__, parts(), partial(pictures.draw, load=load, pixels=pixels))
