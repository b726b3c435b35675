"""Makes LoRA files for SDXL miniatures, one a key layout that LoRAs of SDXL come in, and draws with them as diffusers does.

    xl_loras.py OUT            writes OUT/loras/NAME.safetensors, OUT/loras.jsonl (one case a line) and OUT/loras/pictures/

Cases are those of xl_pictures.py with `lora`, the file's name, and `lora_scale`, as loras.py writes them.
"""

import argparse
import itertools
import json
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

import loras
import xl_pictures
from loras import ATTENTION, EVERYTHING, LINEAR, RESNETS, TEXT, TEXT_ATTENTION, TEXT_OLD, Layout, Module
from xl_calls import load
from xl_single_file import unet_key

FLAT = {"unet": "lora_unet_", "text_encoder": "lora_te1_text_model_", "text_encoder_2": "lora_te2_text_model_"}
PROJECTION = "text_projection"
# Of the second text encoder its projection, too.
TEXT_ALL = rf"{TEXT}|^{PROJECTION}$"
COPIES = {"xa.safetensors": "xa", "xc-half": "xc"}
STEPS = (2, 7, 20)
CASES = 6


def place(module: Module) -> str:
    """A module's name without the prefix that one of the text encoders has in this release."""
    return module.name.removeprefix("text_model.")


def kohya(module: Module, _blocks: list) -> tuple[str, str, str]:
    """sd-scripts, and LyCORIS for what is no attention."""
    prefix = "lora_te2_" if module.name == PROJECTION else FLAT[module.part]
    return prefix + place(module).replace(".", "_"), "lora_down.weight", "lora_up.weight"


def original(module: Module, blocks: list) -> tuple[str, str, str]:
    """The same with the block names of single-file checkpoints: how most files are."""
    if module.part != "unet":
        return kohya(module, blocks)
    name = unet_key(f"{module.name}.weight", blocks).removesuffix(".weight")
    return FLAT["unet"] + name.replace(".", "_"), "lora_down.weight", "lora_up.weight"


def nested(module: Module) -> str:
    """diffusers' name, with the prefix that text encoders had when most files were made."""
    inner = "" if module.part == "unet" or module.name == PROJECTION else "text_model."
    return f"{module.part}.{inner}{place(module)}"


def peft(module: Module, _blocks: list) -> tuple[str, str, str]:
    """diffusers today."""
    return nested(module), "lora_A.weight", "lora_B.weight"


def bare(module: Module, _blocks: list) -> tuple[str, str, str]:
    """diffusers today with transformers 5: no prefix inside of the first text encoder."""
    return f"{module.part}.{module.name}", "lora_A.weight", "lora_B.weight"


def before_peft(module: Module, _blocks: list) -> tuple[str, str, str]:
    """diffusers from 0.17 on."""
    layer = "lora" if module.part == "unet" else "lora_linear_layer"
    return nested(module), f"{layer}.down.weight", f"{layer}.up.weight"


def processors(module: Module, _blocks: list) -> tuple[str, str, str]:
    """diffusers in the beginning: attention only."""
    attention, _, projection = nested(module).replace(".to_out.0", ".to_out").rpartition(".")
    if module.part == "unet":
        return f"{attention}.processor.{projection}_lora", "down.weight", "up.weight"
    return f"{attention}.{TEXT_OLD[projection]}", "down.weight", "up.weight"


# By miniature.
LAYOUTS = {
    "xa": {"original": Layout(RESNETS, TEXT, original, alpha=0.5), "everything": Layout(EVERYTHING, TEXT, original, alpha=0.25), "processors": Layout(ATTENTION, TEXT_ATTENTION, processors)},
    "xb": {"kohya": Layout(LINEAR, TEXT, kohya, alpha=0.5), "projection": Layout(LINEAR, TEXT_ALL, kohya, alpha=1.0)},
    "xc": {"peft": Layout(EVERYTHING, TEXT, peft, ranks=(2, 4, 8)), "noted": Layout(LINEAR, TEXT, peft, noted=2.0), "half": Layout(LINEAR, TEXT, original, alpha=0.5, kind=torch.float16)},
    "xd": {"before-peft": Layout(LINEAR, TEXT, before_peft), "bare": Layout(LINEAR, TEXT, bare), "unet-only": Layout(RESNETS, "^$", original)},
}  # fmt: skip


def cases(model: str, names: list[str]) -> list[dict]:
    """Jobs with every file; everything turns with the number."""
    samplers, found = list(xl_pictures.SAMPLERS), []
    for number, name in enumerate(name for name in names for _ in range(CASES)):
        guide = xl_pictures.GUIDES[(number + len(found)) % len(xl_pictures.GUIDES)]
        steps = STEPS[number % len(STEPS)]
        row = (samplers[(number * 5 + ord(model[1])) % len(samplers)], steps, guide, xl_pictures.SIZES[number % 3], 1 + 2 * (number % 3 == 2), None)
        case = asdict(xl_pictures.case(model, number, *row))
        case["file"] = f"loras/pictures/{model}-{number}.safetensors"
        found.append(case | {"lora": f"{model}-{name}", "lora_scale": loras.SCALES[(number + ord(model[1])) // 2 % len(loras.SCALES)]})
    return found


def draw(out: Path, model: str) -> list[dict]:
    """Makes a miniature's files and draws with them; gives the cases."""
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    pipe = load(out / "miniatures" / model)
    config = pipe.scheduler.config
    found, moved = cases(model, list(LAYOUTS[model])), []
    for seed, (name, layout) in enumerate(LAYOUTS[model].items()):
        file = out / "loras" / f"{model}-{name}.safetensors"
        changes = loras.write(pipe, layout, file, seed)
        mine = [case for case in found if case["lora"] == file.stem]
        asked = [xl_pictures.Case(**{key: value for key, value in case.items() if not key.startswith("lora")}) for case in mine]
        plain = xl_pictures.pixels(pipe, config, asked[0], out)
        pipe.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name="it")
        loras.same(pipe, changes, file)
        for case, one in zip(mine, asked, strict=True):
            pipe.set_adapters(["it"], [case["lora_scale"]])
            image = xl_pictures.pixels(pipe, config, one, out)
            if one is asked[0]:
                moved.append(float(np.abs(image.astype(int) - plain).mean()))
            save_file({"image": image}, out / case["file"])
        pipe.unload_lora_weights()
    print(f"{model}: {len(found)} cases; a LoRA moves values by {min(moved):.0f} to {max(moved):.0f} of 255", flush=True)
    return found


def main() -> None:
    """Draws everything with two processes, and lists it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    shutil.rmtree(out / "loras", ignore_errors=True)
    (out / "loras" / "pictures").mkdir(parents=True)
    with ProcessPoolExecutor(2) as pool:
        lines = [case for found in pool.map(draw, itertools.repeat(out), LAYOUTS) for case in found]
    # Single files are the same models, whose modules the original names are counted from.
    lines += [case | {"model": copy} for copy, name in COPIES.items() for case in lines if case["model"] == name and case["steps"] == STEPS[0]]
    (out / "loras.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
