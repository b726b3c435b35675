#!/usr/bin/env python3
"""Writes what CLIPTokenizer makes of many texts, for tests/tokenizer.rs.

    python scripts/parity/tokenizer.py tests/golden/tokenizer        the committed goldens
    python scripts/parity/tokenizer.py --full DIR                    tens of thousands; then TOKENIZER_GOLDEN=DIR

A golden names a folder of this repository, the files that replace or join those of the folder (so that one vocabulary
serves many configurations), the special ids, and texts with their ids before truncation. That padded and truncated ids
are begin + ids + end + padding is checked here, for each text. A file is a list of goldens.
"""

import argparse
import json
import pathlib
import random
import shutil
import tempfile
import unicodedata

from transformers import CLIPTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
MINIATURE = "models/miniature/tokenizer"
FULL = "models/clip-tokenizer"

# Blocks that a splitter, a normalizer or a lower-caser may get wrong, as (first, last) code points.
BLOCKS = [
    (0x00, 0x1F), (0x20, 0x7E), (0x20, 0x7E), (0x7F, 0xA0), (0xA1, 0xFF), (0x100, 0x24F), (0x250, 0x2FF), (0x300, 0x36F),
    (0x370, 0x3FF), (0x400, 0x52F), (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0xF00, 0xFFF),
    (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x13A0, 0x13FF), (0x1680, 0x169F), (0x1C80, 0x1CBF), (0x1E00, 0x1EFF),
    (0x1F00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x209F), (0x20D0, 0x20FF), (0x2100, 0x218F), (0x2460, 0x24FF),
    (0x2600, 0x27BF), (0x2C00, 0x2C5F), (0x3000, 0x303F), (0x3040, 0x30FF), (0x4E00, 0x4FFF), (0xA640, 0xA69F),
    (0xAC00, 0xAD00), (0xE000, 0xE010), (0xF900, 0xFAFF), (0xFB00, 0xFB4F), (0xFE00, 0xFE0F), (0xFE20, 0xFE2F),
    (0xFF00, 0xFFEF), (0xFFF0, 0xFFFF), (0x10400, 0x1044F), (0x1D100, 0x1D1FF), (0x1D400, 0x1D7FF), (0x1E900, 0x1E95F),
    (0x1F1E6, 0x1F1FF), (0x1F300, 0x1F6FF), (0x1F900, 0x1F9FF), (0x2F800, 0x2FA1F), (0xE0000, 0xE007F), (0x10FFF0, 0x10FFFF),
]  # fmt: skip
WORDS = (
    "a photo of the red apple cat dog astronaut riding horse on mars by greg rutkowski trending artstation 8k UHD "
    "masterpiece Portrait intricate, (detailed:1.2) ((soft)) [light] {eyes} volumetric_lighting --ar 16:9 <lora:x:0.8> "
    "don't I'm you're they've she'll he'd it's IT'S 'S 'Tis ’s o'clock rock'n'roll 1980s 4k 3.14 1,000 C++ e-mail@x.org "
    "https://example.org/?q=1&b=2 naïve café façade Straße ẞ İstanbul ıi ΣΊΣΥΦΟΣ Ὀδυσσεύς Привет Ёлка שלום مرحبا नमस्ते "
    "สวัสดี 東京 とうきょう トウキョウ 한국어 ﬁne Ǆ ǅ Ⅷ ⅷ ½ ² ① ٣ ५ 𝒜𝓫 𐐀𐐨 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 ❤️ ☠ ~~~ ... !!! ?! -- ___ $$$ \\ / | ``"
).split()
SPECIALS = [
    "<|startoftext|>", "<|endoftext|>", "<|ENDOFTEXT|>", "<|StartOfText|>", "<|endoftext|", "|endoftext|>", "<|endoftext|>>",
    "<|endoftext|><|endoftext|>", " <|startoftext|> ", "x<|endoftext|>y", "< | endoftext | >", "<|pad|>", "<new-concept>", "!", "</w>",
]  # fmt: skip
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\x0b", "\x0c", "\x1c", "\x1f", "\x85", "\xa0", "\u1680", "\u2003", "\u2028", "\u202f", "\u205f", "\u3000"]
INVISIBLE = ["\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u034f", "\u180e", "\u202e", "\ufe0f", "\ufe0e", "\x00", "\x7f"]


def is_surrogate(one):
    return "\ud800" <= one <= "\udfff"


def character(rng):
    while True:
        first, last = rng.choice(BLOCKS) if rng.random() < 0.9 else (0, 0x10FFFF)
        one = chr(rng.randint(first, last))
        if not is_surrogate(one):
            return one


def piece(rng):
    kind = rng.randrange(12)
    if kind < 4:
        word = rng.choice(WORDS)
        return rng.choice([word, word, word.upper(), word.lower(), word.title()])
    if kind == 4:
        return rng.choice(SPECIALS)
    if kind == 5:
        return rng.choice(SPACES) * rng.randint(1, 3)
    if kind == 6:
        return rng.choice(INVISIBLE) * rng.randint(1, 2)
    if kind == 7:  # one letter under many marks
        return character(rng) + "".join(chr(rng.randint(0x300, 0x36F)) for _ in range(rng.randint(1, 6)))
    if kind == 8:  # many characters of one block
        first, last = rng.choice(BLOCKS)
        return "".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 8)))
    if kind == 9:
        return rng.choice("aB1_'.é日👍 ") * rng.randint(2, 12)
    return "".join(character(rng) for _ in range(rng.randint(1, 5)))


def text(rng, longest):
    joiner = rng.choice(["", " ", " ", " ", ", "])
    joined = joiner.join(piece(rng) for _ in range(rng.randint(1, longest)))
    form = rng.choice([None, None, "NFC", "NFD", "NFKC", "NFKD"])
    return unicodedata.normalize(form, joined) if form else joined


def characters(at_once):
    """Every character of the planes that have any, and a few of each other plane, beside letters, digits, signs and itself.

    There are some to a text, because calls cost more than text."""
    points = [*range(0x40000), *range(0x40000, 0xE0000, 61), *range(0xE0000, 0xF0000), *range(0xF0000, 0x110000, 61)]
    each = [f"a{c}b1{c}2!{c}?{c}{c}" for c in map(chr, points) if not is_surrogate(c)]
    return [" ".join(each[start : start + at_once]) for start in range(0, len(each), at_once)]


FIXED = [
    "", " ", "a photo of a cat", "A  Photo\tOF a\n\ncat", "\x00", "\x85", "'", "_", "a_b__c", "hello!!!", "<|endoftext|>",
    "<|ENDOFTEXT|>", "a<|endoftext|>b", "e\u0301 \u00e9", "\u1100\u1161\u11a8 \uac01", "\u0130", "\u0345\u0345", "\u200d", "\ufeffbom",
    "a" * 300, "1" * 90, "!" * 200, "word " * 74, "word " * 75, "word " * 76, "👍" * 40, "\u0301" * 60, " " * 500 + "x", "é" * 120,
]  # fmt: skip


def texts(count, longest, seed):
    rng = random.Random(seed)
    return FIXED + [text(rng, longest) for _ in range(count)]


def derived_vocabulary(merges):
    """CLIP's vocabulary as its authors' own tokenizer lays it out."""
    byte_values = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = [chr(b) for b in byte_values] + [chr(256 + i) for i in range(256 - len(byte_values))]
    tokens = alphabet + [c + "</w>" for c in alphabet] + ["".join(pair) for pair in merges] + SPECIALS[:2]
    assert len(set(tokens)) == len(tokens)
    return {token: i for i, token in enumerate(tokens)}


def folder(base, files, scratch):
    """A folder that the reference can load: `base`, a vocabulary if it brings none, and `files` over it."""
    target = pathlib.Path(tempfile.mkdtemp(dir=scratch))
    for path in (ROOT / base).iterdir():
        shutil.copy(path, target)
    merges = [tuple(line.split()) for line in (target / "merges.txt").read_text().splitlines()[1:]]
    vocabulary = derived_vocabulary(merges)
    if (target / "vocab.json").exists():
        assert json.loads((target / "vocab.json").read_text()) == vocabulary
    (target / "vocab.json").write_text(json.dumps(vocabulary))
    for name, content in files.items():
        if name == "tokenizer.json":
            content = dict(content, version="1.0", model={"type": "BPE", "vocab": vocabulary, "merges": merges})
        (target / name).unlink(missing_ok=True)
        if content is not None:
            (target / name).write_text(json.dumps(content))
    return target


def golden(base, files, batch, scratch):
    reference = CLIPTokenizer.from_pretrained(folder(base, files, scratch))
    begin, end, pad = reference.bos_token_id, reference.eos_token_id, reference.pad_token_id
    # What diffusers asks for; a folder that sets no limit is asked for CLIP's.
    length = min(reference.model_max_length, 10**6) if reference.model_max_length < 10**6 else 77
    cases = []
    for start in range(0, len(batch), 1000):
        part = batch[start : start + 1000]
        whole = reference(part, add_special_tokens=False)["input_ids"]
        padded = reference(part, padding="max_length", max_length=length, truncation=True)["input_ids"]
        for one, ids, row in zip(part, whole, padded, strict=True):
            assert row == ([begin, *ids[: length - 2], end] + [pad] * length)[:length], one
            cases.append({"text": one, "ids": ids})
    ids = {"begin": begin, "end": end, "pad": pad, "length": length, "rows": max(reference.get_vocab().values()) + 1}
    return {"folder": base, "files": files, **ids, "cases": cases}


def full_token(content, **flags):
    return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False, **flags}


def typed(content, **flags):
    return {"__type": "AddedToken", **full_token(content, **flags)}


def configurations(last):
    """Folders as they are found in the wild; `last` is the id of the end token."""
    begin, end = "<|startoftext|>", "<|endoftext|>"
    older = {"bos_token": typed(begin), "eos_token": typed(end), "unk_token": typed(end), "pad_token": end, "model_max_length": 77}
    older_map = {"bos_token": full_token(begin), "eos_token": full_token(end), "unk_token": full_token(end)}
    strings = {"bos_token": begin, "eos_token": end, "unk_token": end, "pad_token": "!", "model_max_length": 77}
    numbered = {str(last - 1): full_token(begin, special=True), str(last): full_token(end, special=True)}
    bang = {"0": full_token("!", normalized=False, special=True), **numbered}
    concept = {"<new-concept>": last + 1, "<other concept>": last + 2}
    return [
        # no configuration at all
        {"tokenizer_config.json": None},
        # transformers before 4.34: tokens in full, in two files
        {"tokenizer_config.json": older, "special_tokens_map.json": {**older_map, "pad_token": end}},
        {"tokenizer_config.json": older, "special_tokens_map.json": {**older_map, "pad_token": "!"}},
        {"tokenizer_config.json": older, "special_tokens_map.json": {**older_map, "pad_token": full_token(end)}},
        # transformers from 4.34 on: tokens by number
        {"tokenizer_config.json": {**strings, "pad_token": end, "added_tokens_decoder": numbered}},
        {"tokenizer_config.json": {**strings, "added_tokens_decoder": bang}},
        # a learnt token
        {"tokenizer_config.json": older, "added_tokens.json": concept},
        # transformers 5: one file
        {
            "tokenizer_config.json": {**strings, "pad_token": end},
            "tokenizer.json": {"added_tokens": [full_token(begin, id=last - 1), full_token(end, id=last)]},
        },
        # tokens beyond the usual, and no limit
        {
            "tokenizer_config.json": {
                **strings,
                "extra_special_tokens": ["<new-concept>", "photo"],
                "odd_token": "<|pad|>",
                "model_max_length": 1000000000000000019884624838656,
            }
        },
        # defaults spelt out are the defaults
        {
            "tokenizer_config.json": {
                **strings,
                "unk_token": {"__type": "AddedToken", "content": end, "normalized": True},
                "pad_token": "<new-concept>",
                "cls_token": {"__type": "AddedToken", "content": end, "rstrip": False},
            }
        },
        {
            "tokenizer_config.json": {**older, "mask_token": {"__type": "AddedToken", "content": "photo"}},
            "added_tokens.json": {"<new-concept>": last + 1, "photo": last + 2},
        },
        # special tokens as ordinary text
        {"tokenizer_config.json": {**older, "split_special_tokens": True, "model_max_length": 20}},
    ]


def random_configuration(rng, last):
    """Any mixture of the four files, contradictions included."""
    begin, end = "<|startoftext|>", "<|endoftext|>"
    contents = [begin, end, end, "!", "<new-concept>", "photo", "a b", "É", "cat"]

    def flags():
        some = {key: rng.random() < 0.5 for key in ("lstrip", "rstrip", "single_word", "normalized") if rng.random() < 0.4}
        return some

    def token(content, typed_form):
        if rng.random() < 0.5:
            return content
        return {**({"__type": "AddedToken"} if typed_form else {}), "content": content, **flags()}

    def named(typed_form, share):
        roles = {"bos_token": begin, "eos_token": end, "unk_token": end, "pad_token": rng.choice([end, "!", "<new-concept>"])}
        roles |= {"mask_token": "photo", "sep_token": rng.choice(contents), "cls_token": end}
        return {key: token(content, typed_form) for key, content in roles.items() if rng.random() < share}

    config = {**named(True, 0.6), "model_max_length": rng.choice([77, 77, 10])}
    if rng.random() < 0.3:
        config["extra_special_tokens"] = rng.sample(contents, 2)
    files = {"tokenizer_config.json": config}
    if rng.random() < 0.4:
        some = rng.sample(sorted(set(contents) - {begin, end}), 3)
        decoder = {last - 1: begin, last: end} | {last + 1 + i: content for i, content in enumerate(some)}
        config["added_tokens_decoder"] = {
            str(i): {"content": c, **flags(), "special": rng.random() < 0.7} for i, c in decoder.items() if rng.random() < 0.8
        }
    if rng.random() < 0.5:
        files["special_tokens_map.json"] = named(False, 0.6)
    if rng.random() < 0.3:
        files["added_tokens.json"] = {"<new-concept>": last + 1, "photo": last + 2}
    if rng.random() < 0.2:
        added = [full_token(c, id=i, normalized=rng.random() < 0.5, special=rng.random() < 0.7) for i, c in [(last - 1, begin), (last, end)]]
        files["tokenizer.json"] = {"added_tokens": added}
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    last = 8191
    rng = random.Random(4)
    if options.full:
        sets = {
            "miniature": [(MINIATURE, {}, texts(25_000, 12, 1))],
            "clip": [(FULL, {}, texts(25_000, 12, 2))],
            "configurations": [(MINIATURE, files, texts(500, 8, 3)) for files in configurations(last)],
            "random": [(MINIATURE, random_configuration(rng, last), texts(60, 6, 100 + i)) for i in range(300)],
            "long": [(FULL, {}, [text(random.Random(5 + i), 3000) for i in range(8)])],
            "characters": [(FULL, {}, characters(64))],
        }
    else:
        few = [*SPECIALS, "A  Photo\tof cats!", "A <|endoftext|>Photo! <|StartOfText|> \u00c9 a b"]
        some = [random_configuration(rng, last) for _ in range(12)]
        sets = {
            "miniature": [(MINIATURE, {}, texts(200, 6, 1))],
            "clip": [(FULL, {}, texts(200, 6, 2))],
            "configurations": [(MINIATURE, files, few) for files in [*configurations(last), *some]],
        }
    with tempfile.TemporaryDirectory() as scratch:
        for name, goldens in sets.items():
            written = [golden(base, files, batch, scratch) for base, files, batch in goldens]
            (options.out / f"{name}.json").write_text(json.dumps(written, separators=(",", ":")))


if __name__ == "__main__":
    main()
