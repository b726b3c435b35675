"""Makes LoRA files for the miniatures, one a key layout that SD v1 LoRAs come in, and draws with them as diffusers does.

    loras.py OUT               writes OUT/loras/NAME.safetensors, OUT/loras.jsonl (one case a line) and OUT/loras/pictures/

A case is one of pictures.py's with `lora`, the file's name, and `lora_scale`.
"""

import argparse
import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig
from PIL import Image
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from torch import Tensor, nn

import ldm
import pictures
from calls import load

# Which modules of the UNet a file touches.
ATTENTION = r"\.attn[12]\.to_(q|k|v|out\.0)$"
LINEAR = rf"{ATTENTION}|\.ff\.net\.(0\.proj|2)$|\.proj_(in|out)$"
RESNETS = rf"{LINEAR}|\.conv[12]$|\.conv_shortcut$|\.time_emb_proj$|\.downsamplers\.0\.conv$"
EVERYTHING = "."
# ... and of the text encoder.
TEXT = r"\.(q|k|v|out)_proj$|\.mlp\.fc[12]$"
TEXT_ATTENTION = r"_proj$"
TEXT_OLD = {"q_proj": "to_q_lora", "k_proj": "to_k_lora", "v_proj": "to_v_lora", "out_proj": "to_out_lora"}

# Those of SDXL are among them.
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")

COPIES = {"a.safetensors": "a", "b.safetensors": "b", "e-half": "e"}
SCALES = (1.0, 0.35, 0.7)
STEPS = (2, 7, 20)


@dataclass(frozen=True, eq=False)
class Module:
    """One linear map or convolution of a pipeline."""

    part: str
    name: str
    weight: Tensor


@dataclass(frozen=True)
class Layout:
    """One way to write a LoRA file."""

    unet: str
    text: str
    # (module, blocks of the UNet's original names) -> stem, end of down, end of up
    keys: Callable[[Module, list], tuple[str, str, str]]
    alpha: float | None = None  # over the rank, as a tensor
    noted: float | None = None  # the same, in the header
    ranks: tuple[int, ...] = (4,)
    kind: torch.dtype = torch.float32


def kohya(module: Module, _blocks: list) -> tuple[str, str, str]:
    """sd-scripts, and LyCORIS for what is no attention."""
    prefix = "lora_unet_" if module.part == "unet" else "lora_te_text_model_"
    return prefix + module.name.replace(".", "_"), "lora_down.weight", "lora_up.weight"


def original(module: Module, blocks: list) -> tuple[str, str, str]:
    """The same with the block names of single-file checkpoints."""
    if module.part != "unet":
        return kohya(module, blocks)
    name = ldm.unet_key(f"{module.name}.weight", blocks).removesuffix(".weight")
    return "lora_unet_" + name.replace(".", "_"), "lora_down.weight", "lora_up.weight"


def nested(module: Module) -> str:
    """diffusers' name, with the prefix that the text encoder had when most files were made."""
    return f"unet.{module.name}" if module.part == "unet" else f"text_encoder.text_model.{module.name}"


def peft(module: Module, _blocks: list) -> tuple[str, str, str]:
    """diffusers today."""
    return nested(module), "lora_A.weight", "lora_B.weight"


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
    "a": {"kohya": Layout(LINEAR, TEXT, kohya, alpha=0.5), "processors": Layout(ATTENTION, TEXT_ATTENTION, processors)},
    "b": {"original": Layout(RESNETS, TEXT, original, alpha=1.0), "unet-only": Layout(RESNETS, "^$", kohya)},
    "c": {"before-peft": Layout(LINEAR, TEXT, before_peft), "locon": Layout(EVERYTHING, TEXT, kohya, alpha=0.25)},
    "d": {"peft": Layout(EVERYTHING, TEXT, peft, ranks=(2, 4, 8)), "noted": Layout(LINEAR, TEXT, peft, noted=2.0)},
    "e": {"half": Layout(LINEAR, TEXT, kohya, alpha=0.5, kind=torch.float16), "text-only": Layout("^$", TEXT, peft, kind=torch.bfloat16)},
}
# What is frozen with the goldens: few modules, for small files (the reference takes a text encoder only with some attention).
GOLDEN = {
    "tiny": {"kohya": Layout(r"mid_block\.(attentions.*to_[qv]|resnets\.0\.conv1)$", r"_proj$", kohya, alpha=0.5, ranks=(2,), kind=torch.float16)},
    "tiny-kl": {"peft": Layout(r"mid_block\.attentions.*(to_k|to_out\.0|proj_in|ff\.net\.2)$", r"(v_proj|fc1)$", peft, ranks=(2,), kind=torch.float16)},
}


def parts(pipe: DiffusionPipeline) -> list[str]:
    """What a LoRA may touch, in order."""
    return ["unet", *(part for part in TEXT_ENCODERS if getattr(pipe, part, None) is not None)]


def modules(pipe: DiffusionPipeline, layout: Layout) -> Iterator[Module]:
    """What a file of this layout touches, in order."""
    for part in parts(pipe):
        pattern = layout.unet if part == "unet" else layout.text
        for name, module in getattr(pipe, part).named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d) and re.search(pattern, name):
                yield Module(part, name, module.weight)


def write(pipe: DiffusionPipeline, layout: Layout, file: Path, seed: int) -> dict[Module, Tensor]:
    """Writes a LoRA whose change of a weight is about a fifth of that weight; gives the changes."""
    generator = torch.Generator().manual_seed(seed)
    blocks, ranks = list(ldm.unet_blocks(pipe.unet.config)), itertools.cycle(layout.ranks)
    tensors, changes, touched = {}, {}, list(modules(pipe, layout))
    for module, rank in zip(touched, ranks, strict=False):
        outputs, *inputs = module.weight.shape
        stem, down, up = layout.keys(module, blocks)
        size = 0.2 * float(module.weight.std()) / (layout.alpha or layout.noted or 1.0)
        matrices = {down: torch.randn(rank, *inputs, generator=generator).to(layout.kind)}
        matrices[up] = (torch.randn(outputs, rank, *(1 for _ in inputs[1:]), generator=generator) * size / rank**0.5).to(layout.kind)
        tensors |= {f"{stem}.{end}": matrix for end, matrix in matrices.items()}
        if layout.alpha:
            tensors[f"{stem}.alpha"] = torch.tensor(layout.alpha * rank, dtype=layout.kind)
        # What the header notes of queries, see below.
        strength = 1.0 if layout.noted and is_query(module.name) else layout.alpha or layout.noted or 1.0
        product = matrices[up].float().flatten(1) @ matrices[down].float().flatten(1)
        changes[module] = strength * product.reshape(module.weight.shape)
    noted = {} if layout.noted is None else {"lora_adapter_metadata": json.dumps(notes(touched, layout))}
    save_file(tensors, file, metadata={"format": "pt"} | noted)
    return changes


def same(pipe: DiffusionPipeline, changes: dict[Module, Tensor], file: Path) -> None:
    """Fails unless the reference changes the very weights that the file was made for, by as much."""
    layers = {(part, name): module for part in parts(pipe) for name, module in getattr(pipe, part).named_modules() if "it" in getattr(module, "lora_A", {})}
    wanted = {(module.part, module.name): change for module, change in changes.items()}
    if layers.keys() != wanted.keys():
        raise SystemExit(f"{file.name}: the reference differs in {sorted(layers.keys() ^ wanted.keys())[:8]}")
    for place, change in wanted.items():
        apart = float((layers[place].get_delta_weight("it") - change).abs().max() / change.abs().max())
        if apart > 1e-5:
            raise SystemExit(f"{file.name}: the reference changes {place} by something else, {apart:.1e} apart")


def is_query(name: str) -> bool:
    """Whether the header of a file that notes strengths has another one for this module."""
    return name.endswith(("to_q", "q_proj"))


def notes(touched: list[Module], layout: Layout) -> dict:
    """What diffusers writes of PEFT's configuration: one alpha for most, another for queries."""
    found = {}
    for part in ("unet", *TEXT_ENCODERS):
        names = [module.name for module in touched if module.part == part]
        if not names:
            continue
        queries = {name: layout.ranks[0] for name in names if is_query(name)}
        config = LoraConfig(r=layout.ranks[0], lora_alpha=layout.noted * layout.ranks[0], target_modules=names, alpha_pattern=queries).to_dict()
        found |= {f"{part}.{key}": sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    return found


@dataclass(frozen=True)
class Reference:
    """How one kind of model is drawn with; functions of modules, as processes are given it."""

    load: Callable[[Path], DiffusionPipeline]
    case: type
    pixels: Callable[..., np.ndarray]
    # What `load_lora_weights` must be told besides.
    options: Callable[[DiffusionPipeline], dict]


def unet_config(pipe: DiffusionPipeline) -> dict:
    """Without it SD v1's pipeline does not read the block names of single-file checkpoints."""
    return {"unet_config": pipe.unet.config}


SD1 = Reference(load, pictures.Case, pictures.pixels, unet_config)


def cases(model: str, names: Iterable[str], each: int, ending: str) -> list[dict]:
    """`each` jobs with every file; everything turns with the number."""
    found = []
    for number, name in enumerate(name for name in names for _ in range(each)):
        prompt, negative = pictures.PROMPTS[number % len(pictures.PROMPTS)]
        scheduler = list(pictures.SAMPLERS)[(number * 5 + len(model)) % len(pictures.SAMPLERS)]
        outputs = 1 if ending == "png" else 1 + 2 * (number % 3 == 2)
        case = pictures.Case(
            model, prompt, negative, 128, 128, STEPS[number % (1 if ending == "png" else 3)], 1.0 if number % 4 == 3 else 7.5,
            scheduler, outputs, pictures.SEEDS[number % len(pictures.SEEDS)], f"loras/pictures/{model}-{number}.{ending}",
        )  # fmt: skip
        found.append(asdict(case) | {"lora": f"{model}-{name}", "lora_scale": SCALES[(number + len(model)) // 2 % len(SCALES)]})
    return found


def draw(out: Path, layouts: dict[str, Layout], found: list[dict], reference: Reference) -> None:
    """Makes a miniature's files and draws the cases with them."""
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    model = found[0]["model"]
    pipe = reference.load(out / "miniatures" / model)
    config, moved = pipe.scheduler.config, []
    for seed, (name, layout) in enumerate(layouts.items()):
        file = out / "loras" / f"{model}-{name}.safetensors"
        changes = write(pipe, layout, file, seed)
        mine = [case for case in found if case["lora"] == file.stem]
        asked = [reference.case(**{key: value for key, value in case.items() if not key.startswith("lora")}) for case in mine]
        plain = reference.pixels(pipe, config, asked[0], out)
        pipe.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name="it", **reference.options(pipe))
        same(pipe, changes, file)
        for case, one in zip(mine, asked, strict=True):
            pipe.set_adapters(["it"], [case["lora_scale"]])
            image = reference.pixels(pipe, config, one, out)
            if one is asked[0]:
                moved.append(float(np.abs(image.astype(int) - plain).mean()))
            keep(image, out / case["file"])
        pipe.unload_lora_weights()
    print(f"{model}: {len(found)} cases; a LoRA moves values by {min(moved):.0f} to {max(moved):.0f} of 255", flush=True)


def keep(image: np.ndarray, file: Path) -> None:
    """Writes pictures, u8 [outputs, height, width, 3]; a PNG has the first alone."""
    if file.suffix == ".png":
        Image.fromarray(image[0]).save(file, optimize=True)
    else:
        save_arrays({"image": image}, file)


def record(out: Path, plan: dict[str, dict[str, Layout]], found: list[dict], copies: dict[str, str], reference: Reference = SD1) -> None:
    """Makes the files of `plan`, a miniature's layouts by name, and draws what was found with two processes."""
    shutil.rmtree(out / "loras", ignore_errors=True)
    (out / "loras" / "pictures").mkdir(parents=True)
    with ProcessPoolExecutor(2) as pool:
        for _ in pool.map(draw, *zip(*((out, layouts, [case for case in found if case["model"] == model], reference) for model, layouts in plan.items()), strict=True)):
            pass
    # Single files are the same models, whose modules the original names are counted from.
    lines = found + [case | {"model": copy} for copy, original in copies.items() for case in found if case["model"] == original and case["steps"] == STEPS[0]]
    (out / "loras.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def folder(about: str | None) -> Path:
    """What the command line names."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    return parser.parse_args().out


if __name__ == "__main__":
    asked = [case for model, layouts in LAYOUTS.items() for case in cases(model, layouts, 6, "safetensors")]
    record(folder(__doc__), LAYOUTS, asked, COPIES)
