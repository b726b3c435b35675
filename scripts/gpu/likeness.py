"""How alike two pictures are, as a line of JSON.

    likeness.py PNG-OR-FOLDER PNG-OR-FOLDER
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image


def pixels(path: Path) -> np.ndarray:
    """Of a picture, or of the one in a folder."""
    return np.asarray(Image.open(next(path.glob("*.png")) if path.is_dir() else path).convert("RGB")).astype(float)


def main() -> None:
    """Decibels: 40 and more are the same picture to the eye; unlike ones have about 10."""
    ours, theirs = (pixels(Path(path)) for path in sys.argv[1:3])
    error = ((ours - theirs) ** 2).mean()
    decibels = 10 * np.log10(255**2 / error) if error > 0 else 99.0
    print(json.dumps({"decibels": round(float(decibels), 1), "spread": round(float(ours.std()), 1)}))


if __name__ == "__main__":
    main()
