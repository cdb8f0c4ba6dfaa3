# SPDX-License-Identifier: Apache-2.0
"""Whether two exports of one network, BatchNormalization folded and live, are the same to graphprune.

::

    python tools/export_zoo.py ~/zoo resnet18 mobilenet_v2 densenet121 shufflenet_v2_x1_0
    python tools/compare_exports.py ~/zoo

Compared are the groups in their order (atoms, channels per atom, exactness), FLOPs, reach, and the FLOPs left at half
of them. Scores are drawn at random there, equal for both: those of a criterion may differ, since folding hides the
BatchNormalization scales. Exit status 1 if something differs.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from graphprune import api
from graphprune.solvers.moves.levels import levels

NAMES = ("resnet18", "mobilenet_v2", "densenet121", "shufflenet_v2_x1_0")
EXPORTS = ("dynamo", "legacy")
BUDGET = 0.5


@dataclass(frozen=True)
class Facts:
    """What must not depend on the exporter."""

    groups: tuple[tuple[int, int, bool], ...]
    flops: int
    narrowest: int
    half: int


def look(path: Path) -> Facts:
    """Analyse a file and prune it in mind."""
    analysis = api.analyze(api.load(path))
    narrowest = [levels(group.size, group.channels, "auto", relaxed=True)[0] for group in analysis.groups]
    plan = api.solve(analysis, api.BudgetRequest("flops", BUDGET), api.SolveOptions(criterion="random"))
    return Facts(
        tuple((group.size, group.channels, group.exact) for group in analysis.groups),
        analysis.cost.flops(analysis.cost.sizes),
        analysis.cost.flops(np.array(narrowest, dtype=np.int64)),
        plan.budget.after,
    )


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Compare folded and live exports.")
    parser.add_argument("folder", type=Path, help="where export_zoo.py wrote")
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME")
    options = parser.parse_args()
    good = True
    for name in options.names:
        first, second = (look(options.folder / f"{name}.{how}.onnx") for how in EXPORTS)
        apart = [entry.name for entry in fields(Facts) if getattr(first, entry.name) != getattr(second, entry.name)]
        good &= not apart
        reach, half = first.narrowest / first.flops, first.half / first.flops
        verdict = f"DIFFERENT {', '.join(apart)}" if apart else "same"
        print(f"{name:24} {len(first.groups):4} groups, reach {reach:.4f}, half {half:.4f}: {verdict}", flush=True)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
