"""Tells what a run is made on, as a line of JSON."""

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

ASKED = "name,driver_version,memory.total,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu,power.draw"


def card() -> dict[str, str]:
    """What the driver's own tool says of the first GPU."""
    words = ["nvidia-smi", f"--query-gpu={ASKED}", "--format=csv,noheader"]
    try:
        said = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError) as cause:
        return {"nvidia-smi": str(cause)}
    return dict(zip(ASKED.split(","), (value.strip() for value in said.splitlines()[0].split(",")), strict=False))


def packages() -> dict[str, str]:
    """Versions of what is compared with."""
    found = {}
    for name in ("torch", "triton", "diffusers", "transformers", "huggingface_hub", "safetensors", "nvidia-cudnn-cu13"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    """All of it."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    processor = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), platform.machine())
    driver = Path("/proc/driver/nvidia/version")
    known = {
        "card": card(), "driver": driver.read_text(encoding="utf-8").splitlines()[0] if driver.exists() else None, "processor": processor,
        "cores": len(os.sched_getaffinity(0)), "kernel": platform.release(), "python": platform.python_version(), "packages": packages(),
    }  # fmt: skip
    print(json.dumps(known))


if __name__ == "__main__":
    main()
