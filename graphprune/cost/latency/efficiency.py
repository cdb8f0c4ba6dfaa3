# SPDX-License-Identifier: Apache-2.0
"""Efficiency: how many FLOPs the channels of each group cost for the time that they take, estimated without measuring.

Layers on large maps with few channels spend their time on moving activations, not on multiplying: in MobileNetV2 at
224 x 224 the expansion of the first block runs at half of the FLOPs per second of the last ones. Layers on small maps
spend it on reading weights: at 64 x 64 the last block of a ResNet-50 reads each weight for four positions. Halving all
widths alike then saves FLOPs and less time. The estimate counts an element that is moved, of an activation or a weight,
as much as so many FLOPs (`PER_ELEMENT`) on all machines, so that plans are the same everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.analysis.polynomial import Polynomial, Term
from graphprune.cost.latency.chunks import find_chunks

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from graphprune.analysis.analysis import Analysis

__all__ = ["PER_ELEMENT", "efficiency"]

PER_ELEMENT = 64
"""FLOPs that take as long as reading or writing one element: 100 GFLOP/s and 6 GB/s on one core."""


def efficiency(analysis: Analysis) -> npt.NDArray[np.float64]:
    """Return FLOPs per estimated time that halving each group saves, shape (groups,); their mean over atoms is 1.

    Complexity: O(nodes), and one evaluation of three costs for each group.
    """
    sizes = analysis.cost.sizes
    moved = Polynomial(list(_moved(analysis)), sizes)
    flops, weights = analysis.cost.flops, analysis.cost.params
    rates = np.ones(len(sizes), dtype=np.float64)
    for group, size in enumerate(sizes.tolist()):
        saved = -flops.change(sizes, group, size // 2)
        elements = moved.change(sizes, group, size // 2) + PER_ELEMENT * weights.change(sizes, group, size // 2)
        time = saved - elements
        if saved > 0:
            rates[group] = saved / time
    return rates / float((rates * sizes).sum() / sizes.sum()) if len(sizes) else rates


def _moved(analysis: Analysis) -> Iterable[Term]:
    """Yield what each kernel reads and writes, in FLOPs that take as long."""
    values, length = analysis.scope.values, analysis.grouping.length
    for chunk in find_chunks(analysis):
        read = [operand.name for operand in chunk.operands if not operand.constant]
        for name in (*read, *chunk.nodes[-1].outputs[:1]):
            if name in values:
                yield Term(PER_ELEMENT, tuple(length(labels) for labels in values[name]))
