"""The worker that latentd is compared with: what people write around runpod's SDK and diffusers, no better and no worse.

Reads MODEL (a folder) and CONCURRENCY from the environment. Each result says how long its picture took.
"""

import base64
import io
import os
import time

import runpod
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

PIPE = StableDiffusionPipeline.from_pretrained(
    os.environ["MODEL"], torch_dtype=torch.float32, safety_checker=None, feature_extractor=None, requires_safety_checker=False, local_files_only=True
)
PIPE.scheduler = DDIMScheduler.from_config(PIPE.scheduler.config)
PIPE.set_progress_bar_config(disable=True)


def handler(job: dict) -> dict:
    """Draws what the job's input asks for."""
    began = time.monotonic()
    asked = job["input"]
    generator = torch.Generator().manual_seed(asked["seed"])
    picture = PIPE(
        asked["prompt"], width=asked["width"], height=asked["height"], num_inference_steps=asked["num_inference_steps"], generator=generator
    ).images[0]
    file = io.BytesIO()
    picture.save(file, "PNG")
    image = base64.b64encode(file.getvalue()).decode()
    return {"images": [{"image": image, "seed": asked["seed"]}], "seconds": time.monotonic() - began}


if __name__ == "__main__":
    concurrency = int(os.environ["CONCURRENCY"])
    runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda _: concurrency})
