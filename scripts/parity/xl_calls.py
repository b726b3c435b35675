"""Writes what diffusers' parts of SDXL miniatures answer, in f32 on the CPU, as calls.py does for SD v1.

    xl_calls.py OUT            writes OUT/miniatures/NAME/calls.safetensors beside every miniature's model_index.json

Each file holds inputs and outputs. `text.N.ids.0`, `text.N.ids.1` (a list of tokens for each encoder) -> `text.N.states` (`hidden_states[-2]`
of both, side by side) and `text.N.pooled` (`text_embeds` of the second). `unet.sample`, `unet.timestep`, `unet.context`, `unet.pooled`,
`unet.ids` (sizes) -> `unet.out`. The autoencoder's are those of calls.py.
"""

from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline

import calls

# A `!` is a token of its own kind to the second tokenizer.
PROMPTS = ("a red apple on the table, fresh coffee in the morning", "", "wow! a cat!!b, 4k !", "one thing after another and " * 20)
TIMESTEPS = (981.0, 501.25, 0.0, 999.0)
# Heights and widths of originals, corners of crops, sizes wanted.
SIZES = ((1024.0, 1024.0, 0.0, 0.0, 1024.0, 1024.0), (72.0, 104.0, 0.0, 0.0, 72.0, 104.0), (2048.0, 64.0, 13.0, 7.0, 512.0, 640.0), (64.0, 2048.0, 0.0, 0.0, 64.0, 2048.0))


def load(folder: Path) -> StableDiffusionXLPipeline:
    """The pipeline of a folder in f32, whichever layout it has."""
    half = any((folder / "unet").glob("*.fp16.safetensors"))
    pipe = StableDiffusionXLPipeline.from_pretrained(str(folder), dtype=torch.float32, variant="fp16" if half else None, local_files_only=True, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def texts(pipe: StableDiffusionXLPipeline) -> dict[str, torch.Tensor]:
    """Every prompt through both encoders."""
    found = {}
    for number, prompt in enumerate(PROMPTS):
        answers = []
        for which, (tokenizer, encoder) in enumerate(((pipe.tokenizer, pipe.text_encoder), (pipe.tokenizer_2, pipe.text_encoder_2))):
            ids = tokenizer([prompt], padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
            found[f"text.{number}.ids.{which}"] = ids
            answers.append(encoder(ids, output_hidden_states=True))
        found[f"text.{number}.states"] = torch.cat([answer.hidden_states[-2] for answer in answers], -1)
        found[f"text.{number}.pooled"] = answers[1].text_embeds
    return found


def record(pipe: StableDiffusionXLPipeline, file: Path, size: tuple[int, int] = (9, 13), vae_size: tuple[int, int] = (10, 14)) -> None:
    """Writes calls of each part, inputs and outputs; sizes are heights and widths of latents."""
    generator = torch.Generator().manual_seed(7)
    found = texts(pipe)
    rows = range(len(TIMESTEPS))
    sample = torch.randn(len(rows), pipe.unet.config.in_channels, *size, generator=generator)
    context, pooled = (torch.cat([found[f"text.{row}.{kind}"] for row in rows]) for kind in ("states", "pooled"))
    # A row as none for a prompt has it.
    context[1], pooled[1] = 0, 0
    timestep, ids = torch.tensor(TIMESTEPS), torch.tensor(SIZES)
    found |= {
        "unet.sample": sample,
        "unet.timestep": timestep,
        "unet.context": context,
        "unet.pooled": pooled,
        "unet.ids": ids,
        "unet.out": pipe.unet(sample, timestep, context, added_cond_kwargs={"text_embeds": pooled, "time_ids": ids}).sample,
    }
    calls.save(found | calls.autoencoder(pipe, vae_size, generator), file)


if __name__ == "__main__":
    calls.main(__doc__, lambda folder, file: record(load(folder), file))
