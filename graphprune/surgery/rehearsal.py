# SPDX-License-Identifier: Apache-2.0
"""Rehearsal: whether all sizes of a graph can follow the loss of channels, before anybody chooses any.

A list of sizes may hold elements that depend on the size of the inputs and on a number of channels alike, or a value
that must stay as it was may depend on both. What no edit can spell for every size of the inputs is found out here, by
letting nodes follow two cuts without cutting anything, and their channels stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from graphprune.analysis.analysis import Analysis
from graphprune.array_types import Mask
from graphprune.errors import UnsupportedModelError
from graphprune.labels.adapt import whole
from graphprune.model.graph import Node
from graphprune.surgery.placement import Placement
from graphprune.surgery.prune import adapt_node
from graphprune.surgery.resizing import Resizing
from graphprune.surgery.slices import Changes, Kept

__all__ = ["rehearsed"]


def rehearsed(analysis: Analysis) -> Analysis:
    """Return an analysis in which channels stay wherever sizes cannot follow; the same one if all can.

    Complexity: that of surgery without its tensors, twice; nothing where no dimension of the inputs is open.
    """
    sizes_matter = analysis.shapes.open or any(node.op_type in _SPELT for node in analysis.graph.nodes)
    while sizes_matter and analysis.groups and analysis.other_shapes is not None:
        sizes = analysis.grouping.sizes
        starts = analysis.grouping.starts[: len(sizes)]
        one, others = (np.zeros(int(sizes.sum()), dtype=np.bool_) for _ in range(2))
        one[starts] = True
        others[:] = True
        others[starts[sizes > 1]] = False
        held = analysis.held | _stuck(analysis, one) | _stuck(analysis, others)
        if held == analysis.held:
            break
        analysis = analysis.holding(held)
    return analysis


def _stuck(analysis: Analysis, keep: Mask) -> frozenset[str]:
    """Return the first output of every node whose sizes cannot follow a cut."""
    kept = Kept(analysis, keep)
    resizing = Resizing(analysis, kept, Placement(analysis, kept, cuts=False))
    changes, stuck = Changes(kept.suffix), set[str]()
    for node in analysis.graph.nodes:
        try:
            adapt_node(node, resizing, changes)
            follows = node.op_type not in _RESHAPING or bool(node.domain) or _carries_alike(resizing, node)
        except UnsupportedModelError:
            follows = False
        if not follows:
            stuck.add(next(filter(None, node.outputs)))
    return frozenset(stuck)


_RESHAPING = frozenset({"Flatten", "Reshape"})
_SPELT = _RESHAPING | {"Expand"}
"""Operators with all sizes of what they make in one list, though some of them may be those of the inputs."""


def _carries_alike(resizing: Resizing, node: Node) -> bool:
    """Whether a reshape carries the channels that are gone from axis to axis in the same way for another size.

    An axis is a range of digits of the index that counts all elements. Where ranges of two axes meet, they begin or
    end alike for both sizes; else channels would be other elements of the result for another size.
    """
    here, there = resizing.analysis.shapes.dims, (resizing.analysis.other_shapes or resizing.analysis.shapes).dims
    source, target = node.inputs[0], node.outputs[0]
    if not all(name in dims and name in resizing.dims for dims in (here, there) for name in (source, target)):
        return True
    cut = [[axis for axis, mask in enumerate(resizing.kept(name)) if not whole(mask)] for name in (source, target)]
    spans = [[_digits(dims[name]) for dims in (here, there)] for name in (source, target)]
    for one in cut[0]:
        for other in cut[1]:
            (low, high), (low_there, high_there) = (spans[0][at][one] for at in range(2))
            (start, end), (start_there, end_there) = (spans[1][at][other] for at in range(2))
            meet = low < end and start < high
            if meet and low * start_there != low_there * start and high * end_there != high_there * end:
                return False
    return True


def _digits(dims: Sequence[int]) -> list[tuple[int, int]]:
    """Return for each axis how many elements one step along it spans, and how many all of it does."""
    inner = [prod(dims[axis + 1 :]) for axis in range(len(dims))]
    return [(step, step * size) for step, size in zip(inner, dims, strict=True)]
