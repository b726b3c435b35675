"""Our kernels beside libtorch's operators at the sizes of SD 1.5: how far off they are, whether a row gets the same bits in any company, and how long they
take beside the least that memory allows."""

from collections.abc import Iterator

import torch
from torch.nn.functional import gelu, group_norm, layer_norm, silu

import library
from timing import deviation, image, microseconds, random

# Channels, height, width.
SHAPES = ((320, 64, 64), (960, 64, 64), (640, 32, 32), (1920, 32, 32), (1280, 16, 16), (2560, 16, 16), (1280, 8, 8), (2560, 8, 8))
DECODER = ((128, 512, 512), (512, 128, 128))
GATES = ((2 * 4096, 1280), (2 * 1024, 2560), (2 * 256, 5120), (16 * 4096, 1280))
WORDS = ((2 * 4096, 320), (2 * 1024, 640), (2 * 256, 1280), (16 * 4096, 320))
GROUPS = 32
DTYPES = {"f16": (torch.half, 2e-3), "bf16": (torch.bfloat16, 1.2e-2), "f32": (torch.float, 2e-6)}


def measured() -> Iterator[dict]:
    """Right first, then fast."""
    for name, (dtype, most) in DTYPES.items():
        for rows in (1, 2, 16):
            yield {"what": "like group_norm and silu", "dtype": name, "rows": rows, "most": most, **likeness(rows, dtype)}
    for rows in (2, 16):
        for shape in SHAPES + (DECODER if rows == 2 else ()):
            yield {"what": "group norm", "rows": rows, "shape": shape, **norm_times(rows, *shape)}
    for rows, width in WORDS:
        x, more, weight = random(rows, width), random(rows, width), random(width)
        ours = microseconds(lambda: library.add_layer_norm(x, more, weight, weight))
        theirs = microseconds(lambda: layer_norm(x + more, (width,), weight, weight))
        yield {"what": "add and layer norm", "rows": rows, "width": width, "us": ours, "libtorch us": theirs, "bytes": 4 * x.numel() * x.element_size()}
    for rows, width in GATES:
        x = random(rows, 2 * width)
        theirs = microseconds(lambda: x[:, :width] * gelu(x[:, width:]))
        yield {"what": "GEGLU", "rows": rows, "width": width, "us": microseconds(lambda: library.geglu(x)), "libtorch us": theirs, "bytes": 3 * rows * width * x.element_size()}


def likeness(rows: int, dtype: torch.dtype) -> dict:
    """The worst deviation over all shapes, and whether the last row is the same alone."""
    worst, same = 0.0, True
    for channels, height, width in SHAPES:
        x = image(rows, channels, height, width, dtype=dtype) * 2 + 1
        weight, bias, lead = (random(channels, dtype=dtype) for _ in range(3))
        shift = random(rows, channels + 24, dtype=dtype)[:, 3 : 3 + channels]
        shifted = x.double() + lead.double()[:, None, None] + shift.double()[:, :, None, None]
        expected = silu(group_norm(shifted, GROUPS, weight.double(), bias.double(), 1e-5))
        ours = library.group_norm(x, weight, bias, GROUPS, lead, shift)
        alone = library.group_norm(x[-1:], weight, bias, GROUPS, lead, shift[-1:])
        worst, same = max(worst, deviation(ours, expected)), same and torch.equal(alone, ours[-1:])
    return {"deviation": worst, "same alone": same}


def norm_times(rows: int, channels: int, height: int, width: int) -> dict:
    """Ours, libtorch's from and to channels last, and the bytes that must move."""
    x, weight = image(rows, channels, height, width), random(channels)
    ours = microseconds(lambda: library.group_norm(x, weight, weight, GROUPS))
    theirs = microseconds(lambda: silu(group_norm(x, GROUPS, weight, weight, 1e-5)).contiguous(memory_format=torch.channels_last))
    other = image(rows, channels, height, width)
    residual = microseconds(lambda: library.add_residual(x, other, weight))
    return {"us": ours, "libtorch us": theirs, "bytes": 2 * x.numel() * x.element_size(), "residual us": residual}
