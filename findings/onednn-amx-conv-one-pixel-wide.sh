#!/usr/bin/env bash
# A bfloat16 convolution of stride 2 whose result is one pixel wide is garbage on processors with AMX.
#
# Seen on 2026-11-28 with torch 2.11.0 (oneDNN 3.10.2) on an Intel Xeon with amx_bf16. Needs such a processor and 6 GB of disk; outside CI.
#
# One would guess: the downsampling convolution of a UNet (3x3, stride 2, padding 1) gives in bfloat16 what it gives in float32, within
# bfloat16's rounding, whatever the size of the image.
#
# What happens: where the result is one pixel wide and two or more high (an image 1 or 2 wide, 3 or more high), for any number of images and
# channels that was tried, it holds numbers that are in neither image nor kernel, other ones at each call, up to 1e35 and NaN. Wider results are right,
# and so are those one pixel high, stride 1, and all of it with ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16. Two further columns of zeros at the right of the
# image, and the first column of that result, give the right answer. A latent of 16x32 in a UNet of five levels gets there.
#
# Output seen (the size of the errors differs from run to run):
#   with AMX:               1 wide, 2 high: wrong True;  2 wide, 2 high: wrong False;  2 wide, 1 high: wrong False
#   with AMX, made wider:   1 wide, 2 high: wrong False
#   without AMX:            1 wide, 2 high: wrong False;  2 wide, 2 high: wrong False;  2 wide, 1 high: wrong False
set -euo pipefail

if ! grep -qw amx_bf16 /proc/cpuinfo; then
    echo "this processor has no AMX: nothing can be seen on it" >&2
    exit 77
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
TMPDIR=$folder "$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir torch==2.11.0 numpy==2.2.6

cat >"$folder/look.py" <<'PYTHON'
import sys

import torch
import torch.nn.functional as F

torch.manual_seed(0)
torch.set_num_threads(1)


def is_wrong(height: int, width: int, wider: int = 0) -> bool:
    """Whether any of some calls is further from float32 than bfloat16's rounding explains."""
    x = torch.randn(4, 256, height, width).bfloat16().contiguous(memory_format=torch.channels_last)
    kernel = (torch.randn(256, 256, 3, 3) / 48).bfloat16()
    exact = F.conv2d(x.float(), kernel.float(), stride=2, padding=1)
    x = F.pad(x, (0, wider)).contiguous(memory_format=torch.channels_last)
    calls = [F.conv2d(x, kernel, stride=2, padding=1)[..., : exact.shape[-1]].float() for _ in range(50)]
    return any(not ((call - exact).abs() < 0.1).all() for call in calls)


if sys.argv[1] == "wider":
    print(f"1 wide, 2 high: wrong {is_wrong(4, 2, 2)}")
else:
    sizes = {"1 wide, 2 high": (4, 2), "2 wide, 2 high": (4, 4), "2 wide, 1 high": (2, 4)}
    print("; ".join(f"{name}: wrong {is_wrong(*size)}" for name, size in sizes.items()))
PYTHON

look() { "$folder/venv/bin/python" -W ignore "$folder/look.py" "$1"; }
with=$(look as-it-is) wider=$(look wider) without=$(ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 look as-it-is)
printf 'with AMX: %s\nwith AMX, made wider: %s\nwithout AMX: %s\n' "$with" "$wider" "$without"
[ "$with" = '1 wide, 2 high: wrong True; 2 wide, 2 high: wrong False; 2 wide, 1 high: wrong False' ]
[ "$wider" = '1 wide, 2 high: wrong False' ]
[ "$without" = '1 wide, 2 high: wrong False; 2 wide, 2 high: wrong False; 2 wide, 1 high: wrong False' ]
