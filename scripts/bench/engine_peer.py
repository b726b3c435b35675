"""Draws with one of latentd's peers and prints what it took, in the words of `latentd bench --json`.

    engine_peer.py PEER MODEL --size 512x512 --steps 20 --rounds 3 --dtype f32 --device cpu --job-file JOBS.json --picture PNG
    engine_peer.py convert MODEL      writes MODEL's UNet for OpenVINO beside the folder: of SDXL it does not fit beside what draws
"""

import argparse
import base64
import io
import json
import resource
import time
from pathlib import Path
from typing import Any

BEGUN = time.time()  # imports are a part of a start

import torch
from diffusers import DiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers import schedulers as samplers

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
SAMPLERS = {
    "DDIM": ("DDIMScheduler", {}), "EULER-D": ("EulerDiscreteScheduler", {}), "DPM-M": ("DPMSolverMultistepScheduler", {}),
    "EULER-A": ("EulerAncestralDiscreteScheduler", {}), "PNDM": ("PNDMScheduler", {"skip_prk_steps": True}), "K-LMS": ("LMSDiscreteScheduler", {}),
}  # fmt: skip
ADDED = ("text_embeds", "time_ids")
WARM = 2  # steps of what is drawn first and does not count


class Clock:
    """When a picture was begun, its prompt read, its steps made, and when it was there. A GPU works behind the program's back, and is waited for before the first step,
    at its end, and at that of the last."""

    def __init__(self, steps: int, device: str) -> None:
        self.steps, self.device, self.ends = steps, device, []
        self.began = self.read = self.drawn = time.monotonic()

    def now(self, wait: bool) -> float:
        if self.device == "cuda" and wait:
            torch.cuda.synchronize()
        return time.monotonic()

    def watch(self, pipe: DiffusionPipeline) -> None:
        """Looks when `pipe` has read a prompt."""

        def encode_prompt(*values: Any, **options: Any) -> Any:
            read = type(pipe).encode_prompt(pipe, *values, **options)
            self.read = self.now(wait=True)
            return read

        pipe.encode_prompt = encode_prompt

    def __call__(self, pipe: DiffusionPipeline, step: int, _: Any, kept: dict) -> dict:
        self.ends.append(self.now(wait=step in (0, self.steps - 1)))
        return kept

    def stages(self) -> dict[str, float]:
        """Seconds. The first of several steps is no evaluation like the others."""
        first, *others = self.ends
        evaluation = (others[-1] - first) / len(others) if others else first - self.read
        return {"text": self.read - self.began, "evaluation": evaluation, "decode": self.drawn - self.ends[-1]}


def draw(pipe: DiffusionPipeline, asked: dict, clock: Clock | None = None) -> tuple[float, float, bytes]:
    """Draws one job to a PNG in base64; seconds of all, and of what comes after the picture; the PNG."""
    began = time.monotonic()
    if clock:
        clock.began = began
        clock.watch(pipe)
    name, options = SAMPLERS[asked["scheduler"]]
    pipe.scheduler = getattr(samplers, name).from_config(pipe.scheduler.config, **options)
    picture = pipe(
        asked["prompt"], width=asked["width"], height=asked["height"], num_inference_steps=asked["num_inference_steps"],
        guidance_scale=asked["guidance_scale"], generator=torch.Generator().manual_seed(asked["seed"]), callback_on_step_end=clock,
    ).images[0]  # fmt: skip
    drawn = time.monotonic()
    if clock:
        clock.drawn = drawn
    file = io.BytesIO()
    picture.save(file, "PNG")
    base64.b64encode(file.getvalue())
    return time.monotonic() - began, time.monotonic() - drawn, file.getvalue()


class OnOpenVino(torch.nn.Module):
    """A network of a pipeline, run by OpenVINO; shapes are compiled as they come."""

    def __init__(self, network: torch.nn.Module, call: Any, dtype: str, converted: Path | None = None) -> None:
        super().__init__()
        self.config, self.dtype, self.device, self.call = network.config, torch.float32, torch.device("cpu"), call
        self.network: torch.nn.Module | None = None if converted else network
        self.add_embedding = getattr(network, "add_embedding", None)  # the pipeline looks at its width
        self.file = converted
        self.settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": dtype, "PERFORMANCE_HINT": "LATENCY"}
        self.compiled: dict[tuple, Any] = {}
        self.converted: Any = None

    def run(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The network's first output."""
        import openvino

        if self.converted is None and self.file:
            self.converted = openvino.Core().read_model(self.file)
        if self.converted is None:
            self.converted = openvino.convert_model(Alone(self.network, self.call), example_input=inputs)
            self.network = None
        shapes = tuple(tuple(value.shape) for value in inputs)
        if shapes not in self.compiled:
            self.converted.reshape({number: list(shape) for number, shape in enumerate(shapes)})
            self.compiled[shapes] = openvino.compile_model(self.converted, "CPU", self.settings)
        return torch.from_numpy(self.compiled[shapes]([value.numpy() for value in inputs])[0])

    def forward(self, sample: torch.Tensor, timestep: Any, encoder_hidden_states: torch.Tensor, added_cond_kwargs: dict | None = None, **_: Any) -> tuple[torch.Tensor]:
        """As the UNet is called; SDXL's is told the pooled text and sizes."""
        added = [(added_cond_kwargs or {})[name] for name in ADDED if name in (added_cond_kwargs or {})]
        return (self.run(sample, torch.as_tensor(timestep, dtype=torch.float32).reshape(1), encoder_hidden_states, *added),)

    def decode(self, latents: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
        """As the autoencoder is called."""
        return (self.run(latents),)


def unet_call(unet: torch.nn.Module, sample: torch.Tensor, time: torch.Tensor, text: torch.Tensor, *added: torch.Tensor) -> torch.Tensor:
    """A call of either family's UNet as a function of tensors."""
    return unet(sample, time, text, added_cond_kwargs=dict(zip(ADDED, added)) or None, return_dict=False)[0]


class Alone(torch.nn.Module):
    """A network as a function of tensors."""

    def __init__(self, network: torch.nn.Module, call: Any) -> None:
        super().__init__()
        self.network, self.call = network, call

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.call(self.network, *inputs)


def on_openvino(pipe: DiffusionPipeline, dtype: str, converted: Path) -> None:
    """UNet and decoder; the text encoder is small."""
    pipe.unet = OnOpenVino(pipe.unet, unet_call, dtype, converted if converted.exists() else None)
    pipe.vae = OnOpenVino(pipe.vae, lambda vae, latents: vae.decode(latents, return_dict=False)[0], dtype)


def converted_unet(model: str) -> Path:
    """Where a UNet is that was converted beforehand: beside the folder that has its weights, to which others may have links."""
    return Path(f"{(Path(model) / 'unet').resolve().parent}-openvino") / "unet.xml"


def value(text: str) -> tuple[str, Any]:
    """KEY=VALUE; the value is JSON if it reads as JSON, else text."""
    key, equals, said = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text} is no KEY=VALUE")
    try:
        return key, json.loads(said)
    except ValueError:
        return key, said


def convert(model: str) -> None:
    """Writes a UNet as OpenVINO reads it, for any size."""
    import openvino

    unet = UNet2DConditionModel.from_pretrained(f"{model}/unet", torch_dtype=torch.float32, local_files_only=True).eval()
    side, rows = 16, 2
    inputs = [torch.zeros(rows, unet.config.in_channels, side, side), torch.ones(1), torch.zeros(rows, 77, unet.config.cross_attention_dim)]
    if unet.config.addition_embed_type == "text_time":
        ids = 6
        pooled = unet.config.projection_class_embeddings_input_dim - ids * unet.config.addition_time_embed_dim
        inputs += [torch.zeros(rows, pooled), torch.zeros(rows, ids)]
    network = openvino.convert_model(Alone(unet, unet_call), example_input=tuple(inputs))
    openvino.save_model(network, converted_unet(model), compress_to_fp16=True)


def load(peer: str, options: argparse.Namespace) -> DiffusionPipeline:
    """The pipeline as the peer has it."""
    dtype = torch.float32 if peer == "openvino" else DTYPES[options.dtype]
    with open(f"{options.model}/model_index.json") as file:
        is_sdxl = json.load(file)["_class_name"] == StableDiffusionXLPipeline.__name__
    unused = {"add_watermarker": False} if is_sdxl else {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if peer == "openvino" and converted_unet(options.model).exists():
        with torch.device("meta"):
            unused["unet"] = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(f"{options.model}/unet"))
    pipe = DiffusionPipeline.from_pretrained(options.model, torch_dtype=dtype, local_files_only=True, **unused)
    if options.device != "cpu":
        pipe.to(options.device)
    pipe.set_progress_bar_config(disable=True)
    if peer == "openvino":
        on_openvino(pipe, options.dtype, converted_unet(options.model))
        return pipe
    for network in (pipe.unet, pipe.vae):
        network.to(memory_format=torch.channels_last)
    if peer == "compiled":
        torch._inductor.config.freezing = options.device == "cpu"
        mode = {"mode": options.mode} if options.device == "cuda" else {}
        pipe.unet = torch.compile(pipe.unet, **mode)
        pipe.vae.decode = torch.compile(pipe.vae.decode, **mode)
    return pipe


def main() -> None:
    """One image at a time, then jobs of all kinds one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=("eager", "compiled", "openvino", "convert"))
    parser.add_argument("model")
    parser.add_argument("--size", default="512x512")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--set", dest="fields", metavar="KEY=VALUE", type=value, action="append", default=[], help="guidance_scale or scheduler of one image")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--mode", default="max-autotune", help="of torch.compile on a GPU")
    parser.add_argument("--job-file")
    parser.add_argument("--picture", help="where to write the last one")
    options = parser.parse_args()
    with torch.no_grad():
        if options.peer == "convert":
            convert(options.model)
        else:
            print(json.dumps(measure(options)))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    began = time.monotonic()
    pipe = load(options.peer, options)
    start = {"load": time.monotonic() - began, "ready": time.time() - BEGUN}
    width, height = (int(side) for side in options.size.split("x"))
    asked = {"prompt": "a red apple", "width": width, "height": height, "scheduler": "DDIM", "guidance_scale": 7.5, "seed": 7, **dict(options.fields)}
    began = time.monotonic()
    draw(pipe, {**asked, "num_inference_steps": WARM})
    warm = time.monotonic() - began
    drawn = []
    for _ in range(options.rounds):
        clock = Clock(options.steps, options.device)
        total, encoding, png = draw(pipe, {**asked, "num_inference_steps": options.steps}, clock)
        drawn.append({"total": total, "png": encoding, **clock.stages()})
    figures = {"start": start, "warm": warm, **{stage: [one[stage] for one in drawn] for stage in drawn[0]}}
    if options.picture:
        with open(options.picture, "wb") as file:
            file.write(png)
    if options.job_file:
        with open(options.job_file) as file:
            jobs = json.load(file)
        began = time.monotonic()
        for job in jobs:
            draw(pipe, job)
        figures["images_a_minute"] = 60 * len(jobs) / (time.monotonic() - began)
    figures["resident"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    if options.device == "cuda":
        figures["device"] = torch.cuda.max_memory_reserved()
    return figures


if __name__ == "__main__":
    main()
