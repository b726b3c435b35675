"""The transformers' products in f16: alone, with a residual added after, and with the residual taken into the product."""

from collections.abc import Iterator

from torch.nn.functional import linear

from timing import microseconds, random

# Rows, numbers out, numbers in.
SHAPES = (
    (8192, 960, 320), (8192, 320, 320), (8192, 2560, 320), (8192, 320, 1280), (2048, 5120, 640), (512, 10240, 1280), (512, 1280, 5120),
    (65536, 2560, 320), (4096, 10240, 1280),
)  # fmt: skip


def measured() -> Iterator[dict]:
    """Each shape."""
    for rows, after, before in SHAPES:
        x, weight, bias, residual = random(rows, before), random(after, before) / before**0.5, random(after), random(rows, after)
        alone = microseconds(lambda: linear(x, weight, bias))
        added = microseconds(lambda: linear(x, weight, bias) + residual)
        taken_in = microseconds(lambda: residual.addmm_(x, weight.t(), beta=0.5))
        rate = 2 * rows * after * before / alone / 1e6
        yield {"what": f"{rows}x{after}x{before}", "us": alone, "TFLOP/s": rate, "us with residual": added, "us with residual in it": taken_in}
