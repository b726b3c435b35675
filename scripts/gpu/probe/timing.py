"""How long something takes on the GPU, random tensors, and how far off a result is."""

import statistics
from collections.abc import Callable

import torch
from torch import Tensor

CALLS = 10  # in a graph, so that what surrounds a call does not count


def microseconds(work: Callable[[], object], rounds: int = 15, as_graph: bool = True) -> float:
    """Median of one call of `work`."""
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    run = graph_of(work) if as_graph else lambda: [work() for _ in range(CALLS)]
    run()
    torch.cuda.synchronize()
    times = []
    for _ in range(rounds):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3 / CALLS)
    return statistics.median(times)


def graph_of(work: Callable[[], object]) -> Callable[[], object]:
    """A graph of several calls."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            work()
    return graph.replay


def random(*shape: int, dtype: torch.dtype = torch.half) -> Tensor:
    """Normal numbers on the GPU."""
    return torch.randn(*shape, device="cuda").to(dtype)


def image(*shape: int, dtype: torch.dtype = torch.half) -> Tensor:
    """The same, channels last."""
    return random(*shape, dtype=dtype).to(memory_format=torch.channels_last)


def deviation(found: Tensor, expected: Tensor) -> float:
    """The norm of the difference by that of what is expected."""
    expected = expected.double()
    return float(((found.double() - expected).norm() / expected.norm()).item())
