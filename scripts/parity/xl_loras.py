"""Makes LoRA files for SDXL miniatures, one a key layout that LoRAs of SDXL come in, and draws with them as diffusers does.

    xl_loras.py OUT            writes OUT/loras/NAME.safetensors, OUT/loras.jsonl (one case a line) and OUT/loras/pictures/

Cases are those of xl_pictures.py with `lora`, the file's name, and `lora_scale`, as loras.py writes them.
"""

from dataclasses import asdict

import torch
from diffusers import StableDiffusionXLPipeline

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


def nothing(_pipe: StableDiffusionXLPipeline) -> dict:
    """This pipeline gives its configuration itself."""
    return {}


SDXL = loras.Reference(load, xl_pictures.Case, xl_pictures.pixels, nothing)


def cases(model: str) -> list[dict]:
    """Jobs with every file; everything turns with the number."""
    samplers, found = list(xl_pictures.SAMPLERS), []
    for number, name in enumerate(name for name in LAYOUTS[model] for _ in range(CASES)):
        guide = xl_pictures.GUIDES[(number + len(found)) % len(xl_pictures.GUIDES)]
        steps = loras.STEPS[number % len(loras.STEPS)]
        row = (samplers[(number * 5 + ord(model[1])) % len(samplers)], steps, guide, xl_pictures.SIZES[number % 3], 1 + 2 * (number % 3 == 2), None)
        case = asdict(xl_pictures.case(model, number, *row))
        case["file"] = f"loras/pictures/{model}-{number}.safetensors"
        found.append(case | {"lora": f"{model}-{name}", "lora_scale": loras.SCALES[(number + ord(model[1])) // 2 % len(loras.SCALES)]})
    return found


if __name__ == "__main__":
    loras.record(loras.folder(__doc__), LAYOUTS, [case for model in LAYOUTS for case in cases(model)], COPIES, SDXL)
