"""The work that tests of clients ask for, the same for all of them."""

import time
from collections.abc import Iterator
from typing import Any


def work(asked: dict[str, Any]) -> Any:
    """Does what its input says: `say` comes back, `sleep` takes time, `parts` are streamed, `fail` is raised."""
    time.sleep(asked.get("sleep", 0))
    if "fail" in asked:
        raise RuntimeError(asked["fail"])
    if "parts" in asked:
        return parts(asked["parts"])
    return asked.get("say", asked)


def parts(count: int) -> Iterator[dict[str, int]]:
    """So many, with time between them."""
    for number in range(count):
        time.sleep(0.05)
        yield {"part": number}
