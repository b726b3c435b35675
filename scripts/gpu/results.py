"""What a run on a GPU noted."""

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

# Which part of an evaluation a kernel belongs to, by the first that its name matches.
PARTS = {
    "attention": r"flash|fmha|attention|sdpa",
    "norms": r"norm|Measure|Normalise",
    "convolutions": r"conv|fprop|dgrad|winograd|cudnn",
    "products": r"gemm|nvjet|cutlass|splitk|cublas",
    "passes": "",
}
REPLAYS = 10  # of a graph that was measured; others were replayed in passing


@dataclass
class Graph:
    """An evaluation by its kernels, in microseconds."""

    span: float = 0.0
    kernels: float = 0.0
    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))


class Results:
    """The stages of a run."""

    def __init__(self, out: Path) -> None:
        lines = (out / "results.jsonl").read_text(encoding="utf-8").splitlines()
        self.out = out
        self.stages = {line["stage"]: line for line in map(json.loads, lines)}

    def found(self, stage: str) -> dict | None:
        """What a stage found last, if it ended well."""
        line = self.stages.get(stage)
        return line["found"][-1] if line and not line["fault"] and line["found"] else None

    def all_of(self, stage: str) -> list[dict]:
        """All that a stage found before it ended, however it did."""
        return self.stages[stage]["found"] if stage in self.stages else []

    def why(self, stage: str) -> str | None:
        """Why a stage found nothing, or not all."""
        if stage not in self.stages:
            return "the run ended before it"
        return self.stages[stage]["fault"]

    def is_rehearsal(self) -> bool:
        """Whether there was no GPU."""
        build, machine = self.found("build") or {}, self.found("machine") or {}
        name = machine.get("card", {}).get("name", "")
        return bool(build.get("rehearsal")) or "rehearsal" in name or "imaginary" in name

    def graphs(self) -> list[Graph]:
        """Of the evaluations that were traced, the fewest rows first."""
        trace = self.out / "trace.tsv"
        found: dict[str, Graph] = defaultdict(Graph)
        for line in trace.read_text(encoding="utf-8").splitlines() if trace.exists() else []:
            columns = line.split("\t")
            if line.startswith("#") or columns[0] == "0" or float(columns[1]) < REPLAYS:
                continue
            graph, name = found[columns[0]], columns[-1]
            part = next(part for part, pattern in PARTS.items() if re.search(pattern, name, re.IGNORECASE))
            graph.span = float(columns[2])
            graph.kernels += float(columns[3])
            graph.parts[part] += float(columns[4])
        return sorted(found.values(), key=lambda graph: graph.span)

    def devices(self) -> str | None:
        """What came of the comparison with the processor, in words."""
        log = self.out / "devices.log"
        rows = [line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("cuda:")] if log.exists() else []
        failed = [row for row in rows if "FAILED" in row]
        if not rows:
            return None
        return f"{len(rows) - len(failed)} of {len(rows)} ways to draw every sampler's pictures gave what the processor draws" + "".join(
            f"; failed: {' '.join(row.split())}" for row in failed
        )
