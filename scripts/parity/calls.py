"""Writes what diffusers' text encoder, UNet and autoencoder answer, in f32 on the CPU.

    calls.py OUT               writes OUT/miniatures/NAME/calls.safetensors beside every miniature's model_index.json

Each file holds inputs and outputs: `text.ids` -> `text.out` (last hidden state after the final norm); `unet.sample`, `unet.timestep`,
`unet.context` -> `unet.out`; `vae.latents` (already divided by the scaling factor) -> `vae.out` (before clamping); `vae.image` ->
`vae.encoded` (mean of the posterior, or AutoencoderTiny's latents; not scaled). Of an AutoencoderKL also `vae.tiled_out` and `vae.tiled_encoded`, the
same in tiles of 8 latents a side.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, DiffusionPipeline, StableDiffusionPipeline
from safetensors.torch import save_file

PROMPTS = ["a red apple on the table, fresh coffee in the morning", ""]
# Rows may differ in timestep, and samplers ask for fractions.
TIMESTEPS = [981.0, 501.25, 0.0]
# Latent sides (height, width): not square, and where not named otherwise whole through every halving.
SIZES = {"d": (14, 18)}
TILE = 8  # latents a side


def load(folder: Path) -> StableDiffusionPipeline:
    """The pipeline of a folder in f32, whichever layout it has."""
    half = not (folder / "unet" / "diffusion_pytorch_model.safetensors").exists()
    pipe = StableDiffusionPipeline.from_pretrained(str(folder), dtype=torch.float32, variant="fp16" if half else None, safety_checker=None, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def record(pipe: StableDiffusionPipeline, file: Path, size: tuple[int, int], vae_size: tuple[int, int] = (10, 14)) -> None:
    """Writes one call of each part, inputs and outputs; sizes are heights and widths of latents."""
    generator = torch.Generator().manual_seed(7)
    ids = pipe.tokenizer(PROMPTS, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    text = pipe.text_encoder(ids).last_hidden_state
    sample = torch.randn(3, pipe.unet.config.in_channels, *size, generator=generator)
    timestep = torch.tensor(TIMESTEPS)
    context = torch.cat([text, text.flip(1)[:1]])
    found = {
        "text.ids": ids,
        "text.out": text,
        "unet.sample": sample,
        "unet.timestep": timestep,
        "unet.context": context,
        "unet.out": pipe.unet(sample, timestep, context).sample,
    }
    save(found | autoencoder(pipe, vae_size, generator), file)


def autoencoder(pipe: DiffusionPipeline, size: tuple[int, int], generator: torch.Generator) -> dict[str, torch.Tensor]:
    """A decoding and an encoding, as a whole and in tiles."""
    latents = torch.randn(2, 4, *size, generator=generator) / pipe.vae.config.scaling_factor
    image = torch.rand(1, 3, *(side * pipe.vae_scale_factor for side in reversed(size)), generator=generator) * 2 - 1
    encoded = pipe.vae.encode(image)
    found = {
        "vae.latents": latents,
        "vae.out": pipe.vae.decode(latents).sample,
        "vae.image": image,
        "vae.encoded": encoded.latents if isinstance(pipe.vae, AutoencoderTiny) else encoded.latent_dist.mean,
    }
    if not isinstance(pipe.vae, AutoencoderTiny):
        pipe.vae.enable_tiling()
        pipe.vae.tile_latent_min_size, pipe.vae.tile_sample_min_size = TILE, TILE * pipe.vae_scale_factor
        found |= {"vae.tiled_out": pipe.vae.decode(latents).sample, "vae.tiled_encoded": pipe.vae.encode(image).latent_dist.mean}
        pipe.vae.disable_tiling()
    return found


def save(found: dict[str, torch.Tensor], file: Path) -> None:
    """Writes what was found, and prints how far it spreads."""
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, file)
    print(f"{file.parent.name}: unet {float(found['unet.out'].std()):.3f}, vae {float(found['vae.out'].std()):.3f}")


def main(about: str | None, write: Callable[[Path, Path], None]) -> None:
    """Writes the calls of every miniature: `write` is given a folder and a file."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    torch.set_grad_enabled(False)
    for folder in sorted(path.parent for path in out.glob("miniatures/*/model_index.json")):
        write(folder, folder / "calls.safetensors")


if __name__ == "__main__":
    main(__doc__, lambda folder, file: record(load(folder), file, SIZES.get(folder.name, (16, 24))))
