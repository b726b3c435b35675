"""Has latentd and its peers draw in turn, each in a process of its own, and prints medians and ratios. See `engine`."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PEERS = {"eager": "diffusers", "compiled": "diffusers, compiled", "openvino": "OpenVINO"}
FIGURES = {"evaluation, ms": 1000.0, "one image, s": 1.0, "its text, ms": 1000.0, "its decode, ms": 1000.0, "its PNG in base64, ms": 1000.0, "ready, s": 1.0, "resident, MiB": 2.0**-20, "GPU memory, MiB": 2.0**-20, "images a minute": 1.0}
MORE_IS_BETTER = {"images a minute"}
# By the stages of latentd and of the others.
STAGES = {"evaluation, ms": "evaluation", "one image, s": "total", "its text, ms": "text", "its decode, ms": "decode", "its PNG in base64, ms": "png"}
# Turbo has the weights of the other SDXL, and what its jobs have that say nothing.
TURBO = ["guidance_scale=0", "scheduler=EULER-A"]
FAMILIES = {
    "sd1": {"name": "sd-1.5-random", "script": "sd15.py", "size": "512x512", "steps": 4, "fields": []},
    "sdxl": {"name": "sdxl-random", "script": "sdxl.py", "size": "1024x1024", "steps": 4, "fields": []},
    "sdxl_turbo": {"name": "sdxl-turbo-random", "weights": "sdxl", "script": "sdxl.py", "size": "512x512", "steps": 1, "fields": TURBO},
}


def latentd(options: argparse.Namespace, jobs: Path | None) -> dict[str, float]:
    """Its own figures. The jobs that it drew are left in `jobs`, for the others."""
    words = [str(options.latentd), "bench", "--json", "--size", options.size, "--steps", str(options.steps), "--rounds", "1", "--images", "1"]
    words += ["--model", str(options.model), "--device", options.device, "--dtype", options.dtype, *fields(options)]
    words += ["--jobs", str(options.jobs), "--at-once", str(options.at_once)]
    if options.rates is not None:
        words.append("--no-rates")
    found = ask(words, options)
    options.rates = options.rates or found["rates"]
    options.gpu = found.get("gpu")
    one = found["latency"][0]
    options.work = one["work"]
    figures = {name: one[stage]["median"] for name, stage in STAGES.items()}
    figures |= {"ready, s": found["start"]["ready"], "resident, MiB": found["memory"]["resident"]}
    if "device" in found["memory"] and options.device == "cuda":
        figures["GPU memory, MiB"] = found["memory"]["device"]
    if jobs:
        jobs.write_text(json.dumps(found["stream"]["jobs"]))
        figures["images a minute"] = found["stream"]["images_a_minute"]
    return figures


def other(peer: str, options: argparse.Namespace, jobs: Path | None) -> dict[str, float]:
    """A peer's."""
    words = [sys.executable, str(HERE / "engine_peer.py"), peer, str(options.model), "--size", options.size, "--steps", str(options.steps), "--rounds", "1"]
    words += ["--dtype", options.dtype, "--device", options.device, "--mode", options.mode, *fields(options), *(["--job-file", str(jobs)] if jobs else [])]
    found = ask(words, options)
    names = {**STAGES, "resident, MiB": "resident", "GPU memory, MiB": "device", "images a minute": "images_a_minute"}
    figures = {name: found[theirs] for name, theirs in names.items() if theirs in found}
    figures = {name: value[0] if isinstance(value, list) else value for name, value in figures.items()}
    return {**figures, "ready, s": found["start"]["ready"]}


def fields(options: argparse.Namespace) -> list[str]:
    """What all of them are told of a job."""
    return [word for field in options.fields for word in ("--set", field)]


def ask(words: list[str], options: argparse.Namespace) -> Any:
    """What a process prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1", "LATENTD_LOG__LEVEL": "error"}
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(words)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def cell(values: list[float], unit: float) -> str:
    """Median, least and most."""
    return f"{unit * statistics.median(values):.4g} ({unit * min(values):.4g} to {unit * max(values):.4g})"


def table(figures: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> str:
    """The figures as Markdown. A ratio is latentd's figure by the peer's."""
    peers = list(figures)[1:]
    lines = ["| | latentd | " + " | ".join(f"{PEERS[peer]} | ratio" for peer in peers) + " |", "|---" * (2 + 2 * len(peers)) + "|"]
    for name, unit in FIGURES.items():
        if name not in figures["latentd"][0]:
            continue
        ours = [one[name] for one in figures["latentd"]]
        cells = [cell(ours, unit)]
        for peer in peers:
            theirs = [one[name] for one in figures[peer] if name in one]
            ratio = f"{statistics.median(ours) / statistics.median(theirs):.2f}" if theirs else ""
            cells += [cell(theirs, unit) if theirs else "", ratio]
        lines.append(f"| {name}{' (more is better)' if name in MORE_IS_BETTER else ''} | {' | '.join(cells)} |")
    best = max(options.rates.values())
    reached = options.work / statistics.median(one["evaluation, ms"] for one in figures["latentd"])
    steps = "one step" if options.steps == 1 else f"{options.steps} steps"
    drawn = ", ".join([options.model.name, options.size, steps, *options.fields])
    what = f"{drawn}, {options.dtype}, {options.device}, {options.threads} threads, {options.rounds} rounds in turn"
    where = f"{processor()}, {os.cpu_count()} cores; Python {platform.python_version()}"
    share = f"latentd's evaluation: {reached / 1e12:.3g} TFLOP/s, {100 * reached / best:.0f} % of the best product that was measured ({best / 1e12:.3g})"
    gpu = used(options.gpu) if options.device == "cuda" else ""
    jobs = f"{options.jobs} jobs of all kinds: latentd has {options.at_once} in hand, the others one" if options.jobs else ""
    return "\n".join(["; ".join(filter(None, [what, where])), "", *lines, "", "; ".join(filter(None, [share, gpu, jobs]))])


def used(gpu: dict | None) -> str:
    """What latentd made use of: without graphs and kernels its figures are those of another program."""
    if gpu is None:
        return "WITHOUT the CUDA helper: no graphs, no kernels"
    kernels = "kernels in use" if gpu["kernels"] else "kernels NOT in use"
    return f"{gpu['replayed']} of latentd's {gpu['evaluations']} evaluations were replays of {gpu['graphs']} CUDA graphs, {kernels}"


def processor() -> str:
    """What this machine computes with."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def made(folder: Path, family: dict) -> Path:
    """The model of random weights of a family, written unless it is there."""
    model = folder / family["name"]
    if not (model / "model_index.json").exists():
        parts = ["--turbo-of", str(made(folder, FAMILIES[family["weights"]]))] if "weights" in family else []
        print(f"writing {model.name}", file=sys.stderr)
        subprocess.run([sys.executable, str(ROOT / "scripts" / "parity" / family["script"]), str(model), *parts], check=True)
    return model


def main() -> None:
    """Rounds of all, in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latentd", type=Path, required=True)
    parser.add_argument("--family", choices=FAMILIES, default="sd1", help="SD 1.5, SDXL or SDXL Turbo, in full size with random weights, where no model is given")
    parser.add_argument("--model", type=Path, help="a diffusers folder")
    parser.add_argument("--size", help="if not the family's own, 512x512 or 1024x1024")
    parser.add_argument("--steps", type=int, help="if not the family's own, 4, or 1 of Turbo")
    parser.add_argument("--set", dest="fields", metavar="KEY=VALUE", action="append", help="guidance_scale or scheduler of one image, if not the family's own")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=0, help="jobs of all kinds after that")
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--dtype", choices=("f32", "bf16", "f16"), default="f32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--mode", default="max-autotune", help="of torch.compile on a GPU")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    options = parser.parse_args()
    options.rates = options.gpu = None
    if options.device == "cuda":
        options.peers = [peer for peer in options.peers if peer != "openvino"]
    folder = ROOT / "target" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    family = FAMILIES[options.family]
    options.size, options.steps = options.size or family["size"], options.steps or family["steps"]
    options.fields = family["fields"] if options.fields is None else options.fields
    if options.model is None:
        options.model = made(folder, family)
    converted = Path(f"{(options.model / 'unet').resolve().parent}-openvino") / "unet.xml"
    if family["script"] == "sdxl.py" and "openvino" in options.peers and not converted.exists():
        print("converting the UNet for OpenVINO", file=sys.stderr)
        subprocess.run([sys.executable, str(HERE / "engine_peer.py"), "convert", str(options.model)], check=True)
    jobs = folder / "jobs.json" if options.jobs else None
    figures: dict[str, list[dict[str, float]]] = {peer: [] for peer in ("latentd", *options.peers)}
    for number in range(options.rounds):
        for peer, found in figures.items():
            print(f"round {number + 1}, {peer}", file=sys.stderr)
            found.append(latentd(options, jobs) if peer == "latentd" else other(peer, options, jobs))
    print(table(figures, options))


if __name__ == "__main__":
    main()
