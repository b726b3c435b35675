"""Records what diffusers' schedulers do, for `cargo run --example parity` and for the goldens of the samplers.

    samplers.py DIR         everything, into DIR/samplers/
    samplers.py --golden    a small part, into tests/golden/samplers/

A case is one run of one scheduler over made-up model outputs and noises, in float64 where the scheduler lets it (the
Euler classes and multistep DPM-Solver round the sample to float32, and every class works out its factors in float32).
Both sides make the numbers up by the same rule, `made_up`, so that only results are stored. The folder holds
configs.json, and a file a sampler with a case a line. Where the scheduler raises an error, the case says `refused`.

diffusers' own IPNDM is for another model; ours is checked against the class `Ipndm` below. Where a scheduler draws from a Brownian tree, it is
given a plain draw instead.
"""

import argparse
import copy
import hashlib
import json
import math
import pathlib
import sys
import types

import diffusers
import torch

# Nothing is taken of it but a Brownian tree, which is replaced.
sys.modules.setdefault("torchsde", types.ModuleType("torchsde"))
from diffusers.schedulers.scheduling_dpmsolver_sde import DPMSolverSDEScheduler  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
WIDTH = 2  # values in a sample
STEPS = [1, 2, 3, 5, 7, 10, 20, 25, 50, 100, 250, 500]
INIT_NOISE, INIT_IMAGE, OUTPUT, NOISE = range(4)  # streams of made-up numbers

# Stable Diffusion 1.5 as it was published: spacing is left to each class.
SD15 = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
# The Stable Diffusion pipelines set this, whatever the file says.
PIPELINE = {"clip_sample": False}
# What a file may say of a model or a sampler that is not as in Stable Diffusion 1.5.
KINDS = {
    "sample": {"prediction_type": "sample"},
    "velocity": {"prediction_type": "v_prediction"},
    "zero-snr": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    "zero-snr-sample": {"prediction_type": "sample", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    "zero-snr-epsilon": {"rescale_betas_zero_snr": True, "timestep_spacing": "leading"},
    "karras": {"use_karras_sigmas": True},
    "karras-leading": {"use_karras_sigmas": True, "timestep_spacing": "leading"},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True, "prediction_type": "v_prediction"},
    "lowest": {"final_sigmas_type": "sigma_min"},
    "lowest-karras": {"final_sigmas_type": "sigma_min", "use_karras_sigmas": True},
    "lowest-orders": {"final_sigmas_type": "sigma_min", "lower_order_final": False, "solver_type": "bh1"},
    "order-3": {"solver_order": 3},
    "order-1": {"solver_order": 1},
    "euler-at-final": {"final_sigmas_type": "sigma_min", "euler_at_final": True},
    "runge-kutta": {"skip_prk_steps": False},
    "runge-kutta-velocity": {"skip_prk_steps": False, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
}
# Allowed relative difference, where float32 costs the reference more than usual: σ of 4096 is taken away from numbers of its size.
# Of KDPM2-A's first of two steps the reference finds the middle to three digits, and a velocity shows it.
ROUNDED = {"zero-snr": 5e-4, "zero-snr-sample": 5e-4, "order-3": 1e-4, "velocity": 1e-4, "beta": 1e-4}
ROUNDED |= dict.fromkeys(("karras", "karras-leading", "exponential"), 5e-5)
# What latentd refuses and diffusers draws; and what DEIS writes, over which diffusers' own DPM-Solver classes trip.
LEFT_OUT = {("DPM-S", "order-1"), ("DPM-S", "order-3"), ("DPM-S", "DEISMultistepScheduler"), ("DPM-M", "DEISMultistepScheduler")}
# Classes whose configuration files Stable Diffusion models come with.
WRITERS = [
    "DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LMSDiscreteScheduler", "EulerDiscreteScheduler",
    "HeunDiscreteScheduler", "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler",
    "UniPCMultistepScheduler", "DEISMultistepScheduler",
]  # fmt: skip


def configurations():
    """Name to scheduler configuration."""
    betas = {key: SD15[key] for key in ("beta_start", "beta_end", "beta_schedule")}
    configs = {
        "sd15": SD15,
        # As today's diffusers saves it: with PNDM's default, which then holds for all.
        "leading": SD15 | {"timestep_spacing": "leading", "prediction_type": "epsilon"},
        "trailing": SD15 | {"timestep_spacing": "trailing"},
        "linspace": SD15 | {"timestep_spacing": "linspace", "steps_offset": 0, "set_alpha_to_one": True},
        "linear": {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear", "num_train_timesteps": 1234},
        "trained": {"trained_betas": [round(0.0001 + 2e-8 * i * i, 10) for i in range(1000)]},
    }
    configs |= {name: SD15 | kind for name, kind in KINDS.items()}
    for writer in WRITERS:
        saved = getattr(diffusers, writer).from_config(betas).to_json_string()
        configs[writer] = json.loads(saved)
    return configs


def made_up(stream, row):
    """WIDTH numbers of mean 0 and variance 1: SplitMix64 of the place, as a float64 of 53 bits."""
    values = []
    for column in range(WIDTH):
        z = ((stream << 32) + (row << 8) + column + 1) * 0x9E3779B97F4A7C15 % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        values.append((((z ^ (z >> 31)) >> 11) / 2**52 - 1) * 3**0.5)
    return torch.tensor([values], dtype=torch.float64)


class Ipndm(diffusers.EulerDiscreteScheduler):
    """The definition of our IPNDM: Euler's levels, and Adams-Bashforth over the outputs since the run began."""

    WEIGHTS = [[1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]

    def set_timesteps(self, *args, **kwargs):
        super().set_timesteps(*args, **kwargs)
        self.outputs = []

    def step(self, output, timestep, sample):
        if self.step_index is None:
            self._init_step_index(timestep)
        sigma = self.sigmas[self.step_index].double()
        if self.config.prediction_type == "sample":
            output = (sample - output) / sigma
        elif self.config.prediction_type == "v_prediction":
            output = (output + sample * sigma / (sigma**2 + 1) ** 0.5) / (sigma**2 + 1) ** 0.5
        self.outputs = [output, *self.outputs[:3]]
        weights = self.WEIGHTS[len(self.outputs) - 1]
        fall = self.sigmas[self.step_index + 1].double() - self.sigmas[self.step_index].double()
        sample = sample + fall * sum(weight * output for weight, output in zip(weights, self.outputs))
        self._step_index += 1
        return diffusers.schedulers.scheduling_utils.SchedulerOutput(prev_sample=sample)


class Configured:
    """A scheduler class with some keys set, whatever a file says."""

    def __init__(self, cls, **keys):
        self.cls, self.keys = cls, keys

    def from_config(self, config, **more):
        """As that of the class."""
        return self.cls.from_config(config, **self.keys, **more)


SAMPLERS = {
    "DDIM": diffusers.DDIMScheduler,
    "DDPM": diffusers.DDPMScheduler,
    "DPM-M": diffusers.DPMSolverMultistepScheduler,
    "DPM-S": diffusers.DPMSolverSinglestepScheduler,
    "EULER-A": diffusers.EulerAncestralDiscreteScheduler,
    "EULER-D": diffusers.EulerDiscreteScheduler,
    "HEUN": diffusers.HeunDiscreteScheduler,
    "IPNDM": Ipndm,
    "KDPM2-A": diffusers.KDPM2AncestralDiscreteScheduler,
    "KDPM2-D": diffusers.KDPM2DiscreteScheduler,
    "PNDM": diffusers.PNDMScheduler,
    "K-LMS": diffusers.LMSDiscreteScheduler,
}
# Those that came later; whole pictures of theirs are drawn apart.
MORE = {
    "DPM-M-SDE": Configured(diffusers.DPMSolverMultistepScheduler, algorithm_type="sde-dpmsolver++"),
    "DPM-3M-SDE": Configured(diffusers.DPMSolverMultistepScheduler, algorithm_type="sde-dpmsolver++", solver_order=3),
    "DPM-SDE": DPMSolverSDEScheduler,
    "UNIPC": diffusers.UniPCMultistepScheduler,
    "DEIS": diffusers.DEISMultistepScheduler,
}


def build(cls, config):
    return cls.from_config(config | PIPELINE)


def run(scheduler, steps, begin, record=True, **asked):
    """One case. With `record` as inpainting drives a scheduler, else as txt2img does, which sets no begin index. `asked` is
    what a pipeline would hand to each step."""
    scheduler = copy.deepcopy(scheduler)  # which is quicker than to build one
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "lambda_t"):
        # The factors of higher orders are small differences, of which float32 leaves little at hundreds of steps.
        scheduler.sigmas = scheduler.sigmas.double()
    timesteps = scheduler.timesteps[begin * scheduler.order :]
    if record and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin * scheduler.order)

    one, zero = torch.ones(1, WIDTH, dtype=torch.float64), torch.zeros(1, WIDTH, dtype=torch.float64)

    def level(timestep):
        return [scheduler.add_noise(*pair, timestep)[0, 0].item() for pair in ((one, zero), (zero, one))]

    first = level(timesteps[:1])
    noise, image = made_up(INIT_NOISE, 0), made_up(INIT_IMAGE, 0)
    initial_scale = float(scheduler.init_noise_sigma)
    x = noise * initial_scale if begin == 0 else image * first[0] + noise * first[1]
    case = {"initial_scale": initial_scale, "begin_level": first}
    case |= {"timesteps": timesteps.tolist(), "input_scales": [], "keeps": [], "x": []}
    row = 0
    # Where a module draws noise, it draws ours.
    module = sys.modules[type(scheduler).__module__]
    module.randn_tensor = lambda *args, **kwargs: made_up(NOISE, row)
    module.BrownianTreeNoiseSampler = lambda *args, **kwargs: lambda *sigmas: made_up(NOISE, row)
    for row, timestep in enumerate(timesteps):
        case["input_scales"].append(scheduler.scale_model_input(one, timestep)[0, 0].item())
        x = scheduler.step(made_up(OUTPUT, row), timestep, x, **asked).prev_sample
        case["x"].append(x[0].tolist())
        if record:
            case["keeps"].append(level(timesteps[row + 1 : row + 2]) if row + 1 < len(timesteps) else [1.0, 0.0])
    return case


def refused(steps):
    """Whether a scheduler raises an error, or computes no numbers."""
    try:
        return not all(math.isfinite(value) for x in steps()["x"] for value in x)
    except (ValueError, NotImplementedError):
        return True


def planned(golden):
    """Configuration and steps of every case, and whether it is left out where it is as the first configuration."""
    plan = [("sd15", steps, False) for steps in ([1, 2, 3, 7, 20] if golden else STEPS)]
    others = [1, 3, 8] if golden else [1, 2, 3, 5, 8, 20, 50]
    plan += [(config, steps, False) for config in ("leading", "trailing", "linspace") for steps in others]
    plan += [(config, 6, False) for config in ("linear", "trained", *([] if golden else WRITERS))]
    kinds = [1, 5, 16] if golden else [1, 2, 3, 4, 5, 8, 15, 20, 50, 250, 500]
    return plan + [(kind, steps, True) for kind in KINDS for steps in kinds]


def cases(name, cls, configs, golden):
    """The cases of one sampler: (configuration, steps, begin) and what came of them."""
    for config, steps, only_if_other in planned(golden):
        place = {"config": config, "steps": steps}
        if (name, config) in LEFT_OUT:
            continue
        if refused(lambda: run(build(cls, configs[config]), steps, 0)):
            yield place | {"begin": 0, "refused": True}
            continue
        scheduler = build(cls, configs[config])
        if only_if_other and run(scheduler, steps, 0) == run(build(cls, SD15), steps, 0):
            continue
        begins = {0, steps // 2} if golden and config == "sd15" else {0}
        begins |= set() if golden else {min(1, steps - 1), steps // 2}
        begins |= set() if golden or only_if_other else {3 * steps // 4, steps - 1}
        for begin in sorted(begins):
            case = run(scheduler, steps, begin)
            # Of timesteps that are alike a scheduler without a begin index takes the second, and runs over its end.
            if begin == 0 and case["timesteps"][:1] != case["timesteps"][1:2]:
                plain = run(scheduler, steps, begin, record=False)
                assert case["x"] == plain["x"], (name, config, steps)
            yield place | {"begin": begin} | case


def noisy_cases(configs, golden):
    """Those of DDIM with noise."""
    for config in ("sd15", "linspace", "zero-snr"):
        scheduler = build(diffusers.DDIMScheduler, configs[config])
        for steps in [5] if golden else STEPS:
            for begin in {0, steps // 2}:
                for eta in (0.3, 1.0):
                    place = {"config": config, "steps": steps, "begin": begin, "eta": eta}
                    # Without any signal left, rounding may make the reference take the root of a number below 0.
                    if not refused(lambda: run(scheduler, steps, begin, eta=eta)):
                        yield place | run(scheduler, steps, begin, eta=eta)


def shortened(value, digits):
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, list):
        return [shortened(item, digits) for item in value]
    return value


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir", nargs="?", type=pathlib.Path, help="records into DIR/samplers/")
    parser.add_argument("--golden", action="store_true", help="records a small part into tests/golden/samplers/")
    args = parser.parse_args()
    if args.golden == bool(args.dir):
        parser.error("give either DIR or --golden")
    # Without AVX2, torch rounds betas otherwise.
    assert torch.backends.cpu.get_cpu_capability() != "DEFAULT", "needs a processor with AVX2"
    diffusers.utils.logging.set_verbosity_error()

    out = ROOT / "tests/golden/samplers" if args.golden else args.dir / "samplers"
    out.mkdir(parents=True, exist_ok=True)
    configs = configurations()
    lines = []
    for name, config in configs.items():
        alphas = build(diffusers.DDIMScheduler, config | {"rescale_betas_zero_snr": False}).alphas_cumprod
        digest = hashlib.sha256(alphas.numpy().astype("<f4").tobytes()).hexdigest()
        # As text, because Python's JSON has infinities.
        line = {"name": name, "text": json.dumps(config), "alphas_cumprod_sha256": digest}
        lines.append(json.dumps(line | ({"bound": ROUNDED[name]} if name in ROUNDED else {})))
    (out / "configs.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
    for name, cls in (SAMPLERS | MORE).items():
        digits = 9 if args.golden else 17
        lines = [
            json.dumps({key: shortened(value, digits) for key, value in case.items()}, separators=(",", ":"))
            for case in [*cases(name, cls, configs, args.golden), *(noisy_cases(configs, args.golden) if name == "DDIM" else [])]
        ]
        (out / f"{name}.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
        print(f"{name}: {len(lines)} cases")


if __name__ == "__main__":
    main()
