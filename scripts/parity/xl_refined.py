"""Draws pictures with a miniature of SDXL and a refiner after it, in f32 on the CPU, a CPU generator for each image.

    xl_refined.py OUT          writes OUT/refined.jsonl (one case a line) and OUT/refined/N.safetensors

As runpod-workers/worker-sdxl does it: the base model's latents, with noise and a share of the refiner's steps; as an ensemble of expert denoisers,
as diffusers' documentation has it; and from pictures by the refiner alone. Cases are those of xl_pictures.py with `refiner`, `refine` ("strength",
"ensemble" or "image"), `refiner_steps` and `refiner_strength`. The refiner has the base model's autoencoder, its own sampler, and the guidance
and aesthetic scores that diffusers has by default.
"""

import itertools
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import cache
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline
from PIL import Image
from safetensors.numpy import save_file

import loras
import starts
import xl_pictures
from pictures import SAMPLERS, pairwise
from xl_calls import load

MODELS = ("xa", "xb", "xc")
REFINER = "xr"
# A refiner in one file is the same model.
COPY = "xr.safetensors"
STEPS = (2, 7, 20)
# The refiner's steps and their share; the last leaves none.
STRENGTHS = ((4, 0.3), (20, 0.3), (10, 0.75), (5, 1.0))
ENDS = (0.2, 0.5, 0.8)
OUTPUTS = (1, 2)


def cases(model: str) -> list[dict]:
    """What is drawn with one base model."""
    found = []

    def add(row: tuple, refine: str, steps: int, strength: float, start: float | None = None) -> None:
        number = len(found)
        case = asdict(xl_pictures.case(model, number, *row, start))
        case["file"] = f"refined/{model}-{number}.safetensors"
        found.append(case | {"refiner": REFINER, "refine": refine, "refiner_steps": steps, "refiner_strength": strength})

    guides, sizes = xl_pictures.GUIDES, xl_pictures.SIZES
    for number, (sampler, steps, (refiner_steps, strength), outputs) in enumerate(pairwise((tuple(SAMPLERS), STEPS, STRENGTHS, OUTPUTS))):
        # Whole runs, and some whose latents still have noise when the refiner adds its own.
        end = ENDS[number // 4 % 3] if number % 4 == 3 and steps > 2 else None
        add((sampler, steps, guides[number % len(guides)], sizes[number % 3], outputs, end), "strength", refiner_steps, strength)
    # As an ensemble both have samplers that keep the signal: diffusers takes latents of others as they are, which is not what anybody wants.
    keeping = ("EULER-D", "EULER-A", "HEUN", "K-LMS", "KDPM2-D", "KDPM2-A")
    for number, (sampler, steps, end) in enumerate(itertools.product(keeping, (7, 20), ENDS)):
        add((sampler, steps, guides[number % len(guides)], sizes[number % 3], OUTPUTS[number % 4 == 0], end), "ensemble", steps, 0.3)
    for number, (steps, strength) in enumerate(((4, 0.3), (20, 0.3), (10, 0.75), (5, 1.0))):
        add(("DDIM", steps, guides[number], sizes[number % 3], OUTPUTS[number % 2], None), "image", steps, strength, strength)
    return found


@cache
def refiner(folder: Path, base: diffusers.StableDiffusionXLPipeline) -> StableDiffusionXLImg2ImgPipeline:
    """The refiner with the autoencoder of `base`."""
    pipe = StableDiffusionXLImg2ImgPipeline.from_pretrained(str(folder), vae=base.vae, dtype=torch.float32, local_files_only=True, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pixels(base: diffusers.StableDiffusionXLPipeline, config: dict, case: dict, out: Path) -> np.ndarray:
    """What the reference draws for one case: u8 [outputs, height, width, 3]."""
    after = refiner(out / "refiners" / case["refiner"], base)
    generators = [torch.Generator().manual_seed((case["seed"] + i) % 2**64) for i in range(case["num_outputs"])]
    rest = dict(prompt=case["prompt"], num_inference_steps=case["refiner_steps"], strength=case["refiner_strength"], output_type="np")
    if case["refine"] == "image":
        image = Image.open(out / case["start"]["image"])
        images = after(image=image, num_images_per_prompt=case["num_outputs"], generator=generators, **rest).images
    else:
        base.scheduler = SAMPLERS[case["scheduler"]].from_config(config)
        latents = base(
            prompt=case["prompt"], negative_prompt=case["negative_prompt"], num_inference_steps=case["steps"], guidance_scale=case["guidance_scale"],
            denoising_end=case["denoising_end"], width=case["width"], height=case["height"], num_images_per_prompt=case["num_outputs"],
            generator=generators, output_type="latent",
        ).images  # fmt: skip
        start = case["denoising_end"] if case["refine"] == "ensemble" else None
        drawn = [after(image=one[None], denoising_start=start, generator=[generator], **rest).images for one, generator in zip(latents, generators, strict=True)]
        images = np.concatenate(drawn)
    return np.ascontiguousarray((images * 255).round().astype("uint8"))


def draw(out: Path, model: str, found: list[dict]) -> None:
    """Draws one base model's cases."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    pipe = load(out / "miniatures" / model)
    config, spread = pipe.scheduler.config, []
    for case in found:
        if case["start"]:
            starts.paint(starts.Start(**case["start"]), out)
        image = pixels(pipe, config, case, out)
        spread.append(image.std())
        save_file({"image": image}, out / case["file"])
    print(f"{model}: {len(found)} cases, standard deviation {np.mean(spread):.0f}", flush=True)


def main() -> None:
    """Draws everything with two processes, and lists it."""
    diffusers.utils.logging.set_verbosity_error()
    out = loras.folder(__doc__)
    (out / "refined").mkdir(parents=True, exist_ok=True)
    drawn = {model: cases(model) for model in MODELS}
    with ProcessPoolExecutor(2) as pool:
        for _ in pool.map(draw, itertools.repeat(out), drawn, drawn.values()):
            pass
    lines = [case for found in drawn.values() for case in found]
    lines += [case | {"refiner": COPY} for case in drawn[MODELS[0]][::5]]
    (out / "refined.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
