"""Fetches the pictures and their words from npm, and packs both into one small file.

    python data.py FILE

The pictures are the Fluent 3D emoji, 256x256 with transparency; names, tags and groups are emojibase's. Both are MIT. FILE is a zip:
`index.json`, a list of things in emojibase's order, and one `NUMBER.webp` each. It is the same to the byte wherever it is made.
"""

import base64
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple


class Package(NamedTuple):
    """An npm package, pinned."""

    name: str
    version: str
    integrity: str


PICTURES = Package("@lobehub/fluent-emoji-3d", "1.1.0", "sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==")
WORDS = Package("emojibase-data", "17.0.0", "sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==")
LEFT_OUT = "flags"  # rectangles that differ in a detail


def fetch(package: Package, folder: Path) -> Path:
    """The package's archive, downloaded by npm from the registry that it is set up with.

    Exits if npm fails or the archive is not the pinned one.
    """
    words = ["npm", "pack", "--silent", "--ignore-scripts", f"{package.name}@{package.version}"]
    try:
        packed = subprocess.run(words, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    except FileNotFoundError:
        sys.exit("data: npm is not there, which downloads the pictures: install it (Debian: apt-get install npm)")
    except subprocess.CalledProcessError as error:
        sys.exit(f"data: `{' '.join(words)}` failed with status {error.returncode}")
    archive = folder / packed.stdout.split()[-1]
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != package.integrity:
        sys.exit(f"data: {package.name} {package.version} has integrity {found}, expected {package.integrity}: it is not the pinned package")
    return archive


def files(archive: Path) -> dict[str, bytes]:
    """What an npm archive holds, by path without `package/`."""
    with tarfile.open(archive) as tar:
        return {member.name.removeprefix("package/"): tar.extractfile(member).read() for member in tar if member.isfile()}


def things(words: dict[str, bytes], pictures: dict[str, bytes]) -> list[dict]:
    """Every emoji that has a picture: name, tags, group as `group/subgroup`, and the picture's path. No skin-tone variants."""
    messages = json.loads(words["en/messages.json"])
    group = {entry["order"]: entry["key"] for entry in messages["groups"]}
    subgroup = {entry["order"]: entry["key"] for entry in messages["subgroups"]}
    found = []
    for emoji in json.loads(words["en/data.json"]):
        code = emoji["hexcode"].lower()
        # The two packages do not agree on when the code ends with the variation selector.
        spellings = (f"assets/{spelling}.webp" for spelling in (code, code.replace("-fe0f", ""), f"{code}-fe0f"))
        picture = next((path for path in spellings if path in pictures), None)
        if picture and "group" in emoji and group[emoji["group"]] != LEFT_OUT:
            place = f"{group[emoji['group']]}/{subgroup[emoji['subgroup']]}"
            found.append({"name": emoji["label"].replace("’", "'"), "tags": emoji.get("tags", []), "group": place, "picture": picture})
    return found


def pack(file: Path) -> None:
    """Writes the data file."""
    with tempfile.TemporaryDirectory() as folder:
        pictures = files(fetch(PICTURES, Path(folder)))
        words = files(fetch(WORDS, Path(folder)))
    index = things(words, pictures)
    unfinished = file.with_suffix(".new")
    with zipfile.ZipFile(unfinished, "w") as out:
        for number, thing in enumerate(index):
            out.writestr(zipfile.ZipInfo(f"{number}.webp"), pictures[thing.pop("picture")])
        out.writestr(zipfile.ZipInfo("index.json"), json.dumps(index))
    os.replace(unfinished, file)
    print(f"data: {len(index)} pictures, {file.stat().st_size / 1e6:.1f} MB in {file}")


if __name__ == "__main__":
    pack(Path(sys.argv[1]))
