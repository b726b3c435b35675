#!/usr/bin/env python3
"""Predicts what an evaluation of the UNet takes on an H100, operation by operation, from operations and bytes that are counted and rates that are assumed.

    estimate.py                 the table of docs/performance.md
    estimate.py --operations    every kind of operation of every case

A model, not a measurement: it is written down before a measurement, so that the measurement can prove it wrong.
"""

import math
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

# Of an H100 in f16, as assumed. Seconds, bytes and operations.
MULTIPROCESSORS = 132
PRODUCTS = 800e12  # operations a second of the largest matrix product
MEMORY = 3.0e12  # bytes a second, read and written
CACHE = 4.5e12  # of what fits the second-level cache
FITS_CACHE = 40e6
GAP = 1.0e-6  # between two kernels of a graph
LAUNCH = 1.6e-6  # of a kernel that only moves memory
EXPONENTIALS = MULTIPROCESSORS * 16 * 1.7e9
NUMBER = 2  # bytes

# Tiles of matrix products, and which share of the rate each reaches when it is full.
TILES = {(128, 256): 1.0, (128, 128): 0.85, (64, 128): 0.6, (64, 64): 0.4}
PARTS = {
    "convolutions": ("conv", "bias of"), "attention": ("attention",), "products": ("linear",), "norms": ("GroupNorm", "LayerNorm"), "passes": ("",),
}  # fmt: skip
STEPS = 50
BESIDES = 0.015  # seconds of a picture besides its evaluations: text, decoder, PNG


@dataclass(frozen=True)
class Unet:
    """Sizes of a UNet."""

    name: str
    side: int  # of its latents
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    depth: tuple[int, ...] = (1, 1, 1, 0)  # transformers a block
    middle: int = 1
    head: int = 0  # width of one, or 0 for eight heads
    linear: bool = False  # whether products lead into a transformer, or convolutions


SD15 = Unet("SD 1.5, 512x512", 64)
SDXL = Unet("SDXL, 1024x1024", 128, (320, 640, 1280), (0, 2, 10), 10, 64, True)
CASES = [(SD15, rows) for rows in (2, 4, 8, 16)] + [(SDXL, 2), (SDXL, 8)]


@dataclass
class Operation:
    """Those of one kind."""

    launches: int = 0
    seconds: float = 0.0
    work: float = 0.0
    bytes: float = 0.0


@dataclass
class Estimate:
    """An evaluation of so many rows."""

    unet: Unet
    rows: int
    operations: dict[str, Operation] = field(default_factory=lambda: defaultdict(Operation))

    @property
    def seconds(self) -> float:
        return sum(one.seconds for one in self.operations.values())

    @property
    def kernels(self) -> int:
        return sum(one.launches for one in self.operations.values())

    def parts(self) -> dict[str, float]:
        """Seconds of each part."""
        found = dict.fromkeys(PARTS, 0.0)
        for name, one in self.operations.items():
            found[next(part for part, starts in PARTS.items() if name.startswith(starts))] += one.seconds
        return found

    def add(self, what: str, seconds: float, work: float = 0, moved: float = 0, launches: int = 1) -> None:
        one = self.operations[what]
        one.launches += launches
        one.seconds += seconds + launches * GAP
        one.work += work
        one.bytes += moved

    def moving(self, what: str, moved: float) -> None:
        """A pass over memory."""
        self.add(what, moved / (MEMORY if moved > FITS_CACHE else CACHE) + LAUNCH, moved=moved)

    def product(self, what: str, m: int, n: int, k: int, moved: float, share: float) -> None:
        """A matrix product, or a convolution as one."""
        seconds = max(product_time(m, n, k, share), moved / MEMORY + 1.5e-6)
        self.add(what, seconds, 2 * m * n * k, moved)

    def convolution(self, what: str, before: int, after: int, side: int, kernel: int = 3, stride: int = 1, bias: bool = False) -> None:
        m = self.rows * side * side
        moved = (m * stride * stride * before + m * after + after * before * kernel * kernel) * NUMBER
        self.product(what, m, after, before * kernel * kernel, moved, 0.72)
        if bias:
            self.moving("bias of a convolution", 2 * m * after * NUMBER)

    def linear(self, what: str, m: int, n: int, k: int) -> None:
        self.product(what, m, n, k, (m * k + n * k + m * n) * NUMBER, 0.80)

    def group_norm(self, channels: int, side: int) -> None:
        self.moving("GroupNorm", 2 * self.rows * channels * side * side * NUMBER)

    def attention(self, what: str, queries: int, keys: int, channels: int, width: int) -> None:
        heads = channels // width
        padded = next(size for size in (32, 64, 96, 128, 192, 256) if size >= width)
        full = min(1.0, self.rows * heads * math.ceil(queries / 128) / MULTIPROCESSORS)
        scores = self.rows * heads * queries * keys
        moved = self.rows * 2 * (queries + keys) * channels * NUMBER
        rate = 330e12 if padded == width else 300e12
        seconds = max(4 * scores * padded / rate / max(full, 0.05), 1.3 * scores / EXPONENTIALS / max(full, 0.05), moved / MEMORY) + 3e-6
        # Of few queries the keys are split, and the parts summed by another kernel.
        split = full < 0.8 and (keys > 128 or width > 128)
        self.add(what, seconds, 4 * scores * width, moved, 2 if split else 1)

    def residual(self, before: int, after: int, side: int) -> None:
        self.group_norm(before, side)
        self.convolution("conv3x3", before, after, side)
        self.group_norm(after, side)
        self.convolution("conv3x3", after, after, side)
        if before != after:
            self.convolution("conv1x1 shortcut", before, after, side, 1)
        self.moving("residual", 3 * self.rows * after * side * side * NUMBER)

    def transformer(self, channels: int, side: int, depth: int) -> None:
        places = side * side
        m, width = self.rows * places, self.unet.head or channels // 8
        numbers = m * channels * NUMBER
        self.group_norm(channels, side)
        self.lead(channels, side, bias=True)
        self.moving("LayerNorm", 2 * numbers)
        for number in range(depth):
            self.linear("linear queries, keys, values", m, 3 * channels, channels)
            self.attention("attention self", places, places, channels, width)
            self.linear("linear out", m, channels, channels)
            self.moving("LayerNorm with residual", 4 * numbers)
            self.linear("linear queries", m, channels, channels)
            self.attention("attention cross", places, 77, channels, width)
            self.linear("linear out", m, channels, channels)
            self.moving("LayerNorm with residual", 4 * numbers)
            self.linear("linear gate", m, 8 * channels, channels)
            self.moving("GEGLU", 12 * numbers)
            self.linear("linear feed-forward", m, channels, 4 * channels)
            self.moving("LayerNorm with residual" if number < depth - 1 else "residual", (4 if number < depth - 1 else 3) * numbers)
        self.lead(channels, side)
        self.moving("residual", 3 * numbers)

    def lead(self, channels: int, side: int, bias: bool = False) -> None:
        if self.unet.linear:
            self.linear("linear in and out", self.rows * side * side, channels, channels)
        else:
            self.convolution("conv1x1 in and out", channels, channels, side, 1, bias=bias)


def product_time(m: int, n: int, k: int, share: float) -> float:
    """Seconds of the best tile and split of k."""
    best = math.inf
    for (tall, wide), reached in TILES.items():
        tiles = math.ceil(m / tall) * math.ceil(n / wide)
        for split in (1, 2, 4, 8):
            if split > 1 and k / split < 256:
                continue
            waves = math.ceil(tiles * split / MULTIPROCESSORS)
            of_a_wave = 2 * tall * wide * math.ceil(k / split / 64) * 64 / (PRODUCTS / MULTIPROCESSORS * reached * share)
            summing = m * n * (4 * split + 2) / MEMORY * 0.5 + 1.5e-6 if split > 1 else 0.0
            best = min(best, waves * of_a_wave + 2e-6 + summing)
    return best


def evaluation(unet: Unet, rows: int) -> Estimate:
    """All operations, in their order: down, middle, up."""
    all_of_it, channels, side = Estimate(unet, rows), unet.channels, unet.side
    last = len(channels) - 1
    all_of_it.add("layout of latents", 2e-6)
    all_of_it.convolution("conv in and out", 4, channels[0], side, bias=True)
    all_of_it.add("linear times", 8e-6, 2 * rows * sum(channels) * 5 * 1280, 20160 * 1280 * NUMBER)
    before, skips, sides = channels[0], [channels[0]], [side]
    for number, after in enumerate(channels):
        for _ in range(2):
            block(all_of_it, before, after, side, unet.depth[number])
            before = after
            skips.append(after)
        if number < last:
            side = (side + 1) // 2
            all_of_it.convolution("conv down and up", after, after, side, stride=2, bias=True)
            skips.append(after)
            sides.append(side)
    all_of_it.residual(before, before, side)
    all_of_it.transformer(before, side, unet.middle)
    all_of_it.residual(before, before, side)
    for number in reversed(range(len(channels))):
        after = channels[number]
        for _ in range(3):
            joined = before + skips.pop()
            all_of_it.moving("skips", 2 * rows * joined * side * side * NUMBER)
            block(all_of_it, joined, after, side, unet.depth[number])
            before = after
        if number > 0:
            small, side = side, sides[number - 1]
            all_of_it.moving("upsampling", rows * after * (small**2 + side**2) * NUMBER)
            all_of_it.convolution("conv down and up", after, after, side, bias=True)
    all_of_it.group_norm(before, side)
    all_of_it.convolution("conv in and out", before, 4, side, bias=True)
    return all_of_it


def block(estimate: Estimate, before: int, after: int, side: int, depth: int) -> None:
    """A residual block, and the transformer behind it if there is one."""
    estimate.residual(before, after, side)
    if depth:
        estimate.transformer(after, side, depth)


def one_image(estimate: Estimate) -> float:
    """Seconds of a picture of 50 steps that is drawn alone."""
    return STEPS * estimate.seconds + BESIDES


def images_a_second(estimate: Estimate) -> float:
    """Of pictures of 50 steps that share evaluations; they are decoded beside."""
    return estimate.rows / 2 / (STEPS * estimate.seconds)


def table() -> Iterator[str]:
    """As docs/performance.md has it."""
    yield f"| predicted for an H100, f16 | kernels | an evaluation, ms | {' | '.join(PARTS)} | images of {STEPS} steps a second |"
    yield "|---" * (len(PARTS) + 4) + "|"
    for unet, rows in CASES:
        one = evaluation(unet, rows)
        cells = [f"{1e3 * seconds:.2f}" for seconds in one.parts().values()]
        yield f"| {unet.name}, {rows} rows | {one.kernels} | {1e3 * one.seconds:.2f} | {' | '.join(cells)} | {images_a_second(one):.2f} |"


def operations() -> Iterator[str]:
    """Every kind of operation of every case."""
    for unet, rows in CASES:
        one = evaluation(unet, rows)
        yield f"\n{unet.name}, {rows} rows: {one.kernels} kernels, {1e3 * one.seconds:.2f} ms\n"
        yield "| what | kernels | ms | TFLOP | MB |\n|---|---|---|---|---|"
        for name, kind in sorted(one.operations.items(), key=lambda item: -item[1].seconds):
            yield f"| {name} | {kind.launches} | {1e3 * kind.seconds:.2f} | {kind.work / 1e12:.3f} | {kind.bytes / 1e6:.0f} |"


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["--operations"]):
        sys.exit(__doc__)
    print("\n".join(operations() if sys.argv[1:] else table()))
