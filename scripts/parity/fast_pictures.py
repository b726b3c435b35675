"""Draws what distilled models are drawn with: samplers LCM and TCD, trailing steps, little or no guidance, a UNet that is told the guidance
scale, and LoRAs in the layout of the published LCM LoRAs.

    fast_pictures.py OUT PART      PART is pictures-fast or pictures-xfast: OUT/miniatures/{f,xf}/, OUT/PART.jsonl and OUT/pictures/
    fast_pictures.py --golden      a small part, with LoRAs, into tests/golden/torch-fast/

A case is that of pictures.py or xl_pictures.py, and `sigmas`. Both miniatures' UNets have `time_cond_proj_dim`; that of SDXL has Turbo's
scheduler file.
"""

import itertools
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import diffusers
import torch
from PIL import Image

import calls
import loras
import miniatures
import pictures
import starts
import xl_calls
import xl_goldens
import xl_loras
import xl_miniatures
import xl_pictures
import xl_samplers
from miniatures import CROSS, PLAIN

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "torch-fast"
# What a sampler's name has behind it here where its steps are trailing.
TRAILING = " trailing"
GUIDANCE = (0.0, 1.0, 1.5, 8.0)
STEPS = (1, 2, 4, 8, 50)
# Steps and strength.
RUNS = ((4, 0.3), (4, 0.8), (8, 1.0), (50, 0.5))
# What LCM LoRAs change; no text encoder is among it.
LCM_LORA = loras.Layout(rf"{loras.RESNETS}|\.upsamplers\.0\.conv$", "^$", loras.kohya, alpha=0.5, kind=torch.float16)
FEW = replace(LCM_LORA, unet=r"attentions.*to_[qkv]$|mid_block.*\.(ff\.net\.2|proj_out)$|resnets\.0\.(conv1|conv2|time_emb_proj)$", ranks=(2,))


@dataclass(frozen=True)
class Trailing:
    """A scheduler whose steps are trailing whatever the model's file says."""

    kind: type

    def from_config(self, config: dict) -> diffusers.SchedulerMixin:
        """As a pipeline's scheduler is replaced."""
        return self.kind.from_config(config, timestep_spacing="trailing")


SPACED = {f"{name}{TRAILING}": Trailing(kind) for name, kind in pictures.SAMPLERS.items() if name != "DPM-S"}
FAST = {"LCM": diffusers.LCMScheduler, "TCD": diffusers.TCDScheduler}
pictures.SAMPLERS.update(FAST | SPACED)

TEXT = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 64, "hidden_act": "quick_gelu"}
TINY = xl_goldens.SHAPE
SHAPES = {
    "g": miniatures.Shape(
        seed=61,
        text=TEXT,
        unet={"block_out_channels": (24, 32), "down": (CROSS, PLAIN), "layers_per_block": 1, "attention_head_dim": 4, "norm_num_groups": 8, "time_cond_proj_dim": 32},
        vae={"block_out_channels": (16,) * 4, "layers_per_block": 1, "norm_num_groups": 8, "scaling_factor": 0.18215},
    ),
    "xg": replace(xl_miniatures.SHAPES["xb"], seed=62, unet=xl_miniatures.SHAPES["xb"].unet | {"time_cond_proj_dim": 24}),
    "tiny-lcm": miniatures.Shape(
        seed=63,
        text=TEXT | {"hidden_size": 16, "intermediate_size": 32},
        unet={"block_out_channels": (16, 16), "down": (CROSS, PLAIN), "layers_per_block": 1, "attention_head_dim": 2, "norm_num_groups": 4, "time_cond_proj_dim": 10},
        vae={"block_out_channels": (8,) * 4, "num_encoder_blocks": (1, 1, 1, 1), "num_decoder_blocks": (1, 1, 1, 1), "scaling_factor": 2.5},
        half_exact=True,
    ),
    "tiny-xl-turbo": replace(TINY, seed=64, unet=TINY.unet | {"time_cond_proj_dim": 12}, scheduler=xl_samplers.TURBO),
}  # fmt: skip
# They lie beside those of other parts.
assert not SHAPES.keys() & (miniatures.SHAPES.keys() | xl_miniatures.SHAPES.keys())


@dataclass(frozen=True)
class Kind:
    """How one kind of model is drawn with; functions of modules, as processes are given it."""

    load: Callable
    pixels: Callable
    write: Callable
    reference: loras.Reference


SD1 = Kind(calls.load, pictures.pixels, miniatures.write, loras.SD1)
SDXL = Kind(xl_calls.load, xl_pictures.pixels, xl_miniatures.write, xl_loras.SDXL)


def case(model: str, number: int, scheduler: str, steps: int, guidance: float, strength: float | None, mask: bool) -> pictures.Case | xl_pictures.Case:
    """A case whose prompts, size and seed turn with its number."""
    if "x" in model:
        # A negative prompt has no effect on a UNet that is told the guidance scale.
        guide, size = (guidance, None), xl_pictures.SIZES[number % 3]
        return xl_pictures.case(model, number, scheduler, steps, guide, size, 1 + 2 * (number % 5 == 0), None, strength, mask)
    sides = ((128, 128), (256, 128), (128, 256))[number % 3]
    start = None if strength is None else starts.start(*sides, strength, mask, number)
    prompt, _ = pictures.PROMPTS[number % len(pictures.PROMPTS)]
    seed = pictures.SEEDS[number // 2 % len(pictures.SEEDS)]
    return pictures.Case(model, prompt, None, *sides, steps, guidance, scheduler, 1 + 2 * (number % 5 == 0), seed, f"pictures/{model}-{number}.safetensors", start)


def cases(model: str) -> list:
    """LCM and TCD in every combination, the other samplers with trailing steps."""
    rows = [(name, steps, guidance, None, False) for name, steps, guidance in itertools.product(FAST, STEPS, GUIDANCE)]
    rows += [(name, steps, guidance, strength, mask) for name, (steps, strength), guidance, mask in itertools.product(FAST, RUNS, GUIDANCE[1:3], (False, True))]
    rows += [(name, steps, GUIDANCE[number % 4], None, False) for number, (name, steps) in enumerate(itertools.product(SPACED, (1, 4, 8)))]
    return [case(model, number, *row) for number, row in enumerate(rows)]


def line(one: dict) -> str:
    """A case as it is listed."""
    name, trailing, _ = one["scheduler"].partition(TRAILING)
    return json.dumps(one | {"scheduler": name} | ({"sigmas": "sgm_uniform"} if trailing else {}), ensure_ascii=False) + "\n"


def draw(out: Path, kind: Kind, batch: list) -> str:
    """Draws cases of one model."""
    return pictures.draw(out, batch, kind.load, kind.pixels)


def record(out: Path, part: str) -> None:
    """Makes the part's miniature and draws its cases with two processes."""
    model, kind = ("xg", SDXL) if part == "pictures-xfast" else ("g", SD1)
    kind.write(SHAPES[model], out / "miniatures" / model)
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    found = cases(model)
    for one in found:
        if one.start:
            starts.paint(one.start, out)
    with ProcessPoolExecutor(2) as pool:
        for told in pool.map(partial(draw, out, kind), (found[::2], found[1::2])):
            print(told, flush=True)
    (out / f"{part}.jsonl").write_text("".join(line(asdict(one)) for one in found), encoding="utf-8")


# Sampler, steps, guidance, strength, masked.
GOLDEN = (
    ("LCM", 4, 8.0, None, False), ("LCM", 2, 1.0, None, False), ("LCM", 1, 1.5, None, False), ("LCM", 5, 1.5, 0.8, False), ("TCD", 4, 0.0, None, False),
    ("TCD", 3, 2.0, 0.7, False), (f"EULER-D{TRAILING}", 4, 0.0, None, False), (f"DDIM{TRAILING}", 3, 0.0, None, False), (f"DPM-M{TRAILING}", 3, 5.0, None, False),
    ("EULER-A", 1, 0.0, None, False), ("LCM", 4, 1.5, 0.8, True),
)  # fmt: skip


def goldens() -> None:
    """Rewrites the folder."""
    shutil.rmtree(OUT, ignore_errors=True)
    (OUT / "pictures").mkdir(parents=True)
    (OUT / "loras" / "pictures").mkdir(parents=True)
    lines, changed = [], []
    for model, kind in (("tiny-lcm", SD1), ("tiny-xl-turbo", SDXL)):
        folder = OUT / "miniatures" / model
        kind.write(SHAPES[model], folder, merges=254)
        for file in folder.glob("*/*.safetensors"):
            miniatures.rewrite(file, lambda weights: {key: weight.half() for key, weight in weights.items()})
        pipe = kind.load(folder)
        config = pipe.scheduler.config
        small = {"width": 128, "height": 128} if kind is SD1 else {"width": 72, "height": 64}
        for number, row in enumerate(GOLDEN):
            one = replace(case(model, number, *row), file=f"pictures/{model}-{number}.png", num_outputs=1, **small)
            if one.start:
                one = replace(one, start=starts.start(one.width, one.height, row[3], row[4], number))
                starts.paint(one.start, OUT)
            Image.fromarray(kind.pixels(pipe, config, one, OUT)[0]).save(OUT / one.file, optimize=True)
            lines.append(line(asdict(one)))
        keys = loras.kohya if kind is SD1 else xl_loras.kohya
        one = replace(case(model, 1, "LCM", 4, 1.5, None, False), file=f"loras/pictures/{model}.png", **small)
        asked = asdict(one) | {"lora": f"{model}-lcm", "lora_scale": 1.0}
        loras.draw(OUT, {"lcm": replace(FEW, keys=keys)}, [asked], kind.reference)
        changed.append(line(asked))
    (OUT / "pictures.jsonl").write_text("".join(lines), encoding="utf-8")
    (OUT / "loras.jsonl").write_text("".join(changed), encoding="utf-8")


if __name__ == "__main__":
    pictures.part_or_goldens(__doc__, ("pictures-fast", "pictures-xfast"), record, goldens)
