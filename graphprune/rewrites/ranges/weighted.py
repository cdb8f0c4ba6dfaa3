# SPDX-License-Identifier: Apache-2.0
"""Ranges behind weights: sums of channels, each times a number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.rewrites.ranges.interval import Interval, joined
from graphprune.rewrites.ranges.range_rules import rule

if TYPE_CHECKING:
    import numpy.typing as npt

    from graphprune.model.graph import Node
    from graphprune.rewrites.ranges.propagate_ranges import Ranges

__all__ = ["is_padded"]


def is_padded(node: Node) -> bool:
    """Whether some windows of a convolution or pool may reach beyond the image."""
    automatic = node.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    return automatic or any(node.attribute("pads", ()))


@rule("Conv")
def conv(ranges: Ranges, node: Node) -> None:
    """Every output sums over taps and inputs; what lies beyond the image is zero."""
    weight = ranges.constant(node.inputs[1])
    if weight is None:
        return
    groups = node.attribute("group", 1)
    x = ranges.contracted(node.inputs[0], 1)
    x = x.with_value(0.0) if is_padded(node) else x
    taps = np.moveaxis(weight.reshape(*weight.shape[:2], -1), 2, 1)
    ranges.set(node.outputs[0], 1, _grouped(x, taps, groups) + _bias(ranges, node))


@rule("ConvTranspose")
def conv_transpose(ranges: Ranges, node: Node) -> None:
    """As `Conv`, with inputs first in the weight; any tap may be missing at an output."""
    weight = ranges.constant(node.inputs[1])
    if weight is None:
        return
    groups = node.attribute("group", 1)
    x = ranges.contracted(node.inputs[0], 1).with_value(0.0)
    by_group = weight.reshape(groups, -1, weight.shape[1], int(np.prod(weight.shape[2:])))
    taps = by_group.transpose(0, 2, 3, 1).reshape(groups * weight.shape[1], by_group.shape[3], -1)
    ranges.set(node.outputs[0], 1, _grouped(x, taps, groups) + _bias(ranges, node))


@rule("Gemm")
def gemm(ranges: Ranges, node: Node) -> None:
    """Y = alpha A B' + beta C, with a constant B."""
    weight = ranges.constant(node.inputs[1])
    if weight is None or node.attribute("transA", 0):
        return
    weight = (weight if node.attribute("transB", 0) else weight.T) * node.attribute("alpha", 1.0)
    interval = ranges.contracted(node.inputs[0], 1).weighted(weight[:, None, :])
    if len(node.inputs) > 2 and node.inputs[2]:
        beta = Interval.between(*[node.attribute("beta", 1.0)] * 2)
        interval = interval + ranges.operand(node.inputs[2], 1, 2) * beta
    ranges.set(node.outputs[0], 1, interval)


@rule("MatMul")
def matmul(ranges: Ranges, node: Node) -> None:
    """A product with a constant matrix behind; a product of two activations is zero where one of them is."""
    dims = ranges.analysis.shapes.dims
    first, second = node.inputs
    output = node.outputs[0]
    rank = len(dims[output])
    if second in ranges.analysis.shapes.constant and len(dims[second]) == 2:
        weight = ranges.constant(second)
        if weight is not None:
            interval = ranges.contracted(first, len(dims[first]) - 1).weighted(weight.T[:, None, :])
            ranges.set(output, rank - 1, interval)
        return
    axis = ranges.channel_axis(output)
    if axis is not None and axis < rank - 2:
        both = [ranges.operand(name, axis, rank).only_zero() for name in node.inputs if len(dims[name]) == rank]
        zero = np.any([interval.spread(dims[output][axis]).zero for interval in both], axis=0)
        ranges.set(output, axis, Interval(np.where(zero, 0.0, -np.inf), np.where(zero, 0.0, np.inf)))


def _grouped(x: Interval, taps: npt.NDArray[np.float64], groups: int) -> Interval:
    """Return the sums of a grouped convolution with weights of shape (outputs, taps, inputs per group)."""
    if groups == 1:
        return x.weighted(taps)
    if taps.shape[2] == 1:  # depthwise, perhaps with several outputs per input
        times = taps.shape[0] // groups
        positive, negative = np.maximum(taps, 0.0).sum(axis=(1, 2)), np.minimum(taps, 0.0).sum(axis=(1, 2))
        each = Interval(np.repeat(x.low, times), np.repeat(x.high, times))
        return each * Interval(positive, positive) + each * Interval(negative, negative)
    parts = zip(
        np.split(x.low, groups), np.split(x.high, groups), np.split(taps, groups), strict=True
    )  # a handful of groups
    return joined(Interval(low, high).weighted(part) for low, high, part in parts)


def _bias(ranges: Ranges, node: Node) -> Interval:
    if len(node.inputs) > 2 and node.inputs[2]:
        return ranges.along(node.inputs[2], 0)
    return Interval.between(0.0, 0.0)
