"""Clients and workers of a gateway, harm that is done to it, and what must hold all the same. See `run`."""

import argparse
import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from link import Broken, Link

ENDPOINT, WAITS = "draws", "waits"  # one that is worked for, and one where a job waits for ever
PATH = f"/v2/{ENDPOINT}"
CLIENTS, WORKERS, BATCH = 8, 4, 4
STEPS = (300, 7200, 90000, -7200)  # seconds by which the wall clock is set off, one after the other
PATIENCE = 180.0  # seconds for what is left when the load is over


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


class Process:
    """A program that can be killed, and started again as it was."""

    def __init__(self, words: list[str], environment: dict[str, str], port: int, folder: Path) -> None:
        self.words, self.environment, self.port, self.folder, self.peak = words, environment, port, folder, 0
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.words, env=self.environment, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=(self.folder / "log").open("a"))
        end = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    sys.exit(f"reliability: {self.words[0]} does not begin")
                time.sleep(0.02)

    def look(self) -> None:
        """Notes the most memory it had, in MiB."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                self.peak = max(self.peak, int(line.split()[1]) // 1024)

    def kill(self) -> None:
        self.look()
        self.process.kill()
        self.process.wait()


class Scene:
    """What everybody saw."""

    def __init__(self, options: argparse.Namespace, folder: str) -> None:
        self.options, self.folder = options, Path(folder).resolve()
        self.offset = self.folder / "offset"
        self.offset.write_text("0")
        self.redis = self.start_redis() if options.store == "redis" else None
        self.gateway = self.start_gateway()
        self.proxy = self.start_proxy() if options.nginx else None
        self.port = (self.proxy or self.gateway).port
        self.numbers, self.over, self.ended = itertools.count(), False, False
        self.jobs: dict[int, str] = {}  # the id that each submission was answered with
        self.brought: dict[str, set[str]] = defaultdict(set)  # outputs that were posted for a job
        self.held: dict[str, set[str]] = defaultdict(set)
        self.times: dict[str, list[float]] = defaultdict(list)
        self.statuses: dict[int, int] = defaultdict(int)
        self.wrong: list[str] = []

    def start_redis(self) -> Process:
        port = free_port()
        words = [str(self.options.redis.resolve()), "--port", str(port), "--save", "", "--appendonly", "yes", "--appendfsync", "always", "--dir", str(self.folder)]
        return Process([*words, "--loglevel", "warning"], dict(os.environ), port, self.folder)

    def start_gateway(self) -> Process:
        port = free_port()
        store = f"redis://127.0.0.1:{self.redis.port}" if self.redis else f"sqlite:{self.folder}/queue.db"
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LATENTD_LISTEN": f"127.0.0.1:{port}", "LATENTD_STORE": store}
        environment |= {"LATENTD_LIMITS": "false", "LATENTD_LOG__LEVEL": "error", "LATENTD_GATEWAY__LOST": "12"}
        if "clock" in self.options.faults:
            environment |= {"LD_PRELOAD": self.options.clock, "CLOCK_OFFSET": str(self.offset)}
        endpoints = [f'[[endpoints]]\nid = "{name}"\nhandler = "external"\n' for name in (ENDPOINT, WAITS)]
        (self.folder / "latentd.toml").write_text("\n".join(endpoints))
        return Process([str(self.options.latentd.resolve()), "gateway"], environment, port, self.folder)

    def start_proxy(self) -> Process:
        """nginx as it is set up where nothing else is said, but for where it listens and writes."""
        port, folder = free_port(), self.folder
        places = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        server = f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{self.gateway.port}; }} }}"
        files = "worker_rlimit_nofile 16384; events { worker_connections 8192; }"
        file = folder / "nginx.conf"
        file.write_text(f"daemon off; pid {folder}/pid; error_log {folder}/error.log; {files} http {{ access_log off; {places} {server} }}")
        return Process([self.options.nginx, "-c", str(file), "-e", str(folder / "early.log")], dict(os.environ), port, folder)

    async def until_answered(self, link: Link, name: str, *request: object, **more: object) -> tuple[int, object]:
        """Asks until an answer comes that says more than `later`."""
        while True:
            began = time.monotonic()
            try:
                status, body = await link.ask(*request, **more)
            except Broken:
                await asyncio.sleep(0.05)
                continue
            self.statuses[status] += 1
            if status not in (429, 502, 503, 504):
                self.times[name].append(time.monotonic() - began)
                return status, body
            await asyncio.sleep(0.1)

    async def client(self) -> None:
        """Submits, and reads how the job before stands. A submission is sent until it is answered, under one key."""
        link, last = Link(self.port), None
        while not self.over:
            number = next(self.numbers)
            key = {"idempotency-key": f"n{number}"}
            status, body = await self.until_answered(link, "submit", "POST", f"{PATH}/run", {"input": {"number": number}}, key)
            if status != 200:
                self.wrong.append(f"submission {number}: {status} {body}")
                continue
            self.jobs[number] = body["id"]
            if last is not None:
                status, body = await self.until_answered(link, "status", "GET", f"{PATH}/status/{last}")
                if status != 200:
                    self.wrong.append(f"{last} is forgotten: {status} {body}")
            last = self.jobs[number]

    async def worker(self, name: str) -> None:
        link, beats = Link(self.port), asyncio.create_task(self.beat(name))
        while not self.ended:
            try:
                status, jobs = await link.ask("GET", f"{PATH}/job-take-batch/{name}?batch_size={BATCH}")
            except Broken:
                await asyncio.sleep(0.05)
                continue
            for job in jobs if status == 200 else ():
                self.held[name].add(job["id"])
            for job in jobs if status == 200 else ():
                output = f"{name} {job['input']['number']} {time.monotonic()}"
                self.brought[job["id"]].add(output)
                status, body = await self.until_answered(link, "result", "POST", f"{PATH}/job-done/{name}/{job['id']}?isStream=false", {"output": output})
                if status != 200:
                    self.wrong.append(f"result of {job['id']}: {status} {body}")
                self.held[name].discard(job["id"])
        beats.cancel()

    async def beat(self, name: str) -> None:
        link = Link(self.port)
        while True:
            try:
                await link.ask("GET", f"{PATH}/ping/{name}?job_id={'%2C'.join(self.held[name])}")
            except Broken:
                pass
            await asyncio.sleep(1)

    async def poll(self, job: str) -> None:
        """A long poll that is always open, on a job that no worker takes."""
        link = Link(self.port)
        while not self.over:
            try:
                await link.ask("GET", f"/v2/{WAITS}/status-sync/{job}?wait=20000")
            except Broken:
                await asyncio.sleep(0.5)

    async def watch(self, job: str) -> None:
        """A stream of events that is opened, and never read."""
        while not self.over:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(f"GET /v2/{WAITS}/stream/{job} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n".encode())
                while not self.over and not writer.is_closing():
                    await asyncio.sleep(0.5)
                writer.close()
            except OSError:
                await asyncio.sleep(0.5)

    async def harm(self) -> None:
        """One fault after the other, evenly over the time of the load."""
        faults = list(self.options.faults)
        for number, fault in enumerate(faults):
            await asyncio.sleep(self.options.seconds / (len(faults) + 1))
            print(f"reliability: {fault}", file=sys.stderr)
            if fault == "kill":
                self.gateway.kill()
                self.gateway.start()
            elif fault == "stop":
                self.gateway.process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(4)
                self.gateway.process.send_signal(signal.SIGCONT)
            elif fault == "clock":
                self.offset.write_text(str(STEPS[number % len(STEPS)]))
            elif fault == "redis":
                self.redis.kill()
                await asyncio.sleep(2)
                self.redis.start()

    async def play(self) -> None:
        async with asyncio.TaskGroup() as group:
            waits = await Link(self.port).ask("POST", f"/v2/{WAITS}/run", {"input": {}, "policy": {"executionTimeout": 600000}})
            for _ in range(self.options.polls):
                group.create_task(self.poll(waits[1]["id"]))
            for _ in range(self.options.streams):
                group.create_task(self.watch(waits[1]["id"]))
            workers = [group.create_task(self.worker(f"w{number}")) for number in range(WORKERS)]
            clients = [group.create_task(self.client()) for _ in range(CLIENTS)]
            harm = group.create_task(self.harm())
            await asyncio.sleep(self.options.seconds)
            self.over = True
            await asyncio.wait([*clients, harm])
            await self.settle()
            self.ended = True
            await asyncio.wait(workers)
            self.gateway.look()

    async def settle(self) -> None:
        """Every job that was taken in ends, once, with what a worker brought for it."""
        end, left = time.monotonic() + PATIENCE, iter(self.jobs.items())
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self.last_looks(left, end))
        if len(set(self.jobs.values())) != len(self.jobs):
            self.wrong.append("two submissions became one job")
        _, health = await self.until_answered(Link(self.port), "health", "GET", f"{PATH}/health")
        if health["jobs"]["completed"] != len(self.jobs):
            self.wrong.append(f"{len(self.jobs)} jobs were submitted, and {health['jobs']} is told")

    async def last_looks(self, left: Iterator[tuple[int, str]], end: float) -> None:
        link = Link(self.port)
        for number, job in left:
            while True:
                status, body = await self.until_answered(link, "last look", "GET", f"{PATH}/status/{job}")
                if status != 200 or body["status"] not in ("IN_QUEUE", "IN_PROGRESS") or time.monotonic() > end:
                    break
                await asyncio.sleep(0.1)
            if status != 200 or body["status"] != "COMPLETED" or body["output"] not in self.brought[job]:
                self.wrong.append(f"job {job} of submission {number} ends as {status} {body}")

    def table(self) -> str:
        """What was seen, as Markdown."""
        rate = len(self.jobs) / self.options.seconds
        where = f"{self.options.store}, {self.options.polls} open polls, {self.options.streams} unread streams, {'through nginx, ' if self.proxy else ''}{', '.join(self.options.faults) or 'no faults'}"
        lines = [f"{where}: {len(self.jobs)} jobs in {self.options.seconds:g} s ({rate:,.0f} a second), most memory {self.gateway.peak} MiB", ""]
        lines += ["| | answers | median ms | 99 of 100, ms | slowest, ms |", "|---|---|---|---|---|"]
        for name in ("submit", "status", "result"):
            times = sorted(self.times[name])
            part = lambda share: 1000 * times[min(int(len(times) * share), len(times) - 1)]  # noqa: E731
            lines.append(f"| {name} | {len(times):,} | {part(0.5):.1f} | {part(0.99):.1f} | {part(1):.0f} |")
        return "\n".join([*lines, "", f"lost, doubled or refused: {len(self.wrong)}", *self.wrong[:10]])


def main() -> None:
    """Plays one scene."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latentd", type=Path, required=True)
    parser.add_argument("--clock", help="the library that sets the wall clock off")
    parser.add_argument("--store", choices=("sqlite", "redis"), default="sqlite")
    parser.add_argument("--redis", type=Path, default=Path(".tools/bin/redis-server"), help="the program")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--polls", type=int, default=1000)
    parser.add_argument("--streams", type=int, default=300, help="streams of events that are never read")
    parser.add_argument("--nginx", help="the program, to have all of it go through")
    parser.add_argument("--faults", help="of kill, stop, clock, redis, with commas between; none: an empty text")
    options = parser.parse_args()
    usual = "stop,clock,kill,clock,clock,kill,clock" if options.store == "sqlite" else "stop,redis,clock,kill,clock,redis,clock"
    options.faults = [fault for fault in (usual if options.faults is None else options.faults).split(",") if fault]
    with tempfile.TemporaryDirectory(dir="target" if Path("target").is_dir() else None) as folder:
        scene = Scene(options, folder)
        try:
            asyncio.run(scene.play())
        finally:
            scene.gateway.kill()
            for other in filter(None, (scene.redis, scene.proxy)):
                other.process.terminate()
                other.process.wait()
        print(scene.table())
    sys.exit(1 if scene.wrong else 0)


if __name__ == "__main__":
    main()
