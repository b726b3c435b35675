"""Runs two workers in turn on one queue in this process, and prints what each needs, as medians and ratios. See `worker`."""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import psutil
from aiohttp import web

ROOT = Path(__file__).resolve().parents[2]
HOLD = 10.0  # seconds for a poll without a job
PATIENCE = 600.0  # seconds for anything
MEASURES = {
    "start to first take, s": min, "start to first image, s": min, "jobs a minute, concurrency 1": max, "jobs a minute, concurrency 4": max,
    "overhead a job, ms": min, "peak memory, MiB": min,
}  # fmt: skip


class Queue:
    """A queue as workers see it; it only keeps times and results."""

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[dict] = asyncio.Queue()
        self.first_take: float | None = None
        self.results: list[tuple[float, dict]] = []
        self.news = asyncio.Event()

    async def start(self) -> str:
        """Listens on a free port; returns the endpoint's base."""
        app = web.Application(client_max_size=64 << 20)
        app.router.add_get("/v2/bench/job-take/{worker}", self.take)
        app.router.add_get("/v2/bench/job-take-batch/{worker}", self.take_batch)
        app.router.add_post("/v2/bench/job-done/{worker}/{id}", self.done)
        app.router.add_get("/v2/bench/ping/{worker}", self.idle)
        app.router.add_get("/v2/bench/job-stop/{worker}", self.silence)
        self.runner = web.AppRunner(app, access_log=None)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{self.runner.addresses[0][1]}/v2/bench"

    async def next_job(self) -> dict | None:
        """A job, as soon as there is one."""
        self.first_take = self.first_take or time.monotonic()
        try:
            return await asyncio.wait_for(self.waiting.get(), HOLD)
        except TimeoutError:
            return None

    async def take(self, _: web.Request) -> web.Response:
        job = await self.next_job()
        return web.json_response(job) if job else web.Response(status=204)

    async def take_batch(self, request: web.Request) -> web.Response:
        job = await self.next_job()
        jobs = [job] if job else []
        while len(jobs) < int(request.query.get("batch_size", 1)) and not self.waiting.empty():
            jobs.append(self.waiting.get_nowait())
        return web.json_response(jobs) if jobs else web.Response(status=204)

    async def done(self, request: web.Request) -> web.Response:
        body = json.loads(await request.text())
        if body.get("status") != "IN_PROGRESS":
            self.results.append((time.monotonic(), body))
            self.news.set()
        return web.json_response({})

    async def idle(self, _: web.Request) -> web.Response:
        return web.json_response({})

    async def silence(self, _: web.Request) -> web.Response:
        await asyncio.sleep(3600)
        return web.Response(status=204)

    def put(self, count: int, asked: dict) -> None:
        """Queues `count` jobs of different seeds."""
        for number in range(count):
            self.waiting.put_nowait({"id": f"job-{len(self.results)}-{number}", "input": {**asked, "seed": number}})

    async def until(self, count: int, worker: psutil.Popen) -> None:
        """Waits for so many results. Exits if the worker ends before, or takes too long."""
        began = time.monotonic()
        while len(self.results) < count:
            if worker.poll() is not None or time.monotonic() - began > PATIENCE:
                sys.exit(f"bench: {' '.join(worker.args)} has ended ({worker.poll()}) or hangs; see target/bench-*.log")
            self.news.clear()
            with contextlib.suppress(TimeoutError):  # a worker that ends says nothing
                await asyncio.wait_for(self.news.wait(), 1)


def command(peer: str, base: str, concurrency: int, options: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    """What starts a worker, and its environment."""
    environment = {
        "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "OMP_NUM_THREADS": str(options.threads), "RUNPOD_POD_ID": "bench",
        "RUNPOD_AI_API_KEY": "bench", "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true", "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID", "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID",
        "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID",
    }  # fmt: skip
    if peer == "latentd":
        ours = {"LATENTD_WORKER__CONCURRENCY": str(concurrency), "LATENTD_DTYPE": "f32", "LATENTD_DEVICE": "cpu", "LATENTD_LOG__LEVEL": "warn"}
        return [str(ROOT / "target/release/latentd"), "worker", "--model", str(options.model)], {**environment, **ours}
    theirs = {"MODEL": str(options.model), "CONCURRENCY": str(concurrency), "HF_HUB_OFFLINE": "1", "RUNPOD_DEBUG_LEVEL": "ERROR"}
    return [sys.executable, str(ROOT / "scripts/bench/python_worker.py")], {**environment, **theirs}


def peak(process: psutil.Process) -> float:
    """MiB at most so far, of a process and its children."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        status = Path(f"/proc/{one.pid}/status").read_text()
        total += int(status.split("VmHWM:")[1].split()[0])
    return total / 1024


def drawing(body: dict) -> float:
    """Seconds that a result took beside everything around it."""
    if "seconds" in (body.get("output") or {}):
        return body["output"]["seconds"]
    timings = body["timings"]
    return sum(timings[stage] for stage in ("text", "encode", "denoise", "decode", "png")) / 1000


async def measure(peer: str, concurrency: int, options: argparse.Namespace) -> dict[str, float]:
    """Starts a worker, gives it one job and then many, and ends it."""
    queue = Queue()
    base = await queue.start()
    asked = {"prompt": "a red apple", "width": options.size, "height": options.size, "num_inference_steps": options.steps}
    if peer == "latentd":
        asked["scheduler"] = "DDIM"
    queue.put(1, asked)
    words, environment = command(peer, base, concurrency, options)
    began = time.monotonic()
    with (ROOT / "target" / f"bench-{peer}.log").open("w") as log:
        process = psutil.Popen(words, env=environment, stdout=log, stderr=log)
    try:
        await queue.until(1, process)
        first = queue.results[0][0]
        queue.put(options.jobs, asked)
        started = time.monotonic()
        await queue.until(1 + options.jobs, process)
        took = queue.results[-1][0] - started
        memory = peak(process)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in [*process.children(recursive=True), process]:
                one.kill()
        process.wait()
        await queue.runner.cleanup()
    bodies = [body for _, body in queue.results]
    if failed := [body for body in bodies if body.get("error")]:
        sys.exit(f"bench: {peer} failed a job: {failed[0]['error']}")
    figures = {f"jobs a minute, concurrency {concurrency}": 60 * options.jobs / took, "peak memory, MiB": memory}
    if concurrency == 1:
        figures["start to first take, s"] = queue.first_take - began
        figures["start to first image, s"] = first - began
        figures["overhead a job, ms"] = 1000 * (took / options.jobs - statistics.mean(drawing(body) for body in bodies[1:]))
    return figures


def table(figures: dict[str, dict[str, list[float]]], options: argparse.Namespace) -> str:
    """The figures as Markdown: medians, from least to most."""
    lines = ["| | latentd | Python | ratio |", "|---|---|---|---|"]
    for name, better in MEASURES.items():
        ours, theirs = (figures[peer][name] for peer in ("latentd", "python"))
        cells = [f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})" for values in (ours, theirs)]
        ratio = statistics.median(theirs) / statistics.median(ours)
        lines.append(f"| {name} | {' | '.join(cells)} | {ratio if better is min else 1 / ratio:.1f} times better |")
    what = f"{options.model.name}, {options.size}x{options.size}, {options.steps} steps, f32, {options.threads} threads"
    where = f"{platform.machine()} with {os.cpu_count()} cores, Python {platform.python_version()}"
    return "\n".join([f"{what}; {options.jobs} jobs, {options.rounds} rounds in turn; {where}", "", *lines])


async def main() -> None:
    """Rounds of all, in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "models/miniature", help="a folder in diffusers layout")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    figures: dict[str, dict[str, list[float]]] = {"latentd": {}, "python": {}}
    for number in range(options.rounds):
        for concurrency in (1, 4):
            for peer in figures:
                print(f"round {number + 1}, concurrency {concurrency}, {peer}", file=sys.stderr)
                for name, value in (await measure(peer, concurrency, options)).items():
                    figures[peer].setdefault(name, []).append(value)
    print(table(figures, options))


if __name__ == "__main__":
    asyncio.run(main())
