"""Records what diffusers' samplers of distilled models do, as samplers.py and xl_samplers.py do of the others: with the same numbers and
configurations, up to the 50 steps that those samplers make.

    fast_samplers.py DIR           beside what samplers.py recorded, into DIR/samplers/
    fast_samplers.py --xl DIR      beside what xl_samplers.py recorded
    fast_samplers.py --golden      a small part, into tests/golden/samplers/
"""

import argparse
import json
import pathlib

import diffusers

import samplers
import xl_samplers

# Those that a schedule was distilled over.
MOST = 50


class Tcd(diffusers.TCDScheduler):
    """As pipelines ask it, whose `eta` is 0."""

    def step(self, output, timestep, sample, eta=0.0, **rest):  # noqa: D102
        return super().step(output, timestep, sample, eta=eta, **rest)


SAMPLERS = {"LCM": diffusers.LCMScheduler, "TCD": Tcd}


def main() -> None:
    """Records both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", nargs="?", type=pathlib.Path)
    parser.add_argument("--xl", action="store_true")
    parser.add_argument("--golden", action="store_true")
    args = parser.parse_args()
    if args.golden == bool(args.dir):
        parser.error("give either DIR or --golden")
    diffusers.utils.logging.set_verbosity_error()
    samplers.STEPS = [steps for steps in samplers.STEPS if steps <= MOST]
    out = samplers.ROOT / "tests/golden/samplers" if args.golden else args.dir / "samplers"
    for name, cls in SAMPLERS.items():
        found = xl_samplers.cases(cls) if args.xl else samplers.cases(name, cls, samplers.configurations(), args.golden)
        digits = 9 if args.golden else 17
        lines = [json.dumps({key: samplers.shortened(value, digits) for key, value in case.items()}, separators=(",", ":")) for case in found]
        (out / f"{name}.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
        print(f"{name}: {len(lines)} cases")


if __name__ == "__main__":
    main()
