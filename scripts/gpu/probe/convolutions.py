"""The UNet's 3x3 convolutions, channels last in f16, by cuDNN's first guess and by what it measures."""

import time
from collections.abc import Iterator

import torch
from torch.nn.functional import conv2d

from timing import image, microseconds

# Channels in, channels out, side.
SHAPES = ((320, 320, 64), (960, 320, 64), (640, 640, 32), (1920, 640, 32), (1280, 1280, 16), (2560, 1280, 16), (1280, 1280, 8), (4, 320, 64), (320, 4, 64))


def measured() -> Iterator[dict]:
    """Each shape at the rows of one image and of eight."""
    for rows in (2, 16):
        for before, after, side in SHAPES:
            x, weight = image(rows, before, side, side), image(after, before, 3, 3)
            operations = 2 * rows * side * side * before * after * 9
            for how in ("heuristics", "benchmark"):
                torch.backends.cudnn.benchmark = how == "benchmark"
                began = time.perf_counter()
                conv2d(x, weight, padding=1)
                torch.cuda.synchronize()
                first = time.perf_counter() - began
                taken = microseconds(lambda: conv2d(x, weight, padding=1))
                what = f"{before} to {after} channels, {side}x{side}"
                yield {"what": what, "rows": rows, "how": how, "first s": first, "us": taken, "TFLOP/s": operations / taken / 1e6}
    torch.backends.cudnn.benchmark = False
