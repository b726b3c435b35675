"""Which of all pictures a drawing is most like, and what colour its ground has."""

import torch
from torch import Tensor
from torch.nn import functional as F

from pictures import COLOURS, WHITE, compose

SMALL = 32  # pixels; pictures are compared this small
SCALES = (0.9, 1.0, 1.1)
SHIFTS = (-1, 0, 1)  # small pixels, across and down
CORNER = 24  # pixels of a drawing of 512
NEAR = 40  # of 255, by which each of red, green and blue of a ground may be off


def small(picture: Tensor) -> Tensor:
    """`[3, h, w]` in [-1, 1] as `[3, SMALL, SMALL]`, each pixel the mean of what it covers."""
    return F.interpolate(picture[None], (SMALL, SMALL), mode="area")[0]


def references(pictures: Tensor) -> Tensor:
    """Pictures `[n, 4, 256, 256]` on white, small and flat: `[n, 3 * SMALL * SMALL]`."""
    return torch.stack([small(compose(picture, COLOURS[WHITE], 256, 256)).flatten() for picture in pictures])


def ranking(drawing: Tensor, references: Tensor) -> Tensor:
    """Numbers of the references, the most like a drawing `[3, h, w]` in [-1, 1] first.

    By the least mean square difference of small RGB, over shifts and scales of the drawing; what comes in at an edge is white.
    """
    views = []
    for scale in SCALES:
        for down in SHIFTS:
            for across in SHIFTS:
                step = 2 / SMALL
                view = torch.tensor([[1 / scale, 0, across * step], [0, 1 / scale, down * step]])
                grid = F.affine_grid(view[None], (1, 3, SMALL, SMALL), align_corners=False)
                # Distance to white is what is sampled, so that padding with zeros is padding with white.
                views.append(1 + F.grid_sample(small(drawing)[None] - 1, grid, padding_mode="zeros", align_corners=False).flatten())
    return torch.cdist(torch.stack(views), references).amin(0).argsort()


def ground(drawing: Tensor) -> Tensor:
    """Red, green and blue, 0 to 255, of each of the four corners of a drawing `[3, h, w]` in [-1, 1]: `[4, 3]`."""
    corners = [drawing[:, rows, columns] for rows in (slice(CORNER), slice(-CORNER, None)) for columns in (slice(CORNER), slice(-CORNER, None))]
    return (torch.stack(corners).mean((2, 3)) + 1) * 127.5


def ground_is(drawing: Tensor, colour: str) -> bool:
    """Whether all corners of a drawing have a named colour, within `NEAR`."""
    return bool((ground(drawing) - torch.tensor(COLOURS[colour])).abs().amax() <= NEAR)
