"""Freezes a small part of the reference for tests that run without Python.

    goldens.py                 writes tests/golden/torch/

`miniatures/tiny/`, `miniatures/tiny-kl/` and the inpainting `miniatures/tiny-nine/` are miniatures (diffusers folders in f16) with their `calls.safetensors`; `pictures.jsonl` lists one job a sampler
drawn with them, as pictures.py lists its own, and `pictures/` holds what diffusers drew; `loras.jsonl` and
`loras/` are the same of loras.py.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from PIL import Image

import calls
import loras
import pictures
import starts
from miniatures import CROSS, PLAIN, Shape, rewrite, write

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "torch"
TEXT = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 32}
INPAINTING = "tiny-nine"
SHAPES = {
    "tiny": Shape(
        seed=21,
        text={**TEXT, "hidden_act": "quick_gelu"},
        unet={"block_out_channels": (16, 16), "down": (CROSS, PLAIN), "layers_per_block": 1, "attention_head_dim": 2, "norm_num_groups": 4},
        vae={"block_out_channels": (8,) * 4, "num_encoder_blocks": (1, 1, 1, 1), "num_decoder_blocks": (1, 1, 1, 1), "scaling_factor": 2.5},
        half_exact=True,
    ),
    "tiny-kl": Shape(
        seed=22,
        text={**TEXT, "hidden_act": "gelu"},
        unet={"block_out_channels": (16, 16), "down": (PLAIN, CROSS), "layers_per_block": 1, "attention_head_dim": (1, 4), "norm_num_groups": 8, "use_linear_projection": True},
        vae={"block_out_channels": (8, 8, 8, 16), "layers_per_block": 1, "norm_num_groups": 4, "scaling_factor": 0.18215},
        half_exact=True,
    ),
    INPAINTING: Shape(
        seed=23,
        text={**TEXT, "hidden_act": "quick_gelu"},
        unet={"in_channels": 9, "block_out_channels": (16, 16), "down": (CROSS, PLAIN), "layers_per_block": 1, "attention_head_dim": 2, "norm_num_groups": 4},
        vae={"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4, "scaling_factor": 0.18215},
        half_exact=True,
    ),
}
STEPS = (2, 3, 4)
# Sampler, steps, strength, masked: each kind on both autoencoders.
STARTED = (("EULER-A", 4, 0.8, False), ("DDIM", 3, 0.7, False), ("K-LMS", 4, 0.8, True), ("HEUN", 4, 0.8, True), ("KDPM2-A", 2, 1.0, True), ("DDPM", 2, 1.0, True))
# The same of the inpainting model, which draws with masks alone.
REPAINTED = (("EULER-A", 4, 0.8, True), ("DDIM", 3, 1.0, True), ("HEUN", 4, 0.5, True), ("DPM-M", 4, 1.0, True))


def cases() -> list[pictures.Case]:
    """Every sampler once, the other values in turn, then what begins from an image."""
    found = []
    for number, scheduler in enumerate(pictures.SAMPLERS):
        model = list(SHAPES)[number % 2]
        prompt, negative = pictures.PROMPTS[number % 4]
        guidance = 1.0 if number % 5 == 4 else 7.5
        found.append(pictures.Case(model, prompt, negative, 128, 128, STEPS[number % 3], guidance, scheduler, 1, pictures.SEEDS[number % 7], f"pictures/{number}.png"))
    for number, (scheduler, steps, strength, mask) in enumerate(STARTED + REPAINTED, len(found)):
        start = starts.start(128, 128, strength, mask, number)
        model = INPAINTING if (scheduler, steps, strength, mask) in REPAINTED else list(SHAPES)[number % 2]
        found.append(pictures.Case(model, *pictures.PROMPTS[0], 128, 128, steps, 7.5, scheduler, 1, number, f"pictures/{number}.png", start))
    return found


def main() -> None:
    """Rewrites the folder."""
    torch.set_grad_enabled(False)
    shutil.rmtree(OUT, ignore_errors=True)
    (OUT / "pictures").mkdir(parents=True)
    models = OUT / "miniatures"
    for name, shape in SHAPES.items():
        write(shape, models / name, merges=254)
        calls.record(calls.load(models / name), models / name / "calls.safetensors", (8, 12), (4, 6))
        for file in models.glob(f"{name}/*/*.safetensors"):
            rewrite(file, lambda weights: {key: weight.half() for key, weight in weights.items()})
    drawn = cases()
    pipes = {name: calls.load(models / name) for name in SHAPES}
    configs = {name: pipe.scheduler.config for name, pipe in pipes.items()}
    for case in drawn:
        if case.start:
            starts.paint(case.start, OUT)
        image = pictures.pixels(pipes[case.model], configs[case.model], case, OUT)[0]
        Image.fromarray(image).save(OUT / case.file, optimize=True)
    (OUT / "pictures.jsonl").write_text("".join(json.dumps(asdict(case), ensure_ascii=False) + "\n" for case in drawn), encoding="utf-8")
    asked = [case for model, layouts in loras.GOLDEN.items() for case in loras.cases(model, layouts, 1, "png")]
    loras.record(OUT, loras.GOLDEN, asked, loras.COPIES)


if __name__ == "__main__":
    main()
