"""Records what diffusers' schedulers do with Stable Diffusion XL's scheduler files, as samplers.py does for Stable Diffusion 1.x.

    xl_samplers.py DIR         into DIR/samplers/

The SDXL pipelines correct nothing: the model's own class reads the file, and every other class is made from that one's configuration.
"""

import argparse
import hashlib
import json
import pathlib

import diffusers

import samplers

# As published: base and Turbo.
BASE = {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.19.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "use_karras_sigmas": False,
}
TURBO = {key: value for key, value in BASE.items() if key not in ("interpolation_type", "use_karras_sigmas")}
TURBO |= {"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}
# A file that leaves to each class where the timesteps lie. Without an offset there is none: that is where SD v1's pipelines step in.
SPARSE = {key: value for key, value in BASE.items() if key not in ("steps_offset", "timestep_spacing", "set_alpha_to_one")}
CONFIGS = {"base": BASE, "turbo": TURBO, "sparse": SPARSE}


def own(config: dict) -> diffusers.SchedulerMixin:
    """The scheduler that a pipeline would have from this file."""
    return getattr(diffusers, config["_class_name"]).from_config(config)


def cases(cls: type) -> list[dict]:
    """The runs of one sampler, from the first step and from later ones."""
    found = []
    for name, config in CONFIGS.items():
        scheduler = cls.from_config(own(config).config)
        for steps in samplers.STEPS:
            for begin in sorted({0, steps // 2, 3 * steps // 4}):
                found.append({"config": name, "steps": steps, "begin": begin} | samplers.run(scheduler, steps, begin))
    return found


def main() -> None:
    """Records every sampler."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=pathlib.Path)
    out = parser.parse_args().dir / "samplers"
    out.mkdir(parents=True, exist_ok=True)
    diffusers.utils.logging.set_verbosity_error()
    lines = []
    for name, config in CONFIGS.items():
        digest = hashlib.sha256(own(config).alphas_cumprod.numpy().astype("<f4").tobytes()).hexdigest()
        lines.append({"name": name, "text": json.dumps(config), "alphas_cumprod_sha256": digest})
    (out / "configs.json").write_text(json.dumps(lines, indent=1) + "\n")
    for name, cls in (samplers.SAMPLERS | samplers.MORE).items():
        found = cases(cls)
        (out / f"{name}.json").write_text("[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in found) + "\n]\n")
        print(f"{name}: {len(found)} cases")


if __name__ == "__main__":
    main()
