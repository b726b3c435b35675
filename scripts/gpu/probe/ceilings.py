"""The rates that everything else is held against."""

from collections.abc import Iterator

import torch

from timing import microseconds, random

SIDE = 8192


def measured() -> Iterator[dict]:
    """Memory, matrix products, and the least that a kernel in a graph takes."""
    source = torch.randint(0, 255, (1 << 30,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    # Bytes read and bytes written.
    copy = microseconds(lambda: target.copy_(source), 5, as_graph=False)
    yield {"what": "copy", "terabytes a second": 2 * source.numel() / copy / 1e6}
    del source, target
    left, right = random(SIDE, SIDE), random(SIDE, SIDE)
    product = microseconds(lambda: left @ right, 5, as_graph=False)
    yield {"what": "product", "side": SIDE, "TFLOP/s": 2 * SIDE**3 / product / 1e6}
    small = random(64)
    yield {"what": "smallest kernel in a graph", "us": microseconds(lambda: small.add_(1))}
