"""What a GPU can do at best, and what libtorch offers for the shapes of an evaluation: a line of JSON for each thing that was measured.

    python3 scripts/gpu/probe PART…     of ceilings, kernels, attention, convolutions, products
"""

import importlib
import json
import sys

import torch


def main() -> None:
    """Each part that is named, one after the other."""
    torch.set_grad_enabled(False)
    # f32 is f32: what is compared with is not TF32.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for part in sys.argv[1:]:
        for found in importlib.import_module(part).measured():
            print(json.dumps({"probe": part, **found}), flush=True)


if __name__ == "__main__":
    main()
