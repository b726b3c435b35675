"""The training loop. It can be killed at any moment and goes on from its last checkpoint."""

import copy
import json
import os
import random
import time
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from config import Config
from latents import Store
from model import STEPS, Painter, kept, tokens
from pictures import Thing, caption
from sheet import draw_sheet, sheet_prompts

REPORT = 50  # steps between two lines of the log
BANDS = 4  # of noise, whose losses are told apart
WHITE_SHARE = 0.6  # of grounds
LOOKS_SHARE = 0.05  # what attention astray counts for, beside the weighted errors


class Batches:
    """Step by step the pictures, captions and noise of a batch; the same step gets the same batch after a restart."""

    def __init__(self, config: Config, things: list[Thing], tokenizer: CLIPTokenizer, store: Store) -> None:
        self.config, self.things, self.tokenizer, self.store = config, things, tokenizer, store
        self.device = store.pictures.device
        self.kept = kept(config, self.device)

    def at(self, step: int) -> dict[str, Tensor]:
        """Latents with noise, the noise, how much of each, tokens, and those of no text."""
        rng = random.Random(f"{self.config.seed} {step}")
        width, height, *_ = rng.choices(self.config.train.sizes, shares(self.config, step * self.config.train.batch))[0]
        latents, colours = self.store.at(width, height), self.store.colours
        things = self.deal(step)
        grounds = [0 if rng.random() < WHITE_SHARE else rng.randrange(len(colours[thing])) for thing in things]
        texts = [
            "" if rng.random() < self.config.train.empty else caption(self.things[thing], colours[thing][ground], rng) for thing, ground in zip(things, grounds)
        ]
        clean = latents[torch.tensor(things), torch.tensor(grounds)].float()
        ids, empty = (tokens(self.tokenizer, asked).to(self.device) for asked in (texts, [""] * len(texts)))
        return {"ids": ids, "empty": empty, **self.noised(clean, rng)}

    def deal(self, step: int) -> list[int]:
        """The next things of a pack of all that is shuffled again each time it is through."""
        count, batch = len(self.things), self.config.train.batch
        dealt = []
        for place in range(step * batch, (step + 1) * batch):
            turn, place = divmod(place, count)
            if not dealt or place == 0:
                pack = random.Random(f"{self.config.seed} pack {turn}").sample(range(count), count)
            dealt.append(pack[place])
        return dealt

    def noised(self, clean: Tensor, rng: random.Random) -> dict[str, Tensor]:
        """The latents with noise, as far as chance has it."""
        generator = torch.Generator(self.device).manual_seed(rng.randrange(2**62))
        noise = torch.randn(clean.shape, generator=generator, device=self.device)
        noise += self.config.noise.offset * torch.randn(*clean.shape[:2], 1, 1, generator=generator, device=self.device)
        # One of each slice of the steps, so that no batch lacks a stretch of them.
        count = len(clean)
        places = (torch.randperm(count, generator=generator, device=self.device) + torch.rand(count, generator=generator, device=self.device)) / count
        steps = (places * STEPS).long()
        signal = self.kept[steps]
        noisy = signal.sqrt()[:, None, None, None] * clean + (1 - signal).sqrt()[:, None, None, None] * noise
        return {"noisy": noisy, "noise": noise, "steps": steps, "ratio": signal / (1 - signal)}


def weight(ratio: Tensor) -> Tensor:
    """What the error of the noise counts for at a ratio of signal to noise.

    Min-SNR with gamma 5 (Hang et al. 2023) where there is little noise. Where there is much, a picture that is all wrong costs next to
    nothing in terms of noise, yet it is there that a text has its say: up to eight times more.
    """
    return (5 / ratio).clamp(max=1) * (1 + 0.1 / ratio).clamp(max=8)


def shares(config: Config, pictures: int) -> list[float]:
    """How often each size is taken after so many pictures. What is drawn small is learned at a quarter of the cost."""
    begin, end = config.train.grow
    grown = min(1.0, max(0.0, (pictures / config.train.pictures - begin) / (end - begin)))
    return [first * (1 - grown) + last * grown for *_, first, last in config.train.sizes]


def guidance(config: Config, pictures: int) -> float:
    """The guidance at which what is drawn shall be right, after so many pictures.

    A model of few things is sure of what a text means. Guided away from what it draws without a text, which is mostly white, it goes far
    past the colours that it was told. So from some point on it is what guidance makes of both that must be the noise, and a text alone
    moves it by as much less.
    """
    strength, begin, end = config.train.guidance
    grown = min(1.0, max(0.0, (pictures / config.train.pictures - begin) / (end - begin)))
    return 1 + (strength - 1) * grown


def rate(config: Config, pictures: int) -> float:
    """The learning rate's share after so many pictures: a warm-up, a plateau, a line down to a fiftieth."""
    train = config.train
    left = (train.pictures - pictures) / (train.decay * train.pictures)
    return min(1.0, (pictures + train.batch) / train.warm_up, max(left, 0.02))


class Fit:
    """The networks and where their training stands."""

    def __init__(self, config: Config, tokenizer: CLIPTokenizer, text: CLIPTextModel, folder: Path) -> None:
        self.config, self.tokenizer, self.folder = config, tokenizer, folder
        torch.manual_seed(config.seed)
        # What convolutions like best: on a GPU channels last, on a processor (at our few channels) first.
        self.layout = torch.channels_last if text.device.type == "cuda" else torch.contiguous_format
        self.painter = Painter(config, text).to(text.device, memory_format=self.layout)
        self.average = copy.deepcopy(self.painter).eval().requires_grad_(False)
        # Old gradients are soon forgotten: a thing comes up once in dozens of steps.
        self.optimizer = torch.optim.AdamW(self.painter.unet.parameters(), config.train.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        self.step, self.seconds = 0, 0.0
        self.begun = time.monotonic()
        self.file = folder / "checkpoint.pt"
        if self.file.exists():
            self.load()

    @property
    def pictures(self) -> int:
        """How many have been seen."""
        return self.step * self.config.train.batch

    def load(self) -> None:
        """Goes on from the checkpoint."""
        saved = torch.load(self.file, map_location=next(self.painter.parameters()).device, weights_only=True)
        self.painter.load_state_dict(saved["painter"])
        self.average.load_state_dict(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.seconds = saved["step"], saved["seconds"]
        print(f"fit: going on from step {self.step}", flush=True)

    def save(self) -> None:
        """Writes the checkpoint; the old one stays until the new one is whole."""
        parts = {"painter": self.painter, "average": self.average, "optimizer": self.optimizer}
        now = time.monotonic()
        self.seconds, self.begun = self.seconds + now - self.begun, now
        unfinished = self.file.with_suffix(".new")
        with unfinished.open("wb") as out:
            torch.save({"step": self.step, "seconds": self.seconds, **{name: part.state_dict() for name, part in parts.items()}}, out)
            os.fsync(out.fileno())
        os.replace(unfinished, self.file)

    def learn(self, forward: torch.nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """One step. Returns the plain squared error of each picture, and how far attention is astray."""
        strength = guidance(self.config, self.pictures)
        noisy = batch["noisy"].contiguous(memory_format=self.layout)
        with torch.autocast(noisy.device.type, torch.bfloat16, enabled=self.config.train.bf16):
            noise, astray = forward(noisy, batch["steps"], batch["ids"])
            if strength > 1:
                with torch.no_grad():
                    free, _ = forward(noisy, batch["steps"], batch["empty"])
                noise = free + strength * (noise - free)
        errors = (noise.float() - batch["noise"]).square().mean((1, 2, 3))
        loss = (errors * weight(batch["ratio"])).mean() / strength + LOOKS_SHARE * astray
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.train.rate * rate(self.config, self.pictures)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.painter.unet.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self.follow()
        return errors.detach(), astray.detach()

    @torch.no_grad()
    def follow(self) -> None:
        """Moves the average towards the weights; faster at first, when they are still far from good."""
        share = 1 - min(self.config.train.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.unet.parameters()), list(self.painter.unet.parameters()), share)


class Log:
    """Losses by band of noise, and speed, as lines of JSON and on the terminal."""

    def __init__(self, file: Path, device: torch.device) -> None:
        self.file = file
        self.sums = torch.zeros(2, BANDS, device=device)
        self.astray = torch.zeros((), device=device)
        self.start, self.first = time.monotonic(), None

    def add(self, fit: Fit, steps: Tensor, errors: Tensor, astray: Tensor) -> None:
        """Counts a step, and writes a line when one is due."""
        if self.first is None:
            self.first = fit.pictures - len(errors)
        band = steps * BANDS // STEPS
        self.sums[0].index_add_(0, band, errors)
        self.sums[1].index_add_(0, band, torch.ones_like(errors))
        self.astray += astray
        if fit.step % REPORT:
            return
        spent = time.monotonic() - self.start
        line = {
            "step": fit.step, "pictures": fit.pictures, "speed": round((fit.pictures - self.first) / spent, 2),
            "losses": [round(loss, 5) for loss in (self.sums[0] / self.sums[1]).tolist()], "astray": round((self.astray / REPORT).item(), 3), "time": time.strftime("%F %T"),
        }  # fmt: skip
        with self.file.open("a") as out:
            out.write(json.dumps(line) + "\n")
        print(f"fit: {fit.pictures} pictures, {line['speed']} a second, losses from little to much noise {line['losses']}, astray {line['astray']}", flush=True)
        self.sums.zero_()
        self.astray.zero_()
        self.start, self.first = time.monotonic(), fit.pictures


def fit(config: Config, run: Fit, batches: Batches, vae: torch.nn.Module) -> None:
    """Trains until all pictures are seen, with checkpoints and sheets of samples on the way."""
    forward = torch.compile(run.painter, dynamic=False) if config.train.compile else run.painter
    log = Log(run.folder / "log.jsonl", batches.device)
    saved = drawn = time.monotonic()
    prompts = sheet_prompts(batches.things)
    while run.pictures < config.train.pictures:
        batch = batches.at(run.step)
        log.add(run, batch["steps"], *run.learn(forward, batch))
        now = time.monotonic()
        last = run.pictures >= config.train.pictures
        if last or now - saved > 60 * config.train.checkpoint_minutes:
            run.save()
            saved = time.monotonic()
        if last or now - drawn > 60 * config.train.sheet_minutes:
            draw_sheet(run.folder / "sheets" / f"{run.pictures:08}.png", run.average, vae, run.tokenizer, config, prompts)
            drawn = time.monotonic()
            log.start, log.first = drawn, run.pictures
