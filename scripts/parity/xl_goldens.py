"""Freezes a small part of the reference's SDXL for tests that run without Python, as goldens.py does for SD v1.

    xl_goldens.py              writes tests/golden/torch-xl/

`miniatures/tiny-xl/` is a miniature (a diffusers folder in f16) with its `calls.safetensors`; `pictures.jsonl` lists a job a sampler drawn with
it, as xl_pictures.py lists its own, and `pictures/` holds what diffusers drew. `refiners/tiny-refiner/` goes on after it: `refined.jsonl` lists jobs
as xl_refined.py does, and `refined/` holds their pictures.
"""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import torch
from PIL import Image

import starts
import xl_calls
import xl_pictures
import xl_refined
from miniatures import CROSS, PLAIN, rewrite
from xl_miniatures import Shape, write

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "torch-xl"
MODEL = "tiny-xl"
TEXT = {"num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 32}
SHAPE = Shape(
    seed=51,
    texts=(TEXT | {"hidden_size": 12, "hidden_act": "quick_gelu"}, TEXT | {"hidden_size": 20, "hidden_act": "gelu", "projection_dim": 10}),
    unet={
        "block_out_channels": (12, 16), "down": (PLAIN, CROSS), "layers_per_block": 1, "attention_head_dim": (1, 2),
        "transformer_layers_per_block": (1, 2), "norm_num_groups": 4, "addition_time_embed_dim": 6,
    },
    vae={"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4, "scaling_factor": 0.13025, "force_upcast": True},
    half_exact=True,
)  # fmt: skip
REFINER = "tiny-refiner"
REFINER_SHAPE = replace(
    SHAPE,
    seed=52,
    texts=(None, SHAPE.texts[1]),
    unet=SHAPE.unet | {"block_out_channels": (12, 12, 16), "down": (PLAIN, CROSS, PLAIN), "attention_head_dim": (1, 1, 2), "transformer_layers_per_block": 1},
    zeros=False,
)
STEPS = (2, 3, 4)
# Sampler, steps, where denoising ends: between two steps, and of samplers of order 2 also within one.
ENDED = (("DDIM", 5, 0.6), ("HEUN", 4, 0.3), ("KDPM2-D", 5, 0.5))
# Sampler, steps, strength.
STARTED = (("EULER-A", 4, 0.8), ("DPM-M", 5, 0.99))


def cases() -> list[xl_pictures.Case]:
    """Every sampler once, the other values in turn; then what ends early, and what begins from a picture."""
    rows = [
        (scheduler, STEPS[number % 3], xl_pictures.GUIDES[number % 7], xl_pictures.SIZES[2], 1, None)
        for number, scheduler in enumerate(xl_pictures.SAMPLERS)
    ]
    rows += [(scheduler, steps, xl_pictures.GUIDES[5], (72, 64), 1, end) for scheduler, steps, end in ENDED]
    rows += [(scheduler, steps, xl_pictures.GUIDES[2], (72, 64), 1, None, strength) for scheduler, steps, strength in STARTED]
    found = [xl_pictures.case(MODEL, number, *row) for number, row in enumerate(rows)]
    return [replace(case, file=f"pictures/{number}.png") for number, case in enumerate(found)]


# Sampler, steps, where denoising ends, how the refiner goes on, its steps and their share.
REFINED = (
    ("DDIM", 3, None, "strength", 5, 0.6),
    ("EULER-A", 3, None, "strength", 4, 1.0),
    ("DDPM", 3, 0.5, "strength", 4, 0.5),
    ("EULER-D", 5, 0.6, "ensemble", 5, 0.3),
    ("HEUN", 4, 0.5, "ensemble", 4, 0.3),
    ("DDIM", 4, None, "image", 4, 0.6),
)


def refined_cases() -> list[dict]:
    """Every way in which a refiner goes on."""
    found = []
    for number, (scheduler, steps, end, refine, refiner_steps, strength) in enumerate(REFINED):
        start = strength if refine == "image" else None
        case = xl_pictures.case(MODEL, number, scheduler, steps, xl_pictures.GUIDES[5], (72, 64), 1, end, start)
        rest = {"file": f"refined/{number}.png", "refiner": REFINER, "refine": refine, "refiner_steps": refiner_steps, "refiner_strength": strength}
        found.append(asdict(case) | rest)
    return found


def write_half(folder: Path) -> None:
    """Rewrites a miniature's weights in f16, which they are exact in."""
    for file in folder.glob("*/*.safetensors"):
        rewrite(file, lambda weights: {key: weight.half() for key, weight in weights.items()})


def lines(cases: list[dict]) -> str:
    """A case a line."""
    return "".join(json.dumps(case, ensure_ascii=False) + "\n" for case in cases)


def main() -> None:
    """Rewrites the folder."""
    torch.set_grad_enabled(False)
    shutil.rmtree(OUT, ignore_errors=True)
    (OUT / "pictures").mkdir(parents=True)
    folder = OUT / "miniatures" / MODEL
    write(SHAPE, folder, merges=254)
    pipe = xl_calls.load(folder)
    xl_calls.record(pipe, folder / "calls.safetensors", (5, 7), (4, 6))
    write_half(folder)
    config, drawn = pipe.scheduler.config, cases()
    for case in drawn:
        if case.start:
            starts.paint(case.start, OUT)
        Image.fromarray(xl_pictures.pixels(pipe, config, case, OUT)[0]).save(OUT / case.file, optimize=True)
    (OUT / "pictures.jsonl").write_text(lines([asdict(case) for case in drawn]), encoding="utf-8")
    write(REFINER_SHAPE, OUT / "refiners" / REFINER, merges=254)
    write_half(OUT / "refiners" / REFINER)
    (OUT / "refined").mkdir()
    for case in refined_cases():
        if case["start"]:
            starts.paint(starts.Start(**case["start"]), OUT)
        Image.fromarray(xl_refined.pixels(pipe, config, case, OUT)[0]).save(OUT / case["file"], optimize=True)
    (OUT / "refined.jsonl").write_text(lines(refined_cases()), encoding="utf-8")


if __name__ == "__main__":
    main()
