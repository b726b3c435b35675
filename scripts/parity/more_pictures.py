"""Draws with the samplers that came after the first twelve, with sigmas by a curve, with noise at each step of DDIM, and with models whose
scheduler files say that they predict something else than noise.

    more_pictures.py OUT pictures-more     OUT/miniatures/{m,m-*}/, OUT/pictures-more.jsonl and OUT/pictures/
    more_pictures.py --golden              a small part into tests/golden/torch-more/, by the weights of tests/golden/torch/miniatures/tiny

A case is that of pictures.py, and `sigmas` and `eta`. All models have the same weights.
"""

import itertools
import json
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import diffusers
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

import calls
import miniatures
import pictures
import samplers
import starts
from fast_pictures import SHAPES
from samplers import Configured

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
NOISY = 0.4
# What a name has behind it here, and how it is asked.
CURVES = {"karras": "use_karras_sigmas", "exponential": "use_exponential_sigmas", "beta": "use_beta_sigmas"}


class DpmSde(samplers.DPMSolverSDEScheduler):
    """With plain draws of the job's own generator instead of a Brownian tree."""

    def step(self, model_output, timestep, sample, generator=None, return_dict=True):  # noqa: D102
        draw = partial(randn_tensor, sample.shape, generator=generator, device=sample.device, dtype=sample.dtype)
        self.noise_sampler = lambda *sigmas: draw()
        return super().step(model_output, timestep, sample, return_dict=return_dict)


class NoisyDdim(diffusers.DDIMScheduler):
    """With noise, whatever a pipeline asks."""

    def step(self, *args, eta=0.0, generator=None, **rest):  # noqa: D102
        return super().step(*args, eta=NOISY, generator=generator, **rest)


MORE = samplers.MORE | {"DPM-SDE": DpmSde}
ALL = samplers.SAMPLERS | {"IPNDM": pictures.Ipndm} | MORE
NO_CURVE = ("DDIM", "DDPM", "PNDM", "EULER-A")
CURVED = {f"{name} {curve}": Configured(ALL[name], **{key: True}) for name in ALL if name not in NO_CURVE for curve, key in CURVES.items()}
TRAILING = {f"{name} sgm_uniform": Configured(cls, timestep_spacing="trailing") for name, cls in MORE.items()}
# A pipeline for parts of images that is built with PNDM takes its Runge-Kutta start away.
BUILT = {"PNDM built": Configured(diffusers.PNDMScheduler, skip_prk_steps=True)}
pictures.SAMPLERS.update(MORE | CURVED | TRAILING | BUILT | {"DDIM eta": NoisyDdim})

# Models by name, and what their scheduler files say.
MODELS = {
    "m": {},
    "m-velocity": {"prediction_type": "v_prediction"},
    "m-sample": {"prediction_type": "sample"},
    "m-zero-snr": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    "m-start": {"skip_prk_steps": False},
    "m-lowest": {"final_sigmas_type": "sigma_min", "use_karras_sigmas": True},
}
NO_SAMPLE = ("DPM-SDE", "EULER-A", "KDPM2-A", "KDPM2-D", "PNDM")


def rows(model: str) -> list[tuple[str, int, float | None, bool]]:
    """Sampler, steps, strength and whether there is a mask, of every case of one model."""
    if model == "m":
        found = [(name, steps, None, False) for name, steps in itertools.product((*MORE, "DDIM eta"), (1, 4, 20, 50))]
        found += [(name, 8, None, False) for name in (*CURVED, *TRAILING)]
        return found + [(name, 9, 0.6, mask) for name, mask in itertools.product((*MORE, "DDIM eta", "DPM-M karras", "HEUN karras"), (False, True))]
    if model == "m-start":
        return [("PNDM", steps, None, False) for steps in (4, 7, 20)] + [(name, 9, strength, mask) for strength in (0.5, 1.0) for name, mask in (("PNDM", False), ("PNDM built", True))]
    names = [name for name in ALL if model != "m-sample" or name not in NO_SAMPLE]
    return [(name, steps, None, False) for name in names for steps in (2, 7)] + [(name, 8, 0.6, False) for name in names]


def case(model: str, number: int, row: tuple[str, int, float | None, bool]) -> pictures.Case:
    """A case whose prompts and seed turn with its number."""
    name, steps, strength, mask = row
    prompt, negative = pictures.PROMPTS[number % len(pictures.PROMPTS)]
    start = None if strength is None else starts.start(128, 128, strength, mask, number)
    seed = pictures.SEEDS[number // 2 % len(pictures.SEEDS)]
    return pictures.Case(model, prompt, negative, 128, 128, steps, pictures.GUIDANCE[number % 2], name, 1, seed, f"pictures/{model}-{number}.safetensors", start)


def line(one: dict) -> str:
    """A case as it is listed."""
    name, _, kind = one["scheduler"].partition(" ")
    asked = {"": {}, "built": {}, "eta": {"eta": NOISY}}.get(kind, {"sigmas": kind})
    return json.dumps(one | {"scheduler": name} | asked, ensure_ascii=False) + "\n"


def say(folder: Path, keys: dict) -> None:
    """Has the scheduler file of a model say so."""
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys, indent=2) + "\n")


def record(out: Path) -> None:
    """Makes the miniatures and draws all cases with two processes."""
    plain = replace(SHAPES["g"], seed=65, unet={key: value for key, value in SHAPES["g"].unet.items() if key != "time_cond_proj_dim"})
    miniatures.write(plain, out / "miniatures" / "m")
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    found = {}
    for model, keys in MODELS.items():
        if model != "m":
            shutil.copytree(out / "miniatures" / "m", out / "miniatures" / model, dirs_exist_ok=True)
        say(out / "miniatures" / model, keys)
        found[model] = [case(model, number, row) for number, row in enumerate(rows(model))]
        for one in found[model]:
            if one.start:
                starts.paint(one.start, out)
    with ProcessPoolExecutor(2) as pool:
        for told in pool.map(partial(pictures.draw, out), found.values()):
            print(told, flush=True)
    (out / "pictures-more.jsonl").write_text("".join(line(asdict(one)) for cases in found.values() for one in cases), encoding="utf-8")


# Model, sampler, steps, strength, masked.
FROZEN = (
    ("m", "DPM-M-SDE", 5, None, False), ("m", "DPM-3M-SDE", 6, None, False), ("m", "DPM-SDE", 4, None, False), ("m", "UNIPC", 5, None, False),
    ("m", "DEIS", 5, None, False), ("m", "DPM-M karras", 6, None, False), ("m", "EULER-D beta", 6, 0.7, False), ("m", "DDIM eta", 5, None, False),
    ("m-velocity", "EULER-A", 5, None, False), ("m-sample", "DDIM", 4, None, False), ("m-zero-snr", "EULER-D", 4, None, False),
    ("m-start", "PNDM", 5, None, False), ("m-start", "PNDM built", 5, 0.8, True),
)  # fmt: skip


def goldens() -> None:
    """Rewrites the folder of frozen pictures."""
    out = GOLDEN / "torch-more"
    shutil.rmtree(out, ignore_errors=True)
    (out / "pictures").mkdir(parents=True)
    (out / "schedulers").mkdir()
    tiny = GOLDEN / "torch" / "miniatures" / "tiny"
    pipe = calls.load(tiny)
    config, lines = dict(pipe.scheduler.config), []
    for model in sorted({model for model, *_ in FROZEN}):
        said = json.loads((tiny / "scheduler" / "scheduler_config.json").read_text()) | MODELS[model]
        (out / "schedulers" / f"{model}.json").write_text(json.dumps(said, indent=2) + "\n")
    for number, (model, *row) in enumerate(FROZEN):
        one = replace(case(model, number, tuple(row)), file=f"pictures/{number}.png")
        if one.start:
            starts.paint(one.start, out)
        # What a file leaves open is listed, and each class has its own default for it.
        left_open = [key for key in config["_use_default_values"] if key not in MODELS[model]]
        said = config | MODELS[model] | {"_use_default_values": left_open}
        Image.fromarray(pictures.pixels(pipe, said, one, out)[0]).save(out / one.file, optimize=True)
        lines.append(line(asdict(one)))
    (out / "pictures.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    pictures.part_or_goldens(__doc__, ("pictures-more",), lambda out, _: record(out), goldens)
