"""Freezes a small part of the reference's SDXL for tests that run without Python, as goldens.py does for SD v1.

    xl_goldens.py              writes tests/golden/torch-xl/

`miniatures/tiny-xl/` is a miniature (a diffusers folder in f16) with its `calls.safetensors`; `pictures.jsonl` lists a job a sampler drawn with
it, as xl_pictures.py lists its own, and `pictures/` holds what diffusers drew.
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


def main() -> None:
    """Rewrites the folder."""
    torch.set_grad_enabled(False)
    shutil.rmtree(OUT, ignore_errors=True)
    (OUT / "pictures").mkdir(parents=True)
    folder = OUT / "miniatures" / MODEL
    write(SHAPE, folder, merges=254)
    pipe = xl_calls.load(folder)
    xl_calls.record(pipe, folder / "calls.safetensors", (5, 7), (4, 6))
    for file in folder.glob("*/*.safetensors"):
        rewrite(file, lambda weights: {key: weight.half() for key, weight in weights.items()})
    config, drawn = pipe.scheduler.config, cases()
    for case in drawn:
        if case.start:
            starts.paint(case.start, OUT)
        Image.fromarray(xl_pictures.pixels(pipe, config, case, OUT)[0]).save(OUT / case.file, optimize=True)
    (OUT / "pictures.jsonl").write_text("".join(json.dumps(asdict(case), ensure_ascii=False) + "\n" for case in drawn), encoding="utf-8")


if __name__ == "__main__":
    main()
