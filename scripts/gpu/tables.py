"""Tables of what a run on a GPU found, as Markdown. What was not measured is said and never made up."""

import statistics
from collections.abc import Iterator

import estimate
from results import Results

NOT_MEASURED = "not measured"
OURS, ROWS, STREAM = "latentd", "latentd, several rows", "latentd, a stream of jobs"
EAGER, COMPILED = "diffusers", "diffusers, compiled"
TURBO, TURBO_EAGER, SDXL, REFINED = "SDXL Turbo", "diffusers, SDXL Turbo", "SDXL", "SDXL with refiner"
SDXL_STEPS = 20  # of a picture
GOALS = {"evaluation": 7.0, "image": 0.40, "rate": 4.0, "sdxl evaluation": 40.0, "sdxl rate": 1.3, "turbo": 0.6}  # ms, s, images a second, a ratio
PUBLISHED = {"evaluation": 9.56, "image": 0.572, "sdxl evaluation": 46.0}
CHOICES = {
    OURS: "as it is (`cuda.attention = \"flash\"`)", "graphs off": "`cuda.graphs = false`", "kernels off": "`cuda.kernels = false`",
    "attention cudnn": "`cuda.attention = \"cudnn\"`", "attention auto": "`cuda.attention = \"auto\"`",
}  # fmt: skip


def page(results: Results) -> Iterator[str]:
    """What docs/performance.md says of a GPU."""
    yield heading(results)
    yield ""
    yield from beside_diffusers(results)
    yield ""
    yield from side_by_side(results)
    yield ""
    yield from sdxl(results)
    yield ""
    yield from choices(results)
    yield ""
    yield from predictions(results)
    yield ""
    yield from correctness(results)
    missing = [f"{stage} ({line['fault']})" for stage, line in results.stages.items() if line["fault"]]
    if missing:
        yield f"\nWhat ended early, failed, or was left out: {'; '.join(missing)}."


def heading(results: Results) -> str:
    """On what, with what."""
    machine, build = results.found("machine") or {}, results.found("build") or {}
    card, packages = machine.get("card", {}), machine.get("packages", {})
    versions = ", ".join(f"{name} {packages[name]}" for name in ("torch", "diffusers", "transformers") if name in packages)
    return (
        f"{card.get('name', 'an unknown GPU')}, driver {card.get('driver_version', 'unknown')}, {machine.get('cores', '?')} cores of "
        f"{machine.get('processor', 'an unknown processor')}; {versions}; commit {build.get('commit', 'unknown')[:12]}, packed {build.get('packed', '')[:10]}. "
        "SD 1.5 in full size with random weights, f16, 512×512; medians with the least and the most:"
    )


def beside_diffusers(results: Results) -> Iterator[str]:
    """One picture, and jobs of all kinds."""
    ours, stream = results.found(OURS), results.found(STREAM)
    one = ours["latency"][0] if ours else None
    peers = [results.found(EAGER), results.found(COMPILED)]
    yield "| | latentd | diffusers | ratio | diffusers, compiled (`reduce-overhead`) | ratio |\n|---|---|---|---|---|---|"
    rows = [
        ("evaluation with guidance, ms", spread(one and one["evaluation"], 1e3), [listed(peer, "evaluation", 1e3) for peer in peers]),
        ("one image of 50 steps, s", spread(one and one["total"], 1), [listed(peer, "total", 1) for peer in peers]),
        ("decoding it, ms", spread(one and one["decode"], 1e3), [None, None]),
        ("images a minute of jobs of all kinds", single(stream and stream["stream"]["images_a_minute"]), [listed(peer, "images_a_minute", 1) for peer in peers]),
        ("ready, s", single(ours and ours["start"]["ready"]), [single(peer and peer["start"]["ready"]) for peer in peers]),
        ("GPU memory, MiB", single(ours and ours["memory"].get("device", 0) / 2**20), [single(peer and peer.get("device", 0) / 2**20) for peer in peers]),
    ]  # fmt: skip
    for name, value, theirs in rows:
        cells = [cell for one in theirs for cell in (shown(one), ratio(value, one))]
        yield f"| {name} | {shown(value)} | {' | '.join(cells)} |"
    if gpu := ours and ours.get("gpu"):
        kernels = "in use" if gpu["kernels"] else "NOT in use"
        yield f"\n{gpu['replayed']} of latentd's {gpu['evaluations']} evaluations were replays of CUDA graphs, its kernels were {kernels}."
    elif ours:
        yield "\nlatentd was WITHOUT its CUDA helper: no graphs, no kernels."


def side_by_side(results: Results) -> Iterator[str]:
    """Several pictures at once."""
    ours = several(results)
    yield "| side by side | rows | a step of all, ms | images of 50 steps a second |\n|---|---|---|---|"
    if not ours:
        yield f"| {NOT_MEASURED} | | | |"
    for rows in ours:
        step = rows["step"]["median"]
        rate = rows["images"] / (estimate.STEPS * step)
        yield f"| {rows['images']} | {2 * rows['images']} | {shown(spread(rows['step'], 1e3))} | {rate:.2f} |"


def sdxl(results: Results) -> Iterator[str]:
    """Pictures of SDXL, one at a time."""
    yield "| SDXL, one image | text, ms | an evaluation, ms | decode, ms | PNG in base64, ms | all of it, s |\n|---|---|---|---|---|---|"
    cases = [
        ("Turbo, one step at 512×512", TURBO, "latency"), ("the same by diffusers", TURBO_EAGER, None),
        ("base model, 20 steps at 1024×1024", SDXL, "latency"), ("base model and refiner, 25 steps and 15 at 1024×1024", REFINED, "latency"),
    ]  # fmt: skip
    for name, stage, latency in cases:
        found = results.found(stage)
        ours = found[latency][0] if found and latency else None
        stages = {"text": 1e3, "evaluation": 1e3, "decode": 1e3, "png": 1e3, "total": 1.0}
        cells = [shown(spread(ours[part], unit) if ours else listed(found, part, unit)) for part, unit in stages.items()]
        yield f"| {name} | {' | '.join(cells)} |"


def sdxl_goals(results: Results) -> Iterator[str]:
    """What SDXL is to reach."""
    base, turbo, theirs = results.found(SDXL), results.found(TURBO), results.found(TURBO_EAGER)
    steps = {rows["images"]: rows["step"]["median"] for rows in base["rows"]} if base else {}
    yield goal("SDXL, evaluation of 2 rows at 1024×1024, ms", "≤", GOALS["sdxl evaluation"], PUBLISHED["sdxl evaluation"], steps.get(1) and 1e3 * steps[1])
    rate = max((images / (SDXL_STEPS * step) for images, step in steps.items()), default=None)
    yield goal(f"SDXL, images of {SDXL_STEPS} steps a second", "≥", GOALS["sdxl rate"], None, rate)
    one = turbo and spread(turbo["latency"][0]["total"], 1)
    share = one[1] / listed(theirs, "total", 1)[1] if one and theirs else None
    yield goal("SDXL Turbo, one image by that of diffusers", "≤", GOALS["turbo"], None, share)


def several(results: Results) -> list[dict]:
    """Figures of several pictures at once: of the stage that measures no else, or what the first has of them."""
    found = results.found(ROWS) or results.found(OURS)
    return found["rows"] if found else []


def choices(results: Results) -> Iterator[str]:
    """What latentd chooses itself, and what else it could."""
    yield "| latentd | evaluation with guidance, ms | a step of 8 images, ms |\n|---|---|---|"
    for stage, name in CHOICES.items():
        found = results.found(stage)
        if found is None:
            yield f"| {name} | {NOT_MEASURED} | {NOT_MEASURED} |"
            continue
        eight = next((rows["step"] for rows in found["rows"] if rows["images"] == 8), None)
        yield f"| {name} | {shown(spread(found['latency'][0]['evaluation'], 1e3))} | {shown(spread(eight, 1e3))} |"


def predictions(results: Results) -> Iterator[str]:
    """What was predicted, beside what was measured."""
    ours, graphs = results.found(OURS), results.graphs()
    steps = {2 * rows["images"]: rows["step"]["median"] for rows in several(results)}
    yield "| SD 1.5, if no other | predicted | measured | measured by predicted |\n|---|---|---|---|"
    for unet, rows in estimate.CASES:
        if unet is estimate.SD15:
            predicted = 1e3 * estimate.evaluation(unet, rows).seconds
            yield compared(f"evaluation of {rows} rows, ms", predicted, steps.get(rows) and 1e3 * steps[rows])
    base = results.found(SDXL)
    measured = base and base["rows"][0]["step"]["median"]
    yield compared("SDXL at 1024×1024, evaluation of 2 rows, ms", 1e3 * estimate.evaluation(estimate.SDXL, 2).seconds, measured and 1e3 * measured)
    for number, rows in ((0, 2), (-1, 16)):
        graph = graphs[number] if len(graphs) > 1 else None
        predicted = estimate.evaluation(estimate.SD15, rows)
        yield compared(f"kernels, {rows} rows", predicted.kernels, graph and graph.kernels)
        for part, seconds in predicted.parts().items():
            yield compared(f"{part}, {rows} rows, ms", 1e3 * seconds, graph and graph.parts[part] / 1e3)
    yield ""
    yield "| goal | | best published | measured | |\n|---|---|---|---|---|"
    image = ours and ours["latency"][0]["total"]["median"]
    two, sixteen = steps.get(2), steps.get(16)
    yield goal("evaluation of 2 rows, ms", "≤", GOALS["evaluation"], PUBLISHED["evaluation"], two and 1e3 * two)
    yield goal("one image of 50 steps, s", "≤", GOALS["image"], PUBLISHED["image"], image)
    yield goal("images a second at 16 rows", "≥", GOALS["rate"], None, sixteen and 8 / (estimate.STEPS * sixteen))
    yield from sdxl_goals(results)


def correctness(results: Results) -> Iterator[str]:
    """Whether it drew what it should."""
    yield f"Every sampler, in f32, f16 and bf16, beside the processor: {results.devices() or NOT_MEASURED}."
    tests = results.all_of("kernel test")
    wrong = sum(test["wrong"] for test in tests)
    cases = sum(test["cases"] for test in tests)
    yield f"Kernels beside double precision: {f'{wrong} of {cases} cases wrong' if tests else NOT_MEASURED}."
    like = results.found("like diffusers")
    yield f"The picture beside that of diffusers: {like['decibels']:.1f} dB." if like else f"The picture beside that of diffusers: {NOT_MEASURED}."
    same = results.found("in turn the same")
    in_turn = f"{same['decibels']:.1f} dB, 99 for the same bytes" if same else NOT_MEASURED
    yield f"SDXL with its refiner on a GPU that cannot hold both, beside the picture of one that can: {in_turn}."


def in_short(results: Results) -> str:
    """What the README says of a GPU."""
    machine, ours = results.found("machine") or {}, results.found(OURS)
    if not ours:
        return f"On a GPU: {NOT_MEASURED}."
    one, peers = ours["latency"][0], [results.found(EAGER), results.found(COMPILED)]
    evaluations = [shown(listed(peer, "evaluation", 1e3), middle=True) for peer in peers]
    images = [shown(listed(peer, "total", 1), middle=True) for peer in peers]
    return (
        f"On an {machine.get('card', {}).get('name', 'unknown GPU')}, in f16, an evaluation of SD 1.5 at 512×512 with guidance takes "
        f"{1e3 * one['evaluation']['median']:.2f} ms (diffusers {evaluations[0]}, compiled {evaluations[1]}), and an image of 50 steps "
        f"{one['total']['median']:.3g} s ({images[0]} and {images[1]})."
    )


# The least, the median and the most.
Values = tuple[float, float, float] | None


def spread(found: dict | None, unit: float) -> Values:
    return (unit * found["min"], unit * found["median"], unit * found["max"]) if found else None


def listed(found: dict | None, name: str, unit: float) -> Values:
    """Of a peer's figures: a number, or one a round."""
    if not found or name not in found:
        return None
    values = found[name] if isinstance(found[name], list) else [found[name]]
    return unit * min(values), unit * statistics.median(values), unit * max(values)


def single(value: float | None) -> Values:
    return (value, value, value) if value else None


def shown(values: Values, middle: bool = False) -> str:
    if values is None:
        return NOT_MEASURED
    least, median, most = values
    return f"{median:.4g}" if middle or least == most else f"{median:.4g} ({least:.4g} to {most:.4g})"


def ratio(ours: Values, theirs: Values) -> str:
    return f"{ours[1] / theirs[1]:.2f}" if ours and theirs and theirs[1] else ""


def compared(name: str, predicted: float, measured: float | None) -> str:
    cells = f"{measured:.4g} | {measured / predicted:.2f}" if measured else f"{NOT_MEASURED} | "
    return f"| {name} | {predicted:.4g} | {cells} |"


def goal(name: str, sign: str, wanted: float, published: float | None, measured: float | None) -> str:
    if measured is None:
        return f"| {name} | {sign} {wanted:g} | {published or ''} | {NOT_MEASURED} | |"
    met = measured <= wanted if sign == "≤" else measured >= wanted
    return f"| {name} | {sign} {wanted:g} | {published or ''} | {measured:.3g} | {'met' if met else 'MISSED'} |"
