"""Shows the text encoder what its words look like, before there is any noise.

SD's text encoder had seen pictures long before SD was trained. One that begins with the UNet hears of a word once in dozens of
steps, and then only through errors that are mostly noise. So ours is first taught alone, in minutes: from its states a linear map
must tell a small picture of what the caption names, on its ground. Each of the 64 last of the 77 places tells one square of it, which
is padding in all but the longest captions: so the UNet finds what belongs where by looking at a place (`looks.py`). For it to find the
place, a second map must tell from a state which place it is of. Both maps are thrown away.
"""

import os
import random
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from config import Config
from looks import FIRST, GRID, PLACES
from model import text_encoder, tokens
from pictures import COLOURS, WHITE, Thing, caption, layers

SQUARE = 4  # pixels a side of a square
PLACE_SHARE = 0.02  # what the cross entropy of the place counts for, beside the squared error of the squares
WHITE_SHARE = 0.5  # of grounds
REPORT = 100  # steps


class Lesson:
    """The text encoder, its maps to squares and to places, and where their training stands."""

    def __init__(self, config: Config, tokenizer: CLIPTokenizer, file: Path, device: torch.device) -> None:
        self.settings, self.file = config.words, file
        torch.manual_seed(config.seed)
        self.text = text_encoder(config, tokenizer).to(device)
        self.tell = nn.Linear(config.text.width, 3 * SQUARE * SQUARE).to(device)
        self.place = nn.Linear(config.text.width, GRID * GRID).to(device)
        self.weights = [*self.text.parameters(), *self.tell.parameters(), *self.place.parameters()]
        self.optimizer = torch.optim.AdamW(self.weights, self.settings.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        self.step = 0
        if file.exists():
            saved = torch.load(file, map_location=device, weights_only=True)
            for part, state in zip(self.parts, saved["parts"]):
                part.load_state_dict(state)
            self.step = saved["step"]

    @property
    def parts(self) -> tuple:
        """What is kept in the file."""
        return self.text, self.tell, self.place, self.optimizer

    def save(self) -> None:
        """Rewrites the file; the old one stays until the new one is whole."""
        unfinished = self.file.with_suffix(".new")
        torch.save({"step": self.step, "parts": [part.state_dict() for part in self.parts]}, unfinished)
        os.replace(unfinished, self.file)

    def learn(self, forward: nn.Module, ids: Tensor, wanted: Tensor) -> Tensor:
        """One step on tokens `[n, 77]` and squares `[n, 64, 48]`. Returns the squared error of the squares, of a range of 2, and the share of
        places that were told right."""
        states = forward(input_ids=ids).last_hidden_state[:, FIRST:]
        told, placed = self.tell(states), self.place(states)
        right = torch.arange(GRID * GRID, device=ids.device).expand(len(ids), -1)
        # A place among the words cannot know those to come.
        ends = (ids == self.text.config.eos_token_id).int().argmax(1)
        heard = (torch.arange(FIRST, PLACES, device=ids.device) >= ends[:, None]).float()
        error = ((told - wanted).square().mean(2) * heard).sum() / heard.sum()
        lost = F.cross_entropy(placed.transpose(1, 2), right, reduction="none")
        loss = error + PLACE_SHARE * (lost * heard).sum() / heard.sum()
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate * min(1, (self.step + 1) / 100, max(2 * (1 - self.step / self.settings.steps), 0.02))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.step += 1
        return torch.stack([error.detach(), ((placed.argmax(2) == right) * heard).sum() / heard.sum()])


def squares(small: Tensor) -> Tensor:
    """The squares `[n, 64, 48]` of small pictures `[n, 3, 32, 32]`, row by row."""
    return F.unfold(small, SQUARE, stride=SQUARE).transpose(1, 2)


def teach(config: Config, tokenizer: CLIPTokenizer, file: Path, things: list[Thing], pictures: Tensor) -> CLIPTextModel:
    """The taught text encoder. It is kept in `file` every minute, and learns on if steps are left."""
    lesson = Lesson(config, tokenizer, file, pictures.device)
    small = F.interpolate(layers(pictures), (GRID * SQUARE, GRID * SQUARE), mode="area")
    colours = list(COLOURS)
    grounds = torch.tensor([COLOURS[name] for name in colours], device=pictures.device)[:, :, None, None] / 255
    forward = torch.compile(lesson.text, dynamic=False) if config.train.compile else lesson.text
    kept, losses = time.monotonic(), []
    while lesson.step < config.words.steps:
        rng = random.Random(f"{config.seed} words {lesson.step}")
        asked = rng.choices(range(len(things)), k=config.words.batch)
        ground = [colours.index(WHITE) if rng.random() < WHITE_SHARE else rng.randrange(len(colours)) for _ in asked]
        texts = [caption(things[thing], colours[colour], rng) for thing, colour in zip(asked, ground)]
        drawn = small[asked, :3] + grounds[ground] * (1 - small[asked, 3:])
        losses.append(lesson.learn(forward, tokens(tokenizer, texts).to(pictures.device), squares(drawn * 2 - 1)))
        if lesson.step % REPORT == 0:
            error, placed = torch.stack(losses).mean(0).tolist()
            print(f"words: step {lesson.step} of {config.words.steps}, squared error {error:.4f}, places right {placed:.1%}", flush=True)
            losses = []
        if lesson.step == config.words.steps or time.monotonic() - kept > 60:
            lesson.save()
            kept = time.monotonic()
    return lesson.text
