"""What a packed folder holds, laid where it can be run."""

import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path

BINARIES = "binaries.tar.xz"
ROOM = 30 << 30  # bytes of weights, of what is unpacked and of caches, twice
MEMORY = Path("/dev/shm")


@dataclass
class Kit:
    """Where things are."""

    packed: Path
    work: Path
    programs: Path  # on a disk: memory that is mounted for all is often not to be executed from
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def latentd(self) -> Path:
        return self.programs / "bin" / "latentd"

    @property
    def devices(self) -> Path:
        return self.programs / "bin" / "examples" / "devices"

    @property
    def kernel_test(self) -> Path:
        return self.programs / "bin" / "kernel_test"

    @property
    def tracer(self) -> Path:
        return self.programs / "bin" / "libtrace.so"

    @property
    def miniature(self) -> Path:
        return self.packed / "models" / "miniature"

    @property
    def weights(self) -> Path:
        return self.work / "sd-1.5-random"

    @property
    def sdxl(self) -> Path:
        return self.work / "sdxl-random"

    @property
    def turbo(self) -> Path:
        return self.work / "sdxl-turbo-random"

    @property
    def refiner(self) -> Path:
        return self.work / "sdxl-refiner-random"

    def script(self, path: str) -> Path:
        """One of the project's."""
        return self.packed / "scripts" / path


def unpack(packed: Path) -> Kit:
    """Lays a packed folder out, what is large in memory where there is room."""
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM
    work, programs = (Path(tempfile.mkdtemp(prefix="latentd-gpu-", dir=folder)) for folder in (MEMORY if in_memory else None, None))
    kit = Kit(packed, work, programs)
    with tarfile.open(packed / BINARIES) as archive:
        archive.extractall(programs / "bin", filter="data")
    site = programs / "site"
    for wheel in packed.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    kit.environment = {
        "LD_LIBRARY_PATH": os.pathsep.join([*libraries(), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]),
        # This one, whatever lies beside the libtorch that is here.
        "LATENTD_CUDA__HELPER": str(programs / "bin" / "liblatentd_cuda13.so"),
        "LATENTD_MODELS_DIR": str(packed / "models"),
        "KERNELS_LIBRARY": str(programs / "bin" / "libkernels.so"),
        "PYTHONPATH": os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
        "HF_HUB_OFFLINE": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(programs / "inductor"),
        "TRITON_CACHE_DIR": str(programs / "triton"),
    }
    return kit


def remove(kit: Kit) -> None:
    """What was laid out."""
    for folder in (kit.work, kit.programs):
        shutil.rmtree(folder, ignore_errors=True)


def libraries() -> list[str]:
    """Folders of the libtorch and of NVIDIA's packages that this Python has."""
    found = util.find_spec("torch")
    if found is None or not found.submodule_search_locations:
        sys.exit("run: this Python has no torch")
    torch = Path(found.submodule_search_locations[0]).resolve()
    return [str(torch / "lib"), *sorted(str(folder) for folder in torch.parent.glob("nvidia/*/lib"))]
