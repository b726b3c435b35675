"""Holds what a rehearsal noted to what must come of each stage where no GPU computes anything.

    rehearsed.py OUT
"""

import json
import sys
from pathlib import Path

# What an imaginary GPU cannot do: kernels write nothing, so that what checks their numbers finds fault.
WRONG = "exit code 1"
EXPECTED = {
    "SDXL weights": None, "refiner weights": None, "Turbo weights": None, "SDXL Turbo": None, "diffusers, SDXL Turbo": None, "SDXL": None, "SDXL with refiner": None,
    "SDXL as a whole": None, "SDXL in turn": None, "in turn the same": None,
    "build": None, "machine": None, "one picture": None, "kernel test": WRONG, "ceilings": None, "weights": None, "latentd": None, "latentd, several rows": None,
    "latentd, a stream of jobs": None, "diffusers": None, "the same picture": None, "like diffusers": None, "trace": None, "graphs off": None,
    "kernels off": None, "attention cudnn": None, "attention auto": None, "devices": WRONG, "compilation": None, "diffusers, compiled": None, "probe attention": None, "probe kernels": None,
    "probe convolutions": None, "probe products": None, "machine afterwards": None,
}  # fmt: skip
# What depends on the machine.
MAY_BE_LEFT_OUT = {"memory errors"}
GRAPHS = {"latentd": True, "graphs off": False, "SDXL Turbo": True, "SDXL": True, "SDXL with refiner": True}


def main() -> None:
    """1, and what is wrong, if anything is."""
    lines = (Path(sys.argv[1]) / "results.jsonl").read_text(encoding="utf-8").splitlines()
    stages = {line["stage"]: line for line in map(json.loads, lines)}
    wrong = [f"{name} is missing" for name in EXPECTED if name not in stages]
    for name, stage in stages.items():
        if name in EXPECTED and stage["fault"] != EXPECTED[name]:
            wrong.append(f"{name}: {stage['fault']}, and not {EXPECTED[name]}")
        if name not in EXPECTED and name not in MAY_BE_LEFT_OUT:
            wrong.append(f"{name} is a stage that nobody expects")
    for name, replays in GRAPHS.items():
        found = stages.get(name, {}).get("found")
        gpu = found[-1].get("gpu") if found else None
        if gpu is None or (gpu["evaluations"] == gpu["replayed"]) != replays:
            wrong.append(f"{name}: {gpu}")
    for name, stage in stages.items():
        print(f"{stage['at']:7.1f} {stage['seconds']:7.1f} s  {name:28} {stage['fault'] or ''}")
    if wrong:
        sys.exit("\n".join(f"rehearse: {one}" for one in wrong))


if __name__ == "__main__":
    main()
