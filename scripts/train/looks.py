"""Shows the UNet where to look.

The text encoder tells a square of the picture at each of a text's last places (`words.py`). A UNet that must find out by itself which
place tells what it is drawing hears of it only through errors that are mostly noise: after 67,000 pictures its attention still was smeared
over dozens of places. So half of the heads on its way up are told: the cross entropy between their attention and the squares that a cell
covers is part of the loss. The other heads look where they like. Nothing of this is left in the model that is exported.
"""

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

PLACES = 77  # of a text's tokens
GRID = 8  # squares a side of the picture
FIRST = PLACES - GRID * GRID  # the place that tells the first


class Look:
    """Attention as it is anyhow, that remembers the scores of half of its heads."""

    def __init__(self) -> None:
        self.scores: Tensor | None = None

    def __call__(self, attention: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """From cells `[n, h * w, channels]` and text states `[n, 77, width]` to cells."""
        parts = attention.to_q(hidden_states), attention.to_k(encoder_hidden_states), attention.to_v(encoder_hidden_states)
        query, key, value = (part.unflatten(2, (attention.heads, -1)).transpose(1, 2) for part in parts)
        scores = query @ key.transpose(2, 3) * attention.scale
        self.scores = scores[:, : attention.heads // 2]
        return attention.to_out[0]((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))


def guided(unet: UNet2DConditionModel) -> list[Attention]:
    """The attention to be told: to the text, on the way up."""
    return [module for name, module in unet.up_blocks.named_modules() if name.endswith("attn2")]


def guide(unet: UNet2DConditionModel) -> None:
    """Has their scores remembered."""
    for attention in guided(unet):
        attention.set_processor(Look())


def astray(unet: UNet2DConditionModel, height: int, width: int) -> Tensor:
    """How far the last pass's attention was from where it should be, for latents of a size: nats, 0 if it was right to the last bit."""
    lost = []
    for attention in guided(unet):
        scores = attention.processor.scores.float()
        aims = squares_under(*level(height, width, scores.shape[2]), height, width).to(scores.device)
        least = torch.special.entr(aims).sum(1).mean()
        lost.append(-(aims * scores.log_softmax(-1)[..., FIRST:]).sum(-1).mean() - least)
    return torch.stack(lost).mean()


def level(height: int, width: int, cells: int) -> tuple[int, int]:
    """Rows and columns of the level that has so many cells: each level has half of those above, rounded up."""
    while height * width > cells:
        height, width = (height + 1) // 2, (width + 1) // 2
    return height, width


def squares_under(rows: int, columns: int, height: int, width: int) -> Tensor:
    """What share of each cell lies over which square: `[rows * columns, 64]`, each row adds up to 1.

    The picture is a square in the middle of what is `height` by `width`; what is beside it belongs to its nearest edge, which is ground.
    """
    side = min(height, width)
    down, across = over(rows, height / side), over(columns, width / side)
    return torch.einsum("rd,ca->rcda", down, across).reshape(rows * columns, GRID * GRID)


def over(cells: int, length: float) -> Tensor:
    """The same in one direction, `[cells, 8]`, of a canvas that is so many pictures long."""
    size = min(GRID * length / cells, GRID)
    begin = (torch.arange(cells) * size - GRID * (length - 1) / 2).clamp(0, GRID - size)[:, None]
    square = torch.arange(GRID)
    shared = torch.minimum(begin + size, square + 1) - torch.maximum(begin, square)
    return shared.clamp(min=0) / size
