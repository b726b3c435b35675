"""What the RunPod Hub looks for. The worker is no Python program: this replaces itself with it."""

import os

os.execvp("latentd", ["latentd", "worker"])
