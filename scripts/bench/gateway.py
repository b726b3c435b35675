"""Puts the same load on `latentd gateway` and on the SDK's local server, in turn, and prints medians and ratios. See `gateway`."""

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

PATIENCE = 300.0  # seconds for a server to begin on a busy machine
WARM = 0.5  # seconds of load that do not count
TICKS = os.sysconf("SC_CLK_TCK")
# What is measured: its name, the gateway's operation, and the one of the SDK's server, which has no polls.
LOADS = (("submits", "submit", "submit"), ("status reads", "status", "known"), ("whole jobs", "cycle", "alone"), ("wake-up of a poll", "wake", None))


class Server:
    """A server that ends with the block."""

    def __init__(self, peer: str, options: argparse.Namespace) -> None:
        self.folder = tempfile.TemporaryDirectory(dir=options.folder)
        environment = {"PATH": os.environ["PATH"], "HOME": self.folder.name}
        if peer == "latentd":
            store = options.store or f"sqlite:{self.folder.name}/queue.db"
            # In a store that is there, a queue of its own.
            endpoint = f"bench-{uuid.uuid4().hex}"
            words = [str(options.latentd), "gateway"]
            environment |= {"LATENTD_LISTEN": "127.0.0.1:0", "LATENTD_STORE": store, "LATENTD_LOG__LEVEL": "error"}
            environment |= {"LATENTD_ENDPOINT": endpoint, "LATENTD_HANDLER": "external", "LATENTD_LIMITS": "false", "LATENTD_GATEWAY__MAX_WAITING": "off"}
        else:
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            words = [sys.executable, str(Path(__file__).with_name("local_server.py")), "--rp_serve_api", "--rp_api_port", str(port)]
            words += ["--rp_api_host", "127.0.0.1"]
            environment |= {"RUNPOD_DEBUG_LEVEL": "ERROR", "UVICORN_LOG_LEVEL": "error"}
            self.base = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)
        if peer == "latentd":
            address = self.process.stdout.readline().strip().removeprefix("listening on ")
            self.base = f"{address}/v2/{endpoint}"
        else:
            self.wait()

    def wait(self) -> None:
        """Until it answers."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                urlopen(f"{self.base}/openapi.json", timeout=PATIENCE).close()
                return
            except URLError:
                if time.monotonic() > end or self.process.poll() is not None:
                    sys.exit("bench: the SDK's local server does not begin")
                time.sleep(0.05)

    def __enter__(self) -> "Server":
        return self

    def cpu(self) -> float:
        """Seconds of processor that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


def measure(peer: str, operation: str, options: argparse.Namespace) -> dict[str, float]:
    """Figures of one load on a fresh server."""
    with Server(peer, options) as server:
        words = [str(options.load), server.base, operation, str(options.connections), str(options.seconds)]
        before, of_redis = server.cpu(), redis_cpu(options)
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
        used, used_by_redis = server.cpu() - before, redis_cpu(options) - of_redis
    if done.returncode != 0:
        sys.exit(f"bench: {operation} on {peer} failed")
    figures = json.loads(done.stdout)
    count = (figures["rate"] or 0) * (options.seconds + WARM)
    if count:
        figures["cpu"] = 1000 * used / count
        if used_by_redis and peer == "latentd":
            figures["redis"] = 1000 * used_by_redis / count
    return figures


def redis_cpu(options: argparse.Namespace) -> float:
    """Seconds of processor that the Redis of the store has used; 0 without one."""
    if not (options.store or "").startswith("redis://"):
        return 0.0
    address = urlsplit(options.store)
    with socket.create_connection((address.hostname, address.port or 6379)) as link, link.makefile("rb") as lines:
        link.sendall(b"INFO cpu\r\n")
        answer = lines.read(int(lines.readline()[1:])).decode()
    return sum(float(answer.split(f"used_cpu_{kind}:")[1].split()[0]) for kind in ("user", "sys"))


def cell(values: list[float]) -> str:
    """Median, least and most."""
    return f"{statistics.median(values):,.3g} ({min(values):,.3g} to {max(values):,.3g})"


def table(figures: dict[tuple[str, str], list[dict[str, float]]], options: argparse.Namespace) -> str:
    """The figures as Markdown: medians, from least to most."""
    lines = ["| | latentd gateway | the SDK's local server | ratio |", "|---|---|---|---|"]
    for name, _, theirs in LOADS:
        titles = {"rate": "a second", "p50": "median ms", "p99": "99 of 100, ms", "cpu": "ms of processor each", "redis": "and of Redis"}
        for figure, title in ((figure, f"{name}, {title}") for figure, title in titles.items()):
            mine = [one.get(figure) for one in figures[name, "latentd"]]
            if mine[0] is None:
                continue
            if theirs is None or figure == "redis":
                lines.append(f"| {title} | {cell(mine)} | | |")
                continue
            other = [one[figure] for one in figures[name, "sdk"]]
            ratio = statistics.median(mine) / statistics.median(other)
            lines.append(f"| {title} | {cell(mine)} | {cell(other)} | {ratio if figure == 'rate' else 1 / ratio:.1f} times better |")
    store = (options.store or "sqlite").split(":")[0]
    what = f"{options.connections} connections, {options.seconds:g} s a load, {options.rounds} rounds in turn, store: {store}"
    where = f"{platform.machine()} with {os.cpu_count()} cores, Python {platform.python_version()}"
    return "\n".join([f"{what}; {where}", "", *lines])


def main() -> None:
    """Rounds of all, in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latentd", type=Path, required=True)
    parser.add_argument("--load", type=Path, required=True)
    parser.add_argument("--store", help="such as redis://…; else a new SQLite file for each load")
    parser.add_argument("--folder", type=Path, default=Path("target"), help="where those files are: on a disk that counts")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    options.folder.mkdir(exist_ok=True)
    figures: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number in range(options.rounds):
        for name, mine, theirs in LOADS:
            for peer, operation in (("latentd", mine), ("sdk", theirs)):
                if operation is not None:
                    print(f"round {number + 1}, {name}, {peer}", file=sys.stderr)
                    figures.setdefault((name, peer), []).append(measure(peer, operation, options))
    print(table(figures, options))


if __name__ == "__main__":
    main()
