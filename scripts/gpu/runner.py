"""Runs stages one after the other, each for so long and no longer, and writes down what each found as soon as it has ended."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

GRACE = 3.0  # seconds from asking a process to end until it is made to
TOLD = 6  # last lines of a program that failed
DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


@dataclass
class Beside:
    """A stage that runs beside others."""

    name: str
    began: float
    process: subprocess.Popen
    output: Path


class Runner:
    """The stages of a run, and where their results go: `results.jsonl`, a line a stage, and `log`."""

    def __init__(self, out: Path, limit: float) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.limit, self.began = out, limit, time.monotonic()
        self.log: IO[bytes] = open(out / "log", "ab", buffering=0)
        self.besides: list[Beside] = []
        self.processes: list[subprocess.Popen] = []
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self.ended)

    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.began

    def left(self) -> float:
        """Seconds until it must be done."""
        return self.limit - self.elapsed()

    def say(self, text: str) -> None:
        """To whoever watches, and into the log."""
        print(text, flush=True)
        self.log.write(f"{text}\n".encode())

    def stage(self, name: str, seconds: float, words: list[Any], environment: dict[str, str] | None = None, alone: bool = False) -> list[dict]:
        """What a program found: the lines of JSON that it printed. Others wait meanwhile if it has to be `alone`, because it is timed."""
        seconds = min(seconds, self.left())
        if seconds < 1:
            self.skip(name, "no time was left")
            return []
        self.say(f"== {self.elapsed():4.0f} s: {name}")
        began, start = time.monotonic(), self.log.tell()
        if alone:
            self.signal_besides(signal.SIGSTOP)
        try:
            fault = self.finished(self.start(words, environment, self.log), seconds)
        except OSError as cause:
            fault = f"does not start: {cause}"
        finally:
            if alone:
                self.signal_besides(signal.SIGCONT)
        output = (self.out / "log").read_bytes()[start:]
        self.write(name, began, fault, objects(output), last_lines(output))
        return objects(output)

    def beside(self, name: str, words: list[Any], environment: dict[str, str] | None = None) -> None:
        """Begins a stage that needs no quiet and goes on beside the others, until it is finished by `join`."""
        self.say(f"== {self.elapsed():4.0f} s: {name}, beside what follows")
        output = self.out / f"{name.replace(' ', '-')}.log"
        with open(output, "wb") as file:
            self.besides.append(Beside(name, time.monotonic(), self.start(words, environment, file), output))

    def join(self, name: str, seconds: float) -> bool:
        """Waits for a stage that runs beside; whether it ended well."""
        one = next((one for one in self.besides if one.name == name), None)
        if one is None:
            return False
        self.say(f"== {self.elapsed():4.0f} s: waiting for {name}")
        self.besides.remove(one)
        fault = self.finished(one.process, max(1.0, min(seconds, self.left())))
        output = one.output.read_bytes()
        self.write(name, one.began, fault, objects(output), last_lines(output))
        return fault is None

    def skip(self, name: str, why: str) -> None:
        """Notes that a stage was not run."""
        self.write(name, time.monotonic(), why, [])

    def note(self, name: str, found: dict) -> None:
        """Notes what is known without a program."""
        self.write(name, time.monotonic(), None, [found])

    def start(self, words: list[Any], environment: dict[str, str] | None, output: IO[bytes]) -> subprocess.Popen:
        """A program in a session of its own, so that it can be stopped with all that it starts. It ends with the run, however that ends."""
        every = {**os.environ, **(environment or {})}
        said, pipes = [str(word) for word in words], {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(said, env=every, start_new_session=True, preexec_fn=die_with_parent, **pipes)
        self.processes.append(process)
        return process

    def finished(self, process: subprocess.Popen, seconds: float) -> str | None:
        """Waits for a program, or ends it; what was wrong."""
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            end(process)
            return f"ended after {seconds:.0f} s"
        return None if code == 0 else f"exit code {code}"

    def signal_besides(self, number: int) -> None:
        """Has what runs beside wait, or go on."""
        for one in self.besides:
            send(one.process, number)

    def write(self, name: str, began: float, fault: str | None, found: list[dict], output: str = "") -> None:
        """A line of results, on the disk at once."""
        line = {"stage": name, "at": round(began - self.began, 1), "seconds": round(time.monotonic() - began, 1), "fault": fault, "found": found}
        with open(self.out / "results.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if fault:
            self.say(f"!! {name}: {fault}{output}")

    def close(self) -> None:
        """Ends what still runs beside."""
        for one in list(self.besides):
            self.join(one.name, 0)
        self.say(f"== {self.elapsed():4.0f} s in all")

    def ended(self, *_: object) -> None:
        """The run is told to end: so are its programs. What was found until now is written."""
        for process in self.processes:
            send(process, signal.SIGKILL)
        sys.exit(143)


LIBC = ctypes.CDLL(None)


def die_with_parent() -> None:
    """In a program that is about to begin: a run that is killed must leave nothing that keeps the GPU busy."""
    LIBC.prctl(DIES_WITH_PARENT, signal.SIGKILL)


def objects(output: bytes) -> list[dict]:
    """The lines of an output that are objects of JSON."""
    found = []
    for line in output.decode(errors="replace").splitlines():
        if line.startswith("{"):
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


def last_lines(output: bytes) -> str:
    """Of a program that failed: most say there why."""
    return "".join(f"\n     | {line[:300]}" for line in output.decode(errors="replace").splitlines()[-TOLD:])


def end(process: subprocess.Popen) -> None:
    """Asks a program and all that it started to end, then makes them."""
    send(process, signal.SIGTERM)
    send(process, signal.SIGCONT)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        pass
    send(process, signal.SIGKILL)
    process.wait()


def send(process: subprocess.Popen, number: int) -> None:
    """A signal to a program and all that it started."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass
