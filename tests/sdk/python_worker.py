"""RunPod's Python worker with one of these handlers, by the name in the first argument. The tests of workers start it."""

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import runpod
from runpod.serverless.modules.rp_fitness import register_fitness_check

RETURNS: dict[str, Any] = {
    "object": {"a": 1}, "text": "ünicode", "true": True, "list": [1, [2]], "null": None, "empty": {}, "nested": {"output": {"a": 1}},
    "error": {"error": "m"}, "errors and more": {"error": ["e1", "e2"], "keep": 1}, "no error": {"error": "", "r": 1}, "not a number": {"x": float("nan")},
    "refresh": {"refresh_worker": True, "r": 1}, "error and refresh": {"error": "bye", "refresh_worker": True}, "no JSON": {"x": b"bytes"},
}  # fmt: skip


def plain(job: dict[str, Any]) -> Any:
    """Returns, raises, or tells of its progress."""
    case = job["input"].get("case")
    if case == "raise":
        raise ValueError("what was raised")
    if case == "whole job":
        return job
    if case in {"progress", "late progress"}:
        late = threading.Timer(1, runpod.serverless.progress_update, (job, {"step": 1}))
        late.start()
        if case == "progress":
            late.join()
            time.sleep(2)
        return "done"
    time.sleep(job["input"].get("sleep", 0))
    return RETURNS[case]


async def patient(job: dict[str, Any]) -> Any:
    """Sleeps, says when it began and ended, and leaves a file if it is stopped. The first to try a job that names a `once` sleeps long."""
    asked, began = job["input"], time.time()
    once = Path(asked["once"]) if "once" in asked else None
    long = once is not None and not once.exists()
    if long:
        once.touch()
    try:
        await asyncio.sleep(60 if long else asked.get("sleep", 0))
    except asyncio.CancelledError:
        Path(f"stopped-{job['id']}").touch()
        raise
    return {"began": began, "ended": time.time(), "first": long}


def parts(job: dict[str, Any]) -> Iterator[Any]:
    """Yields numbers, and then what its input names."""
    yield from range(job["input"]["count"])
    match job["input"].get("then"):
        case "raise":
            raise ValueError("in the middle")
        case "error":
            yield {"error": "said in the middle", "lost": 1}


async def async_parts(job: dict[str, Any]) -> AsyncIterator[Any]:
    """The same, with pauses."""
    for part in parts(job):
        await asyncio.sleep(0.01)
        yield part


def is_unfit() -> None:
    """A check that fails."""
    raise RuntimeError("no disk")


CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {"handler": plain, "concurrency_modifier": lambda _: 32},
    "one": {"handler": plain},
    "unfit": {"handler": plain},
    "patient": {"handler": patient},
    "three": {"handler": patient, "concurrency_modifier": lambda _: 3},
    "two": {"handler": patient, "concurrency_modifier": lambda _: 2},
    "fresh": {"handler": patient, "refresh_worker": True},
    "parts": {"handler": parts},
    "all parts": {"handler": parts, "return_aggregate_stream": True},
    "async parts": {"handler": async_parts, "return_aggregate_stream": True},
}

if __name__ == "__main__":
    kind = sys.argv.pop(1)
    if kind == "unfit":
        register_fitness_check(is_unfit)
    runpod.serverless.start(CONFIGS[kind])
