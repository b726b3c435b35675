"""A gateway on a free port with a store of its own, and workers for it. What is started here is stopped here, by its process id."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests

ENDPOINT = "stable-diffusion-v1"
USER_KEY, WORKER_KEY = "a-client-s-key", "a-worker-s-key"
HERE = Path(__file__).parent
LOGS = HERE.parents[1] / ".venv-sdk" / "logs"
ENDS = {"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"}
PATIENCE = 60.0  # seconds for anything on a busy machine
NUMBERS = itertools.count(1)


def until(what: str, look: Callable[[], Any], within: float = PATIENCE) -> Any:
    """The first thing but None and False that `look` returns."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {within} s: {what}")


class Process:
    """A process with a log, in a group of its own, which is killed at the end."""

    def __init__(self, name: str, words: list[str], environment: dict[str, str], folder: str) -> None:
        LOGS.mkdir(parents=True, exist_ok=True)
        self.log = LOGS / f"{next(NUMBERS):02}-{name}.log"
        inherited = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                words, env={**inherited, **environment}, cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def says(self, text: str, within: float = PATIENCE) -> str:
        """The rest of the line that has the text, once it is there."""

        def look() -> str | None:
            if self.process.poll() is not None and text not in self.log.read_text():
                raise AssertionError(f"ended with {self.process.returncode} without {text!r}; see {self.log}")
            lines = self.log.read_text().split(text, 1)
            return lines[1].split("\n")[0] + "\n" if len(lines) > 1 and "\n" in lines[1] else None

        return until(f"{text!r} in {self.log}", look, within)

    def signal(self, number: int) -> None:
        """To this process alone."""
        self.process.send_signal(number)

    def signal_all(self, number: int) -> None:
        """To all of its group, heartbeats too."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def code(self, within: float = PATIENCE) -> int:
        """How it ended."""
        return self.process.wait(within)

    def stop(self) -> None:
        """Kills what is left of it."""
        self.signal_all(signal.SIGKILL)
        self.process.wait()


class House:
    """The gateway. With `lost`, jobs that no heartbeat names are lost after so many seconds."""

    def __init__(self, lost: float | None = None) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="latentd-sdk-")
        self.workers: list[Process] = []
        self.redis: list[Process] = []
        store = self._redis() if os.environ.get("SDK_STORE") == "redis" else f"sqlite:{self.folder.name}/queue.db"
        self.environment = {
            "LATENTD_STORE": store, "LATENTD_HANDLER": "external", "LATENTD_API_KEYS": USER_KEY, "LATENTD_WORKER_KEYS": WORKER_KEY, "LATENTD_LISTEN": "127.0.0.1:0",
        }  # fmt: skip
        if lost is not None:
            self.environment["LATENTD_GATEWAY__LOST"] = str(lost)
        self.gateway = self._start()
        self.address = self.gateway.says("listening on ").strip()

    def _start(self) -> Process:
        return Process("gateway", [os.environ["SDK_LATENTD"], "gateway"], self.environment, self.folder.name)

    def _redis(self) -> str:
        """Starts a Redis that nobody else uses; its URL."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        laid = HERE.parents[1] / ".tools" / "bin" / "redis-server"
        words = [str(laid) if laid.exists() else "redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "yes"]
        self.redis.append(Process("redis", words, {}, self.folder.name))
        self.redis[0].says("Ready to accept connections")
        return f"redis://127.0.0.1:{port}"

    def crash(self) -> None:
        """Kills the gateway and starts it again on the same port."""
        self.gateway.stop()
        self.environment["LATENTD_LISTEN"] = self.address.removeprefix("http://")
        self.gateway = self._start()
        self.gateway.says("listening on ")

    def close(self) -> None:
        """Stops all, workers first."""
        for process in [*self.workers, self.gateway, *self.redis]:
            process.stop()
        self.folder.cleanup()

    @property
    def base(self) -> str:
        """What SDKs take for the API's address."""
        return f"{self.address}/v2"

    def ask(self, method: str, operation: str, key: str = USER_KEY, api: str = "v2", **more: Any) -> requests.Response:
        """What the endpoint answers."""
        headers = {"Authorization": f"Bearer {key}"}
        return requests.request(method, f"{self.address}/{api}/{ENDPOINT}{operation}", headers=headers, timeout=PATIENCE, **more)

    def submit(self, asked: Any, **more: Any) -> str:
        """Queues a job; its id."""
        return self.ask("POST", "/run", json={"input": asked, **more}).json()["id"]

    def status(self, job: str) -> dict[str, Any]:
        """The status object."""
        return self.ask("GET", f"/status/{job}").json()

    def when(self, job: str, *states: str, within: float = PATIENCE) -> dict[str, Any]:
        """The status object once it stands so; at its end if no state is named."""
        seen: dict[str, Any] = {}

        def look() -> bool:
            seen.update({"status": None}, **self.status(job))
            return seen["status"] in (states or ENDS)

        try:
            until("", look, within)
        except AssertionError:
            raise AssertionError(f"not {states or 'ended'} within {within} s: {seen}; logs are in {LOGS}") from None
        return self.status(job)

    def worker(self, kind: str, name: str | None = None) -> Process:
        """RunPod's Python worker with a handler of `python_worker.py`."""
        name = name or f"worker-{next(NUMBERS)}"
        base, home = f"{self.address}/v2/{ENDPOINT}", Path(self.folder.name, "home")
        home.mkdir(exist_ok=True)
        environment = {
            "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID?gpu=X", "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=X",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/$RUNPOD_POD_ID/$ID?gpu=X", "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID?gpu=X",
            "RUNPOD_PING_INTERVAL": "1000", "RUNPOD_AI_API_KEY": WORKER_KEY, "RUNPOD_POD_ID": name, "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true", "HOME": str(home), "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        worker = Process(f"{kind}-{name}", [sys.executable, str(HERE / "python_worker.py"), kind], environment, self.folder.name)
        self.workers.append(worker)
        return worker

    def idle_worker(self, kind: str, name: str | None = None) -> Process:
        """The same, once it waits for jobs."""
        worker = self.worker(kind, name)
        worker.says("Starting job acquisition")
        return worker

    @contextlib.contextmanager
    def scripted(self, work: Callable[[dict[str, Any]], Any], threads: int = 2) -> Iterator[None]:
        """Workers in this process, as far as clients can tell: `work` turns an input into an output, or yields its parts."""
        ended = threading.Event()
        workers = [threading.Thread(target=self._work, args=(f"scripted-{n}", work, ended), daemon=True) for n in range(threads)]
        for worker in workers:
            worker.start()
        try:
            yield
        finally:
            # Polls in the air end with the gateway.
            ended.set()

    def _work(self, name: str, work: Callable[[dict[str, Any]], Any], ended: threading.Event) -> None:
        base, session = f"{self.address}/v2/{ENDPOINT}", requests.Session()
        session.headers["Authorization"] = WORKER_KEY
        with contextlib.suppress(requests.ConnectionError):
            while not ended.is_set():
                taken = session.get(f"{base}/job-take/{name}?gpu=X&job_in_progress=0")
                if taken.status_code == 200:
                    job = taken.json()
                    for route, body in bodies(work, job["input"]):
                        session.post(f"{base}/{route}/{name}/{job['id']}?gpu=X&isStream=false", json=body)


def bodies(work: Callable[[dict[str, Any]], Any], asked: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a worker posts, and where; an exception is its job's failure."""
    try:
        made = work(asked)
        if isinstance(made, Iterator):
            yield from (("job-stream", {"output": part}) for part in made)
            made = []
        yield "job-done", {"output": made}
    except Exception as fault:
        # What was raised is JSON as it is, if it has more to say than a text.
        yield "job-done", {"error": fault.args[0]}
