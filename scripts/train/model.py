"""The networks to be trained, in the shapes that diffusers and latentd load, and the schedule of their noise."""

from pathlib import Path

import torch
from diffusers import LMSDiscreteScheduler, PNDMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from config import Config
from looks import PLACES, astray, guide

STEPS = 1000  # of noise


class Painter(nn.Module):
    """The UNet, and a text encoder that has learned all it will."""

    def __init__(self, config: Config, text: CLIPTextModel) -> None:
        super().__init__()
        self.text = text.eval().requires_grad_(False)
        self.unet = unet(config)
        guide(self.unet)

    def forward(self, noisy: Tensor, steps: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The noise in `noisy` `[n, 4, h, w]`, of `steps` `[n]`, given tokens `[n, 77]`; and how far attention is `astray`."""
        with torch.no_grad():
            states = self.text(input_ids=ids).last_hidden_state
        return self.unet(noisy, steps, states).sample, astray(self.unet, *noisy.shape[2:])


def text_encoder(config: Config, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """CLIP's text encoder, small and untrained."""
    shape = config.text
    settings = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=shape.width, intermediate_size=4 * shape.width, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, hidden_act="quick_gelu", bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, attn_implementation="sdpa",
    )  # fmt: skip
    model = CLIPTextModel(settings)
    listen(model, tokenizer)
    return model


@torch.no_grad()
def listen(model: CLIPTextModel, tokenizer: CLIPTokenizer) -> None:
    """Makes attention of the untrained first layer pass over the tokens that every text has.

    Most of the 77 places are padding, and they all look back on each other: untrained, the words are a twentieth of what a place sees,
    and texts hardly differ for the UNet. One direction of the embedding tells padding, start and end from words, and the keys shy
    away from it; the rest is learned.
    """
    width = model.config.hidden_size
    embeddings = model.get_input_embeddings().weight
    embeddings.mul_(10)  # words first, places second
    common = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    mark = nn.functional.normalize(torch.randn(width), dim=0)
    mark -= mark.mean()
    embeddings[common] = mark * embeddings.std() * width**0.5
    attention = next(module for module in model.modules() if type(module).__name__ == "CLIPAttention")
    query = nn.functional.normalize(torch.randn(width), dim=0)
    head = width // model.config.num_attention_heads
    # After the layer's norm a marked embedding is about sqrt(width) long, so that its score falls by 6 in each head.
    attention.q_proj.bias.copy_(query * width**0.5)
    attention.k_proj.weight -= torch.outer(query, mark) * 6 / head**0.5


def unet(config: Config) -> UNet2DConditionModel:
    """The denoiser, untrained."""
    shape = config.unet
    down = ["CrossAttnDownBlock2D" if heads else "DownBlock2D" for heads in shape.heads]
    return UNet2DConditionModel(
        sample_size=32, block_out_channels=tuple(shape.channels), layers_per_block=shape.layers, norm_num_groups=shape.norm_groups,
        down_block_types=tuple(down), up_block_types=tuple(kind.replace("Down", "Up") for kind in reversed(down)),
        # diffusers calls the number of heads so.
        attention_head_dim=tuple(heads or 1 for heads in shape.heads), cross_attention_dim=config.text.width, use_linear_projection=True,
    )  # fmt: skip


def schedule(config: Config) -> dict:
    """The scheduler's settings: SD 1.5's but for the betas."""
    return {
        "beta_start": config.noise.beta_start, "beta_end": config.noise.beta_end, "beta_schedule": "scaled_linear",
        "num_train_timesteps": STEPS,
    }  # fmt: skip


def sampler(config: Config) -> LMSDiscreteScheduler:
    """K-LMS, which samples are drawn with."""
    return LMSDiscreteScheduler(**schedule(config))


def default_scheduler(config: Config) -> PNDMScheduler:
    """What the model's folder names."""
    scheduler = PNDMScheduler(**schedule(config), skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
    # For DDIM and DDPM, which else clip latents as if they were pixels.
    scheduler.register_to_config(clip_sample=False)
    return scheduler


def kept(config: Config, device: torch.device) -> Tensor:
    """The share of the variance that is signal at each of the `STEPS`, f32."""
    noise = config.noise
    betas = torch.linspace(noise.beta_start**0.5, noise.beta_end**0.5, STEPS, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float().to(device)


def tokens(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Token numbers `[n, 77]`."""
    return tokenizer(texts, padding="max_length", truncation=True, max_length=PLACES, return_tensors="pt").input_ids


def read_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer, from the folder of the model in whose place this one is."""
    return CLIPTokenizer.from_pretrained(folder)
