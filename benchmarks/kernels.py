"""Every claim about the speed of the kernels, in one table.

    python benchmarks/kernels.py [--check] [--pairs 15] [--only voxel_cosine ...]

Runs the scripts `kernel_*.py` beside it, which say what is measured against what, and run alone too.
`--check` exits 1 when a goal is missed. Where there is no GPU, its rows are left out.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

import torch

PREFIX = "kernel_"


def main() -> int:
    scripts = sorted(file.stem for file in Path(__file__).parent.glob(f"{PREFIX}*.py"))
    ops = [script.removeprefix(PREFIX) for script in scripts]
    parser = argparse.ArgumentParser(description="Every claim about the speed of the kernels.")
    parser.add_argument("--check", action="store_true", help="exit 1 when a goal is missed")
    parser.add_argument("--pairs", type=int, default=15, help="of timings for each row")
    parser.add_argument("--only", nargs="+", choices=ops, default=ops, metavar="OP", help=", ".join(ops))
    options = parser.parse_args()
    reached = True
    for op in options.only:
        print(f"== {op}")
        for row in import_module(PREFIX + op).measure(options.pairs):
            print(row, flush=True)
            reached &= row.reached
    if not torch.cuda.is_available():
        print("no GPU: its rows were not measured")
    print(f"all goals: {'reached' if reached else 'MISSED'}")
    return 0 if reached or not options.check else 1


if __name__ == "__main__":
    sys.exit(main())
