#!/usr/bin/env python3
"""Writes what torch's CPU generator draws, for tests/noise.rs.

    python scripts/parity/noise.py > tests/golden/noise.json         the committed goldens
    python scripts/parity/noise.py --full > FILE                     thousands of draws; then NOISE_GOLDEN=FILE

A case is a seed and a row of draws from one generator. Short draws are written whole; of long ones every 251st value,
the last 20 (the tail that torch refills) and the sums of the values and of their squares.
"""

import argparse
import json
import random

import torch

WHOLE = 48
STRIDE = 251
SEEDS = [0, 1, 42, 2**31 - 1, 2**32 - 1, 2**32, 2**32 + 42, 2**63, 2**63 + 7, 2**64 - 1]
# 4096 = 4x32x32 and 16384 = 4x64x64 are latents; the others mix both kernels and their remainders.
ROWS = [[4096, 16384, 4096], [3, 16, 1, 17, 2, 5, 100, 4, 31, 15, 1], [1000, 7, 1000], [1] * 9, [0, 16, 0, 15]]


def digits(value):
    return float(f"{value:.9g}")


def draw(generator, n):
    values = torch.randn(n, generator=generator, dtype=torch.float32)
    flat = values.tolist()
    record = {"n": n}
    if n <= WHOLE:
        record["all"] = [digits(v) for v in flat]
    else:
        wide = values.double()
        record["strided"] = [digits(v) for v in flat[::STRIDE]]
        record["last"] = [digits(v) for v in flat[-20:]]
        record["sum"] = wide.sum().item()
        record["squares"] = (wide * wide).sum().item()
    return record


def case(seed, sizes):
    # The seed is written as text: JSON readers that keep numbers as doubles would round it.
    generator = torch.Generator().manual_seed(seed)
    return {"seed": str(seed), "draws": [draw(generator, n) for n in sizes]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="sizes 1 to 100 and beyond, and random rows, over many seeds")
    full = parser.parse_args().full
    cases = [case(seed, ROWS[i % len(ROWS)]) for i, seed in enumerate(SEEDS)]
    if full:
        rng = random.Random(0)
        seeds = SEEDS + [rng.getrandbits(64) for _ in range(90)]
        cases += [case(seed, [n]) for seed in seeds[:20] for n in range(101)]
        cases += [case(seed, [n]) for seed in seeds for n in (1000, 4096, 9216, 16384, 36864, 65536)]
        cases += [case(s, [rng.choice([rng.randrange(20), rng.randrange(300), 4096]) for _ in range(12)]) for s in seeds * 3]
    print(json.dumps({"torch": torch.__version__, "kernel": torch.backends.cpu.get_cpu_capability(), "cases": cases}))


if __name__ == "__main__":
    main()
