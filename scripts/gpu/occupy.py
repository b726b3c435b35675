"""Runs a command on a GPU with less memory: all but so much of what is free is taken for as long as it runs.

    occupy.py MIB COMMAND [ARGUMENT...]
"""

import ctypes
import subprocess
import sys

CHUNK = 64 << 20  # bytes that are taken at a time


def main() -> None:
    """The command's exit code."""
    left, command = int(sys.argv[1]) << 20, sys.argv[2:]
    cuda = ctypes.CDLL("libcudart.so.13")
    free, total, taken = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_void_p()
    while True:
        if status := cuda.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)):
            sys.exit(f"occupy: cudaMemGetInfo gives {status}")
        if free.value < left + CHUNK:
            break
        if status := cuda.cudaMalloc(ctypes.byref(taken), ctypes.c_size_t(CHUNK)):
            sys.exit(f"occupy: cudaMalloc gives {status}")
    sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
