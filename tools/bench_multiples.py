#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whether `--round-to auto` is as fast as the best fixed multiple of channels, measured in pairs on this machine.

::

    python tools/bench_multiples.py mobilenet_v2.onnx resnet50.onnx
    PYTHONPATH=avx2 python tools/bench_multiples.py mobilenet_v2.onnx --round-to avx2

Each model is pruned to half of its FLOPs (`--solver bisection`, nothing measured) with widths of the kind and with
multiples of 4, 8, 16 and 32. All of these run in turn with the original, one thread, round after round; a cell is the
median of the ratios. `without_avx512.py` makes the onnxruntime of the second line. The exit status is 1 if the kind
takes over 2 % more than the best multiple.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from graphprune import api
from graphprune.cost.latency.bench import paired_timing
from graphprune.plan.budget import BudgetRequest
from graphprune.planning.make_plan import SolveOptions

MULTIPLES = (4, 8, 16, 32)
TOLERANCE = 0.02


def shares(path: Path, kinds: tuple[int | str, ...], flops: float, rounds: int) -> list[float]:
    """Return the share of the time that is left with each kind of width."""
    analysis = api.analyze(api.load(path))
    with tempfile.TemporaryDirectory(prefix="graphprune-multiples-") as folder:
        files = []
        for kind in kinds:
            plan = api.solve(analysis, BudgetRequest("flops", flops), SolveOptions(solver="bisection", round_to=kind))
            files.append(api.save(api.apply(analysis, plan), Path(folder) / f"{kind}.onnx"))
        found = [[paired_timing(path, file, plan.model.inputs).ratio for file in files] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*found, strict=True)]


def main() -> int:
    """Print a row per model; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--round-to", default="auto", help="the kind that is compared")
    parser.add_argument("--flops", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    kinds = (given.round_to, *MULTIPLES)
    print(f"| model | {' | '.join(map(str, kinds))} |\n|---|{'--:|' * len(kinds)}")
    slower = 0
    for path in given.models:
        own, *fixed = shares(path, kinds, given.flops, given.rounds)
        slower += own > min(fixed) * (1 + TOLERANCE)
        print(f"| {path.stem} | {' | '.join(f'{share:.3f}' for share in (own, *fixed))} |", flush=True)
    return int(slower > 0)


if __name__ == "__main__":
    sys.exit(main())
