# SPDX-License-Identifier: Apache-2.0
"""Multiply-adds of well-known networks against their published numbers.

::

    python tools/golden_macs.py ~/zoo resnet56_cifar10.onnx

Of the files given, and those in the folders given, the ones with a known name are counted: ``resnet50.legacy.onnx`` is
a resnet50. The exit status is 1 if a count differs from the published number in any of its digits.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from graphprune import analyze, load

GOLDEN = {
    "resnet56_cifar10": "125.49 M",
    "resnet18": "1.81 G",
    "resnet50": "4.09 G",
    "mobilenet_v2": "0.30 G",
    "vgg16_bn": "15.47 G",
    "densenet121": "2.83 G",
}
"""Multiply-adds for one sample: CIFAR images for the first, 224 x 224 for the others."""


def count(path: Path) -> int:
    """Return the multiply-adds of a file, a dynamic batch counted as 1."""
    analysis = analyze(load(path))
    return analysis.cost.flops(analysis.cost.sizes) // 2


def rounded(macs: int, like: str) -> str:
    """Return a number with the digits and the unit of another one."""
    number, unit = like.split()
    digits = len(number.partition(".")[2])
    return f"{macs / {'M': 1e6, 'G': 1e9}[unit]:.{digits}f} {unit}"


def main() -> int:
    """Print a line per file; return the exit status."""
    parser = argparse.ArgumentParser(description="Compare multiply-adds with published numbers.")
    parser.add_argument("models", nargs="+", type=Path, metavar="FOLDER|FILE")
    options = parser.parse_args()
    files = [file for path in options.models for file in (sorted(path.glob("*.onnx")) if path.is_dir() else [path])]
    known = [file for file in files if file.name.partition(".")[0] in GOLDEN]
    wrong = 0
    for file in known:
        expected = GOLDEN[file.name.partition(".")[0]]
        macs = count(file)
        right = rounded(macs, expected) == expected
        wrong += not right
        print(f"{file.name:32} {macs:>14,}  {expected:>9}  {'ok' if right else 'WRONG'}", flush=True)
    missing = GOLDEN.keys() - {file.name.partition(".")[0] for file in known}
    if missing:
        print(f"no file of {', '.join(sorted(missing))}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
