"""Draws with weighted prompts, prompts of several chunks, layers that are left out, and textual inversions, with diffusers' pipelines in f32
on the CPU.

    prompts.py OUT PART            PART is pictures-prompts or pictures-xprompts: OUT/miniatures/{w,xw}/, OUT/embeddings/, OUT/PART.jsonl and OUT/pictures/
    prompts.py --golden            a small part into tests/golden/torch-prompts/

diffusers has no weights and no chunks: states are computed here from the parts that each prompt is listed with, by the WebUI's rules, and are given
to the pipelines. What diffusers has, it does by itself: plain prompts, SDXL's `clip_skip`, and tokens of textual inversions, those of the folder and
those of files. A case is that of pictures.py, with `prompt_syntax` and `clip_skip`.
"""

import itertools
import json
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import diffusers
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import calls
import miniatures
import pictures
import xl_calls
import xl_goldens
import xl_miniatures
from miniatures import CROSS, PLAIN

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "torch-prompts"
# A part of a prompt and its weight; the parts of each piece between BREAKs.
Parts = list[list[tuple[str, float]]]
MORE, LESS = 1.1, 1 / 1.1
MANY = "one thing after another and " * 30
TOY = "<cat-toy> <cat-toy>_1 <cat-toy>_2"
# Weighted prompts, and what they say. Those with commas are short: none is divided at a comma.
WEIGHTED: tuple[tuple[str, Parts], ...] = (
    ("a (red:1.5) apple on a [table]", [[("a ", 1.0), ("red", 1.5), (" apple on a ", 1.0), ("table", LESS)]]),
    ("((masterpiece)), (best (light:0.4):1.3)", [[("masterpiece", MORE * MORE), (", ", 1.0), ("best ", 1.3), ("light", 0.4 * 1.3)]]),
    ("a cat BREAK (a dog:0.5) BREAK birds", [[("a cat", 1.0)], [("a dog", 0.5)], [("birds", 1.0)]]),
    (MANY + "(a worm:1.4)", [[(MANY, 1.0), ("a worm", 1.4)]]),
    (r"a smile \(large\) in the (sun:-0.5)", [[("a smile (large) in the ", 1.0), ("sun", -0.5)]]),
    ("a photo of (<cat-toy>:1.3) on the table", [[("a photo of ", 1.0), (TOY, 1.3), (" on the table", 1.0)]]),
    ("(my-style:0.7) BREAK a house", [[("my-style my-style_1", 0.7)], [("a house", 1.0)]]),
)
NEGATIVE: tuple[tuple[str | None, Parts], ...] = (
    (None, [[]]),
    ("(blurry:1.3), dark", [[("blurry", 1.3), (", dark", 1.0)]]),
    ("", [[]]),
    (MANY, [[(MANY, 1.0)]]),
)
PLAIN_PROMPTS = (
    ("a photo of <cat-toy> on the table", None),
    ("a house in my-style beside <one>", "<cat-toy>"),
    ("a red apple", "my-style"),
    (MANY + "<cat-toy>", ""),
)
# Vectors that the folder has, and vectors of a file, by their tokens.
IN_FOLDER = {"<cat-toy>": 3, "<one>": 1}
FILE_TOKEN = "my-style"
FILE_VECTORS = 2

TEXT = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 4, "intermediate_size": 64, "hidden_act": "quick_gelu"}
TINY_TEXT = TEXT | {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3}
TINY = xl_goldens.SHAPE
SHAPES = {
    "w": miniatures.Shape(
        seed=71,
        text=TEXT,
        unet={"block_out_channels": (24, 32), "down": (CROSS, PLAIN), "layers_per_block": 1, "attention_head_dim": 4, "norm_num_groups": 8},
        vae={"block_out_channels": (16,) * 4, "layers_per_block": 1, "norm_num_groups": 8, "scaling_factor": 0.18215},
    ),
    # Where the highest id is taken for the end, a token that was added is, too: in a file's place diffusers has one, and we have not.
    "xw": replace(xl_miniatures.SHAPES["xb"], seed=72, zeros=True, scheduler=xl_miniatures.SHAPES["xa"].scheduler),
    "tiny-w": miniatures.Shape(
        seed=73,
        text=TINY_TEXT,
        unet={"block_out_channels": (16, 16), "down": (CROSS, PLAIN), "layers_per_block": 1, "attention_head_dim": 2, "norm_num_groups": 4},
        vae={"block_out_channels": (8,) * 4, "num_encoder_blocks": (1, 1, 1, 1), "num_decoder_blocks": (1, 1, 1, 1), "scaling_factor": 2.5},
        half_exact=True,
    ),
    "tiny-xw": replace(TINY, seed=74, legacy_end=False, texts=tuple(text | {"num_hidden_layers": 3} for text in TINY.texts)),
}


@dataclass(frozen=True)
class Case:
    """One job, as the endpoint would be asked."""

    model: str
    prompt: str
    negative_prompt: str | None
    prompt_syntax: str
    clip_skip: int
    width: int
    height: int
    steps: int
    guidance_scale: float
    scheduler: str
    num_outputs: int
    seed: int
    file: str
    start: None = None


def is_xl(model: str) -> bool:
    """Whether it is a miniature of SDXL."""
    return "x" in model


def coders(pipe: diffusers.DiffusionPipeline) -> list[tuple]:
    """Tokenizers with their text encoders."""
    first = [(pipe.tokenizer, pipe.text_encoder)]
    return first + [(pipe.tokenizer_2, pipe.text_encoder_2)] if hasattr(pipe, "text_encoder_2") else first


def vectors(encoder: torch.nn.Module, count: int, seed: int) -> torch.Tensor:
    """Embeddings like those of tokens."""
    known = encoder.get_input_embeddings().weight
    drawn = torch.randn(count, known.shape[1], generator=torch.Generator().manual_seed(seed)) * known.std() + known.mean()
    return drawn.half().float()


def add(pipe: diffusers.DiffusionPipeline, token: str, found: list[torch.Tensor]) -> None:
    """Makes `token` stand for vectors, which are there for each text encoder."""
    for (tokenizer, encoder), embedding in zip(coders(pipe), found, strict=True):
        pipe.load_textual_inversion({token: embedding}, tokenizer=tokenizer, text_encoder=encoder)


def embedding_file(folder: Path) -> Path:
    """Where the vectors of a miniature's file lie; an engine has a folder of them."""
    return folder.parent.parent / "embeddings" / folder.name / f"{FILE_TOKEN}.safetensors"


def write(name: str, out: Path, kinds: tuple[Callable, Callable], merges: int = 1022) -> Path:
    """A miniature whose folder has tokens of textual inversions, and a file of one beside it."""
    folder, (make, load) = out / "miniatures" / name, kinds
    make(SHAPES[name], folder, merges=merges)
    pipe = load(folder)
    for number, (token, count) in enumerate(IN_FOLDER.items()):
        add(pipe, token, [vectors(encoder, count, number) for _, encoder in coders(pipe)])
    pipe.save_pretrained(folder)
    file = embedding_file(folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    names = ("clip_l", "clip_g") if is_xl(name) else ("emb_params",)
    save_file({key: vectors(encoder, FILE_VECTORS, 9) for key, (_, encoder) in zip(names, coders(pipe), strict=True)}, file)
    return folder


def with_file(load: Callable, folder: Path) -> diffusers.DiffusionPipeline:
    """The pipeline of a folder that knows the token of the file."""
    pipe = load(folder)
    held = load_file(embedding_file(folder))
    add(pipe, FILE_TOKEN, [held[key] for key in ("emb_params", "clip_l", "clip_g") if key in held])
    return pipe


def chunks(tokenizer, parts: Parts) -> list[list[tuple[int, float]]]:
    """Tokens and weights of each chunk: 75 of a piece at a time, and of each piece one at least."""
    found = []
    for piece in parts:
        tokens = [(token, weight) for text, weight in piece for token in tokenizer(text, add_special_tokens=False).input_ids]
        found += [tokens[begin : begin + 75] for begin in range(0, max(len(tokens), 1), 75)]
    return found


def states(tokenizer, encoder, chunk: list[tuple[int, float]], skip: int, xl: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What an encoder makes of a chunk, and its pooled text."""
    left = 75 - len(chunk)
    ids = [tokenizer.bos_token_id, *(token for token, _ in chunk), tokenizer.eos_token_id, *[tokenizer.pad_token_id] * left]
    weights = torch.tensor([1.0, *(weight for _, weight in chunk), 1.0, *[1.0] * left])
    answer = encoder(torch.tensor([ids]), output_hidden_states=True)
    hidden = answer.hidden_states
    plain = hidden[-(skip + 2)] if xl else encoder.final_layer_norm(hidden[-(skip + 1)])
    weighed = plain * weights[None, :, None]
    return weighed * (plain.mean() / weighed.mean()), getattr(answer, "text_embeds", None)


def embedded(pipe: diffusers.DiffusionPipeline, parts: Parts, count: int, skip: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """States of so many chunks one after the other, of the encoders side by side, and the pooled text of the first chunk."""
    sides, pooled = [], None
    for tokenizer, encoder in coders(pipe):
        found = chunks(tokenizer, parts)
        found += [[]] * (count - len(found))
        made = [states(tokenizer, encoder, chunk, skip, len(coders(pipe)) > 1) for chunk in found]
        sides.append(torch.cat([state for state, _ in made], 1))
        pooled = made[0][1]
    return torch.cat(sides, -1), pooled


def said(pipe: diffusers.DiffusionPipeline, case: Case) -> dict:
    """What the pipeline is asked of the prompts."""
    xl = is_xl(case.model)
    if case.prompt_syntax == "plain" and (xl or not case.clip_skip):
        return {"prompt": case.prompt, "negative_prompt": case.negative_prompt} | ({"clip_skip": case.clip_skip} if case.clip_skip else {})
    if case.prompt_syntax == "plain":
        # Of SD v1 this release cannot leave out layers by itself.
        text = pipe.maybe_convert_prompt(case.prompt, pipe.tokenizer)
        tokens = pipe.tokenizer(text, add_special_tokens=False).input_ids[:75]
        positive, _ = states(pipe.tokenizer, pipe.text_encoder, [(token, 1.0) for token in tokens], case.clip_skip, xl)
        return {"prompt_embeds": positive, "negative_prompt": case.negative_prompt}
    positive, negative = dict(WEIGHTED)[case.prompt], dict(NEGATIVE)[case.negative_prompt]
    if case.guidance_scale <= 1:
        negative = positive  # what is not read makes no prompt longer, and pipelines want the same shape
    count = max(len(chunks(tokenizer, parts)) for tokenizer, _ in coders(pipe) for parts in (positive, negative))
    (positive, pooled), (negative, negative_pooled) = (embedded(pipe, parts, count, case.clip_skip) for parts in (positive, negative))
    if not xl:
        return {"prompt_embeds": positive, "negative_prompt_embeds": negative}
    if case.negative_prompt is None:
        negative, negative_pooled = torch.zeros_like(negative), torch.zeros_like(negative_pooled)
    return {
        "prompt_embeds": positive, "negative_prompt_embeds": negative, "pooled_prompt_embeds": pooled, "negative_pooled_prompt_embeds": negative_pooled,
    }  # fmt: skip


def pixels(pipe: diffusers.DiffusionPipeline, config: dict, case: Case, _: Path) -> np.ndarray:
    """What the reference draws for one case: u8 [outputs, height, width, 3]."""
    pipe.scheduler = pictures.SAMPLERS[case.scheduler].from_config(config)
    images = pipe(
        **said(pipe, case), width=case.width, height=case.height, output_type="np", num_inference_steps=case.steps, guidance_scale=case.guidance_scale,
        num_images_per_prompt=case.num_outputs, generator=[torch.Generator().manual_seed((case.seed + i) % 2**64) for i in range(case.num_outputs)],
    ).images  # fmt: skip
    return np.ascontiguousarray((images * 255).round().astype("uint8"))


def cases(model: str, ending: str = "safetensors") -> list[Case]:
    """Every prompt with every negative prompt; layers, samplers and guidance in turn."""
    asked = [(*pair, "plain") for pair in PLAIN_PROMPTS] + [(prompt, negative, "weighted") for (prompt, _), (negative, _) in itertools.product(WEIGHTED, NEGATIVE)]
    sides = (72, 64) if is_xl(model) else (128, 128)
    found = []
    for number, ((prompt, negative, syntax), skip) in enumerate(itertools.product(asked, (0, 1))):
        scheduler, steps = (("DDIM", 7), ("EULER-A", 8), ("DPM-M", 12))[number % 3]
        guidance = 1.0 if number % 7 == 6 else 7.5
        file = f"pictures/{model}-{number}.{ending}"
        found.append(Case(model, prompt, negative, syntax, skip, *sides, steps, guidance, scheduler, 1, pictures.SEEDS[number % 7], file))
    return found


SD1, SDXL = (miniatures.write, calls.load), (xl_miniatures.write, xl_calls.load)


def draw(out: Path, kinds: tuple[Callable, Callable], batch: list[Case]) -> str:
    """Draws cases of one model."""
    return pictures.draw(out, batch, partial(with_file, kinds[1]), pixels)


def lines(found: list[Case]) -> str:
    """A case a line."""
    return "".join(json.dumps(asdict(case), ensure_ascii=False) + "\n" for case in found)


def record(out: Path, part: str) -> None:
    """Makes the part's miniature and draws its cases with two processes."""
    model, kinds = ("xw", SDXL) if part == "pictures-xprompts" else ("w", SD1)
    write(model, out, kinds)
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    found = cases(model)
    with ProcessPoolExecutor(2) as pool:
        for told in pool.map(partial(draw, out, kinds), (found[::2], found[1::2])):
            print(told, flush=True)
    (out / f"{part}.jsonl").write_text(lines(found), encoding="utf-8")


def goldens() -> None:
    """Rewrites the folder."""
    shutil.rmtree(OUT, ignore_errors=True)
    (OUT / "pictures").mkdir(parents=True)
    drawn = []
    for model, kinds in (("tiny-w", SD1), ("tiny-xw", SDXL)):
        folder = write(model, OUT, kinds, 254)
        for file in folder.glob("*/*.safetensors"):
            miniatures.rewrite(file, lambda weights: {key: weight.half() for key, weight in weights.items()})
        for file in folder.glob("**/*.json"):
            file.write_text(re.sub(r' *"_name_or_path": .*\n', "", file.read_text(encoding="utf-8")), encoding="utf-8")
        pipe = with_file(kinds[1], folder)
        # Each prompt twice, with other negative prompts and layers.
        found = cases(model, "png")
        found = found[:8] + [case for number, case in enumerate(found[8:]) if number % 4 == number // 8 % 4]
        for case in found:
            Image.fromarray(pixels(pipe, pipe.scheduler.config, case, OUT)[0]).save(OUT / case.file, optimize=True)
        drawn += found
    (OUT / "pictures.jsonl").write_text(lines(drawn), encoding="utf-8")


if __name__ == "__main__":
    pictures.part_or_goldens(__doc__, ("pictures-prompts", "pictures-xprompts"), record, goldens)
