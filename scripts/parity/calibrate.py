"""Gives random weights manners: a UNet that denoises, a decoder that neither saturates nor goes flat.

Only output layers are touched. The UNet's last convolution is the ridge regression of the noise that was added onto the
features that the random network happens to have; the result is a real, if weak, denoiser, so that samplers contract
errors instead of amplifying them. The decoder's last convolution is shifted and scaled until pixels spread over the range.
"""

from collections.abc import Callable

import torch
from diffusers import AutoencoderTiny, AutoPipelineForInpainting, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F

import starts

WORDS = (
    "a red apple on the table|blue sky over green hills|the old city at night|black and white photo of a cat|"
    "gold dress|sunny beach with palm trees|a painting of the moon|fresh coffee in the morning|winter snow|pink roses|"
    "fire and smoke|deep ocean water|a small dog in the grass|orange sunset|dark forest path|"
).split("|")

# Standard deviations of weights, times the square root of their fan-in, for names that contain these. Attention is made to pick its
# tokens; what a block adds to its input is kept small, and what a prompt adds smaller, or guidance would make the sampling chaotic.
GAINS = {"to_q": 2.0, "to_k": 2.0, "q_proj": 2.0, "k_proj": 2.0, "attn2.to_out": 0.5, "to_out": 0.4, "ff.net.2": 0.4, "conv2": 0.4, "conv_in": 3.0}

# Draws (clean latents, text embeddings) for one batch.
Draw = Callable[[torch.Generator], tuple[Tensor, Tensor]]


def scatter(module: nn.Module, seed: int) -> None:
    """Redraws every weight so that each one matters: biases and norms too, and attention that picks its tokens."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in sorted(module.state_dict().items()):
        if not weight.is_floating_point():
            continue
        noise = torch.randn(weight.shape, generator=generator)
        if "norm" in name:
            value = noise * 0.1 + (1.0 if name.endswith("weight") else 0.0)
        elif weight.dim() == 1:
            value = noise * 0.1
        elif "embedding" in name and "time" not in name:
            value = noise * 0.02
        else:
            gain = next((gain for part, gain in GAINS.items() if part in name), 1.0)
            value = noise * gain / weight[0].numel() ** 0.5
        weight.copy_(value)


def smooth_fields(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Four-channel latents of unit variance with soft blobs of several sizes, as pictures have."""
    total = torch.zeros(count, 4, height, width)
    for cells in (2, 4, 8):
        coarse = torch.randn(count, 4, cells, cells, generator=generator)
        total += F.interpolate(coarse, (height, width), mode="bicubic") / cells**0.5
    return total / total.std()


def prompt_fields(pipe: StableDiffusionPipeline, side: int, batch: int, pull: float, seed: int) -> Draw:
    """Smooth fields around a mean that depends on the prompt; one in eight prompts is empty."""
    prompts = ["", *WORDS]
    texts = torch.cat([pipe.encode_prompt(prompt, "cpu", 1, False)[0] for prompt in prompts])
    pooled = texts.mean(1)
    pooled = (pooled - pooled.mean(0)) / pooled.std(0).mean()
    projection = torch.randn(pooled.shape[1], 4, generator=torch.Generator().manual_seed(seed)) / pooled.shape[1] ** 0.5
    means = pull * (pooled @ projection)[:, :, None, None]

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        picks = torch.randint(0, len(prompts), (batch,), generator=generator)
        picks[torch.rand(batch, generator=generator) < 1 / 8] = 0
        return means[picks] + 0.7 * smooth_fields(batch, side, side, generator), texts[picks]

    return draw


class Inpainting:
    """An inpainting UNet as `fit_denoiser` calls it: what is beside the latents is a part of what is said."""

    def __init__(self, unet: Callable):
        self.unet, self.conv_out = unet, unet.conv_out

    def __call__(self, sample: Tensor, steps: Tensor, said: tuple) -> None:
        beside, rest = said
        self.unet(torch.cat([sample, beside], 1), steps, rest)


def masked(draw: Draw) -> Draw:
    """The same draws for an inpainting UNet: with a mask, and what it leaves of the clean latents."""

    def drawn(generator: torch.Generator) -> tuple[Tensor, tuple]:
        clean, said = draw(generator)
        mask = (smooth_fields(len(clean), *clean.shape[2:], generator)[:, :1] > 0).float()
        return clean, (torch.cat([mask, (1 - mask) * clean], 1), said)

    return drawn


def inpaints(unet: UNet2DConditionModel) -> bool:
    """Whether it takes a mask and a masked image beside the latents."""
    return unet.config.in_channels == 9


def patches(features: Tensor) -> Tensor:
    """Rows of what a 3x3 convolution with padding sees at each place, and a one for the bias."""
    rows = F.unfold(features, 3, padding=1).transpose(1, 2).flatten(0, 1)
    return torch.cat([rows, torch.ones(len(rows), 1)], 1).double()


def fit_denoiser(unet: UNet2DConditionModel, draw: Draw, batches: int, ridge: float, seed: int) -> float:
    """Fits `unet.conv_out` to predict the added noise; gives the share of its variance that is explained."""
    alphas = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod
    generator = torch.Generator().manual_seed(seed)
    seen: list[Tensor] = []
    hook = unet.conv_out.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    gram, moment, energy, rows = 0.0, 0.0, 0.0, 0
    for _ in range(batches):
        clean, texts = draw(generator)
        # More often where there is most noise left to take away: an error there is carried to the end.
        steps = (len(alphas) * torch.rand(len(clean), generator=generator) ** 0.25).long()
        signal = alphas[steps].sqrt()[:, None, None, None]
        noise = torch.randn(clean.shape, generator=generator)
        unet(signal * clean + (1 - signal**2).sqrt() * noise, steps, texts)
        design, target = patches(seen.pop()), noise.permute(0, 2, 3, 1).reshape(-1, 4).double()
        gram, moment = gram + design.T @ design, moment + design.T @ target
        energy, rows = energy + target.square().sum(), rows + len(design)
    hook.remove()
    damping = ridge * rows * torch.eye(len(gram), dtype=torch.float64)
    weights = torch.linalg.solve(gram + damping, moment)
    unet.conv_out.bias.copy_(weights[-1])
    unet.conv_out.weight.copy_(weights[:-1].T.reshape(unet.conv_out.weight.shape))
    missed = energy - 2 * (weights * moment).sum() + (weights * (gram @ weights)).sum()
    return float(1 - missed / energy)


def sample(pipe: StableDiffusionPipeline, side: int) -> Tensor:
    """Unscaled latents that the pipeline ends with at 20 steps and guidance 7.5, over a few prompts."""
    generators = [torch.Generator().manual_seed(seed) for seed in range(8)]
    start = {}
    if inpaints(pipe.unet):
        pipe = AutoPipelineForInpainting.from_pipe(pipe)
        pipe.set_progress_bar_config(disable=True)
        start = {"image": starts.picture(side, side, 0), "mask_image": starts.mask(side, side, 1).convert("L"), "strength": 1.0}
    return pipe(list(WORDS[:8]), height=side, width=side, num_inference_steps=20, generator=generators, output_type="latent", **start).images


def spread_pixels(pipe: StableDiffusionPipeline, side: int, deviation: float = 0.4) -> None:
    """Shifts and scales the decoder's last convolution: each colour to mean 0 and `deviation` in [-1, 1]."""
    latents = sample(pipe, side) / pipe.vae.config.scaling_factor
    pixels = pipe.vae.decode(latents).sample
    tiny = isinstance(pipe.vae, AutoencoderTiny)
    last = pipe.vae.decoder.layers[-1] if tiny else pipe.vae.decoder.conv_out
    scale = deviation / pixels.std((0, 2, 3))
    # AutoencoderTiny's last step is x * 2 - 1: its convolution works in [0, 1].
    middle = (pixels.mean((0, 2, 3)) + 1) / 2 if tiny else pixels.mean((0, 2, 3))
    last.weight.mul_(scale[:, None, None, None])
    last.bias.copy_((last.bias - middle) * scale + (0.5 if tiny else 0.0))
