"""Runs an unpacked image as a container engine would: its user, folder, variables and command, in namespaces of its own.

    trial.py ROOT CONFIG        CONFIG: the image's configuration, as JSON

Hands it one job from a queue on loopback. Fails unless the health check agrees, the picture comes, and SIGTERM ends it with 0.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
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
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Nothing: what matters is printed."""


class Image:
    """An unpacked image and how it says that it is started."""

    def __init__(self, root: str, config: dict) -> None:
        self.root, self.config = root, config
        self.user = next(line.split(":")[2] for line in open(f"{root}/etc/passwd") if line.startswith(config["User"] + ":"))

    def start(self, command: list[str], **more: str) -> subprocess.Popen:
        """Starts a command as the image's user, with its variables and `more`, where its root is the only one and /proc its own."""
        variables = dict(entry.split("=", 1) for entry in self.config["Env"]) | more
        inner = ["chroot", f"--userspec={self.user}:{self.user}", self.root, "env", "-i", f"--chdir={self.config['WorkingDir']}"]
        named = [f"{name}={value}" for name, value in variables.items()]
        outer = f'mount -t proc proc "{self.root}/proc"; exec "$@"'
        spaces = ["unshare", "--pid", "--fork", "--mount", "--kill-child", "sh", "-c", outer, "sh"]
        return subprocess.Popen([*spaces, *inner, *named, *command])


def child_of(process: subprocess.Popen) -> int:
    """Process 1 of the namespace."""
    return int(open(f"/proc/{process.pid}/task/{process.pid}/children").read().split()[0])


def main(root: str, config: dict) -> None:
    """The trial."""
    image, queue = Image(root, config), Queue()
    began = time.monotonic()
    worker = image.start([*config["Entrypoint"], *config["Cmd"]], LATENTD_QUEUE=f"http://127.0.0.1:{queue.server_port}/v2/trial", LATENTD_ADMIN__LISTEN="127.0.0.1:19090")
    assert queue.came.wait(120), "no result after two minutes"
    print(f"image: first result after {time.monotonic() - began:.2f} s")
    assert "error" not in queue.result, queue.result["error"]
    picture = base64.b64decode(queue.result["output"][0]["image"])
    assert picture.startswith(b"\x89PNG"), picture[:8]
    check = config["Healthcheck"]["Test"]
    assert check[0] == "CMD", check
    healthy = lambda: image.start(check[1:], LATENTD_ADMIN__LISTEN="127.0.0.1:19090").wait(20)
    assert healthy() == 0, "the health check says that the worker is of no use"
    os.kill(child_of(worker), signal.SIGTERM)
    assert worker.wait(60) == 0, f"after SIGTERM it ended with {worker.returncode}"
    assert healthy() != 0, "the health check passes without a worker"
    print(f"image: a job of {len(picture)} bytes of PNG, healthy, drained on SIGTERM as process 1 and user {image.user}")


if __name__ == "__main__":
    main(sys.argv[1], json.load(open(sys.argv[2])))
