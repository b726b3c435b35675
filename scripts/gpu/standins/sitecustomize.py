"""For a rehearsal: stands in for torch, diffusers and what belongs to them, where Python has neither. Everything can be imported, called and computed
with, and is 1; a model that is written is a miniature of its family. Python imports this by itself where it lies on its path."""

import shutil
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

NAMES = {"torch", "diffusers", "transformers", "safetensors", "numpy", "PIL"}
# By the script that writes a model, or its flag. A run is in a folder of the checkout.
MINIATURES = {"sd15.py": Path("models/miniature"), "sdxl.py": Path("../models/miniature-xl"), "--refiner": Path("../tests/golden/torch-xl/refiners/tiny-refiner")}
HERE = Path(__file__).resolve().parent


class AnyClass(type):
    """Of classes whose members are anything."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()


class Anything(float, metaclass=AnyClass):
    """A tensor, a network, a function, a context, or what else it is used as."""

    shape = (1, 64, 8, 8)
    cuda_stream = 0

    def __new__(cls, *_: Any, **__: Any) -> "Anything":
        return super().__new__(cls, 1.0)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()

    def __call__(self, *_: Any, callback_on_step_end: Any = None, num_inference_steps: int = 0, **__: Any) -> "Anything":
        for step in range(num_inference_steps if callback_on_step_end else 0):
            callback_on_step_end(self, step, None, {})
        return self

    def __getitem__(self, _: Any) -> "Anything":
        return self

    def __iter__(self) -> Any:
        return iter(())

    def __enter__(self) -> "Anything":
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def chunk(self, parts: int, *_: int) -> list["Anything"]:
        return [self] * parts

    def data_ptr(self) -> int:
        return 0

    def stride(self, _: int) -> int:
        return 8

    def save_pretrained(self, folder: Path, **_: Any) -> None:
        shutil.copytree(miniature() / Path(folder).name, folder)

    def save_config(self, folder: Path) -> None:
        shutil.copy(miniature() / "model_index.json", folder)
        for tokenizer in miniature().glob("tokenizer*"):
            shutil.rmtree(Path(folder) / tokenizer.name)
            shutil.copytree(tokenizer, Path(folder) / tokenizer.name)


def miniature() -> Path:
    """That of the model that this program writes."""
    words = [Path(word).name for word in sys.argv]
    return next(folder for word, folder in reversed(MINIATURES.items()) if word in words)


def computed(self: Anything, *_: Any) -> Anything:
    """Of any arithmetic."""
    return self


for operator in ("add", "sub", "mul", "truediv", "matmul", "pow", "and"):
    setattr(Anything, f"__{operator}__", computed)
    setattr(Anything, f"__r{operator}__", computed)


class Finder(MetaPathFinder, Loader):
    """Makes the modules."""

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        if name.split(".")[0] not in NAMES:
            return None
        spec = ModuleSpec(name, self, is_package=True)
        spec.submodule_search_locations = [str(HERE / name.replace(".", "/"))]
        return spec

    def exec_module(self, module: ModuleType) -> None:
        def member(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            made = AnyClass(name, (Anything,), {}) if name[0].isupper() else Anything()
            setattr(module, name, made)
            return made

        module.__getattr__ = member  # type: ignore[method-assign]


sys.meta_path.insert(0, Finder())
