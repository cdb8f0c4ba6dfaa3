# SPDX-License-Identifier: Apache-2.0
"""Reshape as segments: which input axes and output axes cover the same elements.

`Reshape`, `Flatten` and `DepthToSpace` are one thing to the label space. Aligned segments with
one axis on each side pass their labels on. A segment that splits or merges axes offers one
alternative per pair (live input axis, output axis): the two are united over the flat index and
every other axis of the segment stays whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, lcm

import numpy as np

from graphprune.labels.space import Alternative, Axes, LabelSpace
from graphprune.labels.vector import Digit, Ints, Labels, pairs, stay
from graphprune.model.graph import Node
from graphprune.model.sizes.equal_runs import equal_runs

__all__ = ["regroup"]


def _strides(sizes: Sequence[int]) -> list[int]:
    """Stride of each axis within a row-major block."""
    strides = [1] * len(sizes)
    for axis in range(len(sizes) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * sizes[axis + 1]
    return strides


def regroup(space: LabelSpace, node: Node, labels: Axes, after: Sequence[int]) -> Axes:
    """Give labels to the axes of a tensor whose elements are only regrouped in row-major order.

    Parameters
    ----------
    labels : tuple of Labels
        Labels of the input axes.
    after : sequence of int
        Output shape, of the same number of elements.
    """
    before = [len(vector) for vector in labels]
    result = [stay(size) for size in after]
    if 0 in before:
        return tuple(result)
    for inputs, outputs in equal_runs(before, after):
        if len(inputs) == 1 == len(outputs):
            result[outputs[0]] = labels[inputs[0]]
        elif any(labels[axis].live for axis in inputs):
            offered = _offer(space, node, [labels[axis] for axis in inputs], [after[axis] for axis in outputs])
            for axis, vector in zip(outputs, offered, strict=True):
                result[axis] = vector
    return tuple(result)


def _offer(space: LabelSpace, node: Node, inputs: list[Labels], sizes: list[int]) -> list[Labels]:
    """Record the alternatives of one segment and return the labels of its output axes."""
    in_strides = _strides([len(vector) for vector in inputs])
    live = {
        axis: Digit(in_strides[axis] * vector.repeat, len(vector.base))
        for axis, vector in enumerate(inputs)
        if vector.live
    }
    outputs: list[Labels] = []
    digits: list[Digit] = []
    for size, stride in zip(sizes, _strides(sizes), strict=True):
        repeat, period = _pattern(size, stride, list(live.values()))
        outputs.append(space.fresh(period // repeat, repeat, size // period))
        digits.append(Digit(stride * repeat, period // repeat))
    alternatives = []
    for i, in_digit in live.items():
        for j, out_digit in enumerate(digits):
            left, right = pairs(in_digit, out_digit)
            others = [inputs[k].base for k in live if k != i] + [outputs[k].base for k in range(len(outputs)) if k != j]
            frozen: Ints = np.concatenate([np.zeros(0, dtype=np.int64), *others])
            name = f"axis {i} of {len(inputs)} -> axis {j} of {len(outputs)}"
            alternatives.append(Alternative(name, inputs[i].base[left], outputs[j].base[right], frozen))
    space.choose(node, alternatives)
    return outputs


def _pattern(size: int, stride: int, digits: list[Digit]) -> tuple[int, int]:
    """Find (repeat, period) such that labels of an output axis can only vary in that pattern.

    Whatever alternative comes to hold, slices of the output axis that see the same digits of
    every live input axis get the same label; so one label serves them all.
    """
    repeat, period = 0, 1
    for digit in digits:
        ratio, nested = divmod(digit.stride, stride)
        if nested or ratio == 0:
            return 1, size
        repeat = gcd(repeat, gcd(size, ratio))
        span = ratio * digit.size
        period = lcm(period, span if size % span == 0 else size)
    return repeat, lcm(period, repeat)
