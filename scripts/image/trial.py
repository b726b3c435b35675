"""Runs an unpacked image as a container engine would: its user, folder, variables and command, in namespaces of its own.

    trial.py ROOT FILE        FILE: what `buildah inspect` says of it

A worker gets one job from a queue on loopback; a gateway takes one in, is ended, and has it when it is started again. Fails unless that is
so, the health check agrees, and SIGTERM ends it with 0.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

JOB = {"id": "trial-1", "input": {"prompt": "a red apple", "width": 256, "height": 256, "num_inference_steps": 4, "seed": 7}}


class Queue(ThreadingHTTPServer):
    """A queue with one job."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Asked)
        self.left, self.result, self.came = [JOB], None, threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Asked(BaseHTTPRequestHandler):
    """A request of the worker."""

    server: Queue

    def do_GET(self) -> None:
        """A take, a stop or a heartbeat."""
        if "job-take" in self.path and self.server.left:
            job = self.server.left.pop()
            self.answer(200, [job] if "job-take-batch" in self.path else job)
        elif "job-take" in self.path or "job-stop" in self.path:
            time.sleep(1)
            self.answer(204)
        else:
            self.answer(200)

    def do_POST(self) -> None:
        """Progress, or the end of the job."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body.get("status") != "IN_PROGRESS":
            self.server.result = body
            self.server.came.set()
        self.answer(200, {})

    def answer(self, status: int, body: object = None) -> None:
        """Sends a status, and JSON if there is any."""
        text = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        if text:
            self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Nothing: what matters is printed."""


class Image:
    """An unpacked image and how it says that it is started."""

    def __init__(self, root: str, config: dict) -> None:
        self.root, self.config, self.started = root, config, []
        self.user = next(line.split(":")[2] for line in open(f"{root}/etc/passwd") if line.startswith(config["User"] + ":"))

    def start(self, command: list[str], **more: str) -> subprocess.Popen:
        """Starts a command as the image's user, with its variables and `more`, where its root is the only one and /proc its own."""
        variables = dict(entry.split("=", 1) for entry in self.config["Env"]) | more
        inner = ["chroot", f"--userspec={self.user}:{self.user}", self.root, "env", "-i", f"--chdir={self.config['WorkingDir']}"]
        named = [f"{name}={value}" for name, value in variables.items()]
        outer = f'mount -t proc proc "{self.root}/proc"; exec "$@"'
        spaces = ["unshare", "--pid", "--fork", "--mount", "--kill-child", "sh", "-c", outer, "sh"]
        self.started.append(subprocess.Popen([*spaces, *inner, *named, *command]))
        return self.started[-1]


def child_of(process: subprocess.Popen) -> int:
    """Process 1 of the namespace."""
    return int(open(f"/proc/{process.pid}/task/{process.pid}/children").read().split()[0])


def end(image: Image, process: subprocess.Popen, **more: str) -> None:
    """Asks the health check and ends what runs."""
    check = image.config["Healthcheck"]["Test"]
    assert check[0] == "CMD", check
    # Where the trial has it listen, instead of where the image does.
    command = [more.get("LATENTD_LISTEN", word) if ":" in word else word for word in check[1:]]
    healthy = lambda: image.start(command, **more).wait(20)
    assert healthy() == 0, "the health check says that it is of no use"
    os.kill(child_of(process), signal.SIGTERM)
    assert process.wait(60) == 0, f"after SIGTERM it ended with {process.returncode}"
    assert healthy() != 0, "the health check passes when nothing runs"


def gateway(image: Image) -> None:
    """The trial of a gateway."""
    at = {"LATENTD_LISTEN": "127.0.0.1:18000"}
    job = None
    for _ in range(2):
        began = time.monotonic()
        process = image.start([*image.config["Entrypoint"], *image.config["Cmd"]], **at)
        while answers("/healthz") is None:
            assert time.monotonic() - began < 30 and process.poll() is None, "no gateway after half a minute"
            time.sleep(0.02)
        print(f"image: answers after {time.monotonic() - began:.2f} s")
        job = job or answers("/v2/stable-diffusion-v1/run", {"input": JOB["input"]})["id"]
        assert answers(f"/v2/stable-diffusion-v1/status/{job}")["status"] == "IN_QUEUE"
        end(image, process, **at)
    print(f"image: a job outlived its gateway, healthy, ended on SIGTERM as process 1 and user {image.user}")


def answers(path: str, body: object = None) -> dict | None:
    """What the gateway answers, or nothing."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:18000{path}", data), timeout=10) as answer:
            text = answer.read()
            return json.loads(text) if text.startswith(b"{") else {}
    except ConnectionError:
        return None
    except urllib.error.URLError as fault:
        if isinstance(fault.reason, ConnectionError):
            return None
        raise


def worker(image: Image) -> None:
    """The trial of a worker."""
    queue, at = Queue(), {"LATENTD_ADMIN__LISTEN": "127.0.0.1:19090"}
    began = time.monotonic()
    command = [*image.config["Entrypoint"], *image.config["Cmd"]]
    process = image.start(command, LATENTD_QUEUE=f"http://127.0.0.1:{queue.server_port}/v2/trial", **at)
    assert queue.came.wait(120), "no result after two minutes"
    print(f"image: first result after {time.monotonic() - began:.2f} s")
    assert "error" not in queue.result, queue.result["error"]
    picture = base64.b64decode(queue.result["output"][0]["image"])
    assert picture.startswith(b"\x89PNG"), picture[:8]
    end(image, process, **at)
    print(f"image: a job of {len(picture)} bytes of PNG, healthy, drained on SIGTERM as process 1 and user {image.user}")


def main(root: str, config: dict) -> None:
    """The trial of what the image starts."""
    image = Image(root, config)
    try:
        {"worker": worker, "gateway": gateway}[config["Cmd"][0]](image)
    finally:
        # A trial that fails leaves nothing behind; with `unshare` its child ends.
        for process in image.started:
            process.kill()


if __name__ == "__main__":
    main(sys.argv[1], json.load(open(sys.argv[2]))["Docker"]["config"])
