"""What the gateway is compared with: the local server of runpod's SDK (`--rp_serve_api`) around a handler that costs nothing."""

from typing import Any

import runpod


def handler(job: dict[str, Any]) -> Any:
    """Returns its input."""
    return job["input"]


if __name__ == "__main__":
    runpod.serverless.start({"handler": handler})
