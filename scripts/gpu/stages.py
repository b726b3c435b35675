"""The stages of a run on a GPU, by what a second of it tells: first whether it draws at all and what one picture takes, last what explains it."""

import json
import os
import shutil
import sys
from pathlib import Path

from kit import Kit
from runner import Runner
from tables import SDXL_STEPS

STEPS = 50
SIZE = "512x512"
JOBS, AT_ONCE = 48, 16
KINDS = 6  # of the jobs of a stream, which come in turn
ON_THE_GPU = ["--device", "cuda", "--dtype", "f16"]
DRAWN = {"num_inference_steps": STEPS, "seed": 7, "scheduler": "DDIM", "guidance_scale": 7.5}  # as engine_peer.py draws it
# SDXL by its base model, with the refiner that goes on after 25 steps for 0.3 of 50, as in a job that says nothing; and Turbo, as its jobs are.
SDXL_SIZE, REFINED_STEPS = "1024x1024", 25
TURBO_SIZE, TURBO = SIZE, ["--set", "guidance_scale=0", "--set", "scheduler=EULER-A"]
SDXL_ROOM = 14 << 30  # bytes of weights
SMALL_GPU = 10 << 10  # MiB
# Rows of an evaluation: left to itself latentd takes what it finds to pay. 32 are two for each of 16 pictures.
USUAL_ROWS, MOST_ROWS = {"LATENTD_CUDA__ROWS": "16"}, {"LATENTD_CUDA__ROWS": "32"}
# What is drawn before it is measured is ready by that.
NOT_WARMED_UP = {"LATENTD_CUDA__WARM_UP": "off"}


class Stages:
    """One after the other, with what they share."""

    def __init__(self, run: Runner, kit: Kit) -> None:
        self.run, self.kit = run, kit
        self.picture = run.out / "diffusers.png"

    def all(self) -> None:
        """In the order of their worth."""
        for part in (self.life, self.speed, self.rows, self.why, self.correctness, self.sdxl, self.choices, self.compiled, self.probes):
            try:
                part()
            except Exception as cause:  # noqa: BLE001: what is wrong with one must not cost the others
                self.run.skip(part.__name__, f"a bug of the run's own: {cause!r}")

    def python(self, script: str, *words: object) -> list[object]:
        """A script of the project's."""
        return [sys.executable, "-W", "ignore", self.kit.script(script), *words]

    def bench(self, name: str, seconds: float, *words: object, model: Path | None = None, **environment: str) -> list[dict]:
        """latentd's own figures of a model in full size with random weights, SD 1.5 if no other."""
        model = model or self.kit.weights
        if not model.exists():
            self.run.skip(name, "there are no weights")
            return []
        said = [self.kit.latentd, "bench", "--json", "--model", model, *ON_THE_GPU, "--no-rates", *words]
        return self.run.stage(name, seconds, said, {**self.kit.environment, **environment}, alone=True)

    def life(self) -> None:
        """Whether it draws at all; what takes long and needs no quiet begins here."""
        run, kit = self.run, self.kit
        run.stage("machine", 30, self.python("gpu/machine.py"), kit.environment)
        run.beside("weights", self.python("parity/sd15.py", kit.weights), kit.environment)
        drawn = ["--set", "num_inference_steps=12", "--set", "width=256", "--set", "height=256"]
        words = [kit.latentd, "run", "a red apple", "--model", kit.miniature, *ON_THE_GPU, *drawn, "--out", kit.work / "miniature"]
        run.stage("one picture", 60, words, {**kit.environment, "LATENTD_LOG__LEVEL": "debug"})
        run.stage("kernel test", 60, [kit.kernel_test], kit.environment)
        # What the processor draws in f32 is drawn on cores that the weights leave: threads that wait for a core make it many times as long.
        cores = str(min(4, max(1, len(os.sched_getaffinity(0)) // 2)))
        run.beside("devices", [kit.devices, kit.miniature, "--gpus"], {**kit.environment, "OMP_NUM_THREADS": cores})
        run.stage("ceilings", 40, self.python("gpu/probe", "ceilings"), kit.environment, alone=True)
        if not run.join("weights", 90):
            shutil.rmtree(kit.weights, ignore_errors=True)  # half of them are none

    def speed(self) -> None:
        """The first table: one picture, eight at once, jobs of all kinds, and diffusers as it is."""
        self.bench("latentd", 70, "--size", SIZE, "--steps", str(STEPS), "--rounds", "3", "--images", "1,8", "--jobs", "0", **USUAL_ROWS, **NOT_WARMED_UP)
        words = ["--size", SIZE, "--steps", "20", "--rounds", "1", "--images", "1", "--jobs", str(JOBS), "--at-once", str(AT_ONCE)]
        stream = self.bench("latentd, a stream of jobs", 70, *words)
        jobs = self.kit.work / "jobs.json"
        asked = stream[-1].get("stream", {}).get("jobs", []) if stream else []
        jobs.write_text(json.dumps(asked[: 2 * KINDS]), encoding="utf-8")
        self.peer("diffusers", 90, "eager", "--job-file", jobs, "--picture", self.picture)
        self.like_diffusers()

    def rows(self) -> None:
        """Several pictures at once, to more than are usual."""
        words = ["--size", SIZE, "--steps", "20", "--rounds", "2", "--images", "1,2,4,8,16", "--jobs", "0"]
        self.bench("latentd, several rows", 70, *words, **MOST_ROWS, **NOT_WARMED_UP)

    def peer(self, name: str, seconds: float, *words: object, model: Path | None = None, steps: int = STEPS) -> None:
        """diffusers on the same weights."""
        peer, *more = words
        model = model or self.kit.weights
        asked = ["--size", SIZE, "--steps", steps, "--rounds", 3, "--dtype", "f16", "--device", "cuda", *more]
        if not model.exists():
            self.run.skip(name, "there are no weights")
            return
        self.run.stage(name, seconds, self.python("bench/engine_peer.py", peer, model, *asked), self.kit.environment, alone=True)

    def like_diffusers(self) -> None:
        """Whether the picture that both draw is one."""
        run, kit, ours = self.run, self.kit, self.kit.work / "ours"
        if not self.picture.exists():
            run.skip("like diffusers", "there is no picture by diffusers")
            return
        asked = [word for key, value in DRAWN.items() for word in ("--set", f"{key}={value}")]
        words = [kit.latentd, "run", "a red apple", "--model", kit.weights, *ON_THE_GPU, *asked, "--out", ours]
        run.stage("the same picture", 40, words, kit.environment)
        run.stage("like diffusers", 20, self.python("gpu/likeness.py", ours, self.picture), kit.environment)

    def why(self) -> None:
        """Which kernels an evaluation consists of, and how long each takes."""
        environment = {"CUDA_INJECTION64_PATH": str(self.kit.tracer), "TRACE_OUT": str(self.run.out / "trace.tsv"), **NOT_WARMED_UP}
        self.bench("trace", 60, "--size", SIZE, "--steps", "30", "--rounds", "1", "--images", "1,8", "--jobs", "0", **environment)

    def choices(self) -> None:
        """What each of latentd's own choices brings."""
        words = ["--size", SIZE, "--steps", str(STEPS), "--rounds", "2", "--images", "1,8", "--jobs", "0"]
        self.bench("graphs off", 50, *words, LATENTD_CUDA__GRAPHS="false", **USUAL_ROWS, **NOT_WARMED_UP)
        self.bench("kernels off", 50, *words, LATENTD_CUDA__KERNELS="false", **USUAL_ROWS, **NOT_WARMED_UP)
        self.bench("attention cudnn", 60, *words, LATENTD_CUDA__ATTENTION="cudnn", **USUAL_ROWS, **NOT_WARMED_UP)
        self.bench("attention auto", 60, *words, LATENTD_CUDA__ATTENTION="auto", **USUAL_ROWS)  # which measures while it warms up

    def correctness(self) -> None:
        """Every sampler in every kind of numbers, beside what fills the compiler's cache for diffusers; neither is timed."""
        if self.kit.weights.exists() and self.run.left() > 120:
            asked = ["--size", SIZE, "--steps", 3, "--rounds", 1, "--dtype", "f16", "--device", "cuda", "--mode", "reduce-overhead"]
            self.run.beside("compilation", self.python("bench/engine_peer.py", "compiled", self.kit.weights, *asked), self.kit.environment)
        if sanitizer := shutil.which("compute-sanitizer"):
            self.run.stage("memory errors", 40, [sanitizer, "--tool", "memcheck", self.kit.kernel_test], self.kit.environment)
        else:
            self.run.skip("memory errors", "there is no compute-sanitizer")
        self.sdxl_weights()
        self.run.join("devices", 150)
        self.run.join("compilation", 90)

    def sdxl_weights(self) -> None:
        """Begins to write those of SDXL, beside what is not timed."""
        run, kit = self.run, self.kit
        if shutil.disk_usage(kit.work).free < SDXL_ROOM or run.left() < 120:
            return
        run.beside("SDXL weights", self.python("parity/sdxl.py", kit.sdxl), kit.environment)
        run.beside("refiner weights", self.python("parity/sdxl.py", kit.refiner, "--refiner"), kit.environment)

    def sdxl(self) -> None:
        """SDXL: Turbo beside diffusers, the base model to eight pictures at once, and with its refiner."""
        run, kit = self.run, self.kit
        for name, folder in (("SDXL weights", kit.sdxl), ("refiner weights", kit.refiner)):
            if not run.join(name, 60):
                shutil.rmtree(folder, ignore_errors=True)
        if kit.sdxl.exists():
            run.stage("Turbo weights", 30, self.python("parity/sdxl.py", kit.turbo, "--turbo-of", kit.sdxl), kit.environment)
        alone = ["--images", "1", "--jobs", "0", "--rounds", "3"]
        self.bench("SDXL Turbo", 50, "--size", TURBO_SIZE, "--steps", "1", *TURBO, *alone, model=kit.turbo, **NOT_WARMED_UP)
        self.peer("diffusers, SDXL Turbo", 50, "eager", *TURBO, model=kit.turbo, steps=1)
        words = ["--size", SDXL_SIZE, "--steps", str(SDXL_STEPS), "--images", "1,8", "--jobs", "0", "--rounds", "2"]
        self.bench("SDXL", 70, *words, model=kit.sdxl, **USUAL_ROWS, **NOT_WARMED_UP)
        if not kit.refiner.exists():
            run.skip("SDXL with refiner", "there are no weights")
            return
        refined = ["--refiner", kit.refiner, "--size", SDXL_SIZE, "--steps", str(REFINED_STEPS), *alone]
        self.bench("SDXL with refiner", 60, *refined, model=kit.sdxl, **NOT_WARMED_UP)
        self.in_turn()

    def in_turn(self) -> None:
        """SDXL and its refiner on a GPU that holds but one of them: parts come in turn, and the picture is the same."""
        run, kit = self.run, self.kit
        refined = [kit.latentd, "run", "a red apple", "--model", kit.sdxl, "--refiner", kit.refiner, *ON_THE_GPU, "--set", "seed=7"]
        whole, in_turn = kit.work / "whole", kit.work / "in-turn"
        run.stage("SDXL as a whole", 40, [*refined, "--out", whole], kit.environment)
        run.stage("SDXL in turn", 60, self.python("gpu/occupy.py", SMALL_GPU, *refined, "--out", in_turn), kit.environment)
        run.stage("in turn the same", 20, self.python("gpu/likeness.py", whole, in_turn), kit.environment)

    def compiled(self) -> None:
        """diffusers, compiled: with what the limit of a run allows, which is not max-autotune."""
        self.peer("diffusers, compiled", 110, "compiled", "--mode", "reduce-overhead")

    def probes(self) -> None:
        """What else libtorch offers for the shapes of an evaluation."""
        for part in ("attention", "kernels", "convolutions", "products"):
            self.run.stage(f"probe {part}", 45, self.python("gpu/probe", part), self.kit.environment, alone=True)
        self.run.stage("machine afterwards", 20, self.python("gpu/machine.py"), self.kit.environment)


def build_of(packed: Path) -> dict:
    """What was packed, by what."""
    build = json.loads((packed / "build.json").read_text(encoding="utf-8"))
    return {**build, "rehearsal": "REHEARSAL" in os.environ}
