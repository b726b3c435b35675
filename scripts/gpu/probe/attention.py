"""Which of libtorch's attentions is fastest for each shape, and how long each takes the first time, when it may have to be planned."""

import time
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from timing import deviation, microseconds, random

# Batch, heads, queries, keys, width of a head.
SHAPES = {
    "self 64x64": (2, 8, 4096, 4096, 40), "cross 64x64": (2, 8, 4096, 77, 40), "self 32x32": (2, 8, 1024, 1024, 80),
    "cross 32x32": (2, 8, 1024, 77, 80), "self 16x16": (2, 8, 256, 256, 160), "cross 16x16": (2, 8, 256, 77, 160),
    "self 8x8": (2, 8, 64, 64, 160), "self 64x64, 16 rows": (16, 8, 4096, 4096, 40), "self 32x32, 16 rows": (16, 8, 1024, 1024, 80),
    "SDXL self 64x64": (2, 10, 4096, 4096, 64), "SDXL self 32x32": (2, 20, 1024, 1024, 64), "decoder": (1, 1, 4096, 4096, 512),
}  # fmt: skip
BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION}
MOST_SCORES = 1 << 28  # beyond which there is no memory for the reference


def measured() -> Iterator[dict]:
    """Every shape by every backend; those that refuse say why."""
    for name, (batch, heads, queries, keys, width) in SHAPES.items():
        q, k, v = projected(batch, heads, queries, keys, width)
        small = batch * heads * queries * keys <= MOST_SCORES
        expected = scaled_dot_product_attention(q.float(), k.float(), v.float()) if small else None
        for backend, choice in BACKENDS.items():
            found = {"what": name, "backend": backend}
            try:
                with sdpa_kernel(choice):
                    yield {**found, **attended(q, k, v, expected)}
            except RuntimeError as cause:
                yield {**found, "refused": str(cause).splitlines()[0][:120]}


def projected(batch: int, heads: int, queries: int, keys: int, width: int) -> list[Tensor]:
    """Queries, keys and values as the UNet has them: parts of a product, seen by heads."""
    if queries == keys:
        parts = random(batch, queries, 3 * heads * width).chunk(3, 2)
    else:
        parts = (random(batch, queries, heads * width), *random(batch, keys, 2 * heads * width).chunk(2, 2))
    return [part.reshape(batch, -1, heads, width).transpose(1, 2) for part in parts]


def attended(q: Tensor, k: Tensor, v: Tensor, expected: Tensor | None) -> dict:
    """By the backend that is chosen."""
    began = time.perf_counter()
    attention = scaled_dot_product_attention(q, k, v)
    torch.cuda.synchronize()
    found = {"first s": time.perf_counter() - began, "us": microseconds(lambda: scaled_dot_product_attention(q, k, v))}
    return found if expected is None else {**found, "deviation": deviation(attention, expected)}
