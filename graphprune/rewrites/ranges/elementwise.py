# SPDX-License-Identifier: Apache-2.0
"""Ranges behind operators that treat every element, or every channel, on its own."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from graphprune.model.evaluation.arithmetic import evaluate
from graphprune.rewrites.affine import normalisation
from graphprune.rewrites.ranges.interval import UNKNOWN, Interval
from graphprune.rewrites.ranges.range_rules import rule

if TYPE_CHECKING:
    import numpy.typing as npt

    from graphprune.model.graph import Node
    from graphprune.rewrites.ranges.propagate_ranges import Ranges

__all__: list[str] = []

_INCREASING = (
    *("Atan", "Ceil", "Celu", "Clip", "Elu", "Erf", "Exp", "Floor", "HardSigmoid", "LeakyRelu", "Relu", "Round"),
    *("Selu", "Sigmoid", "Sign", "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu"),
)
_OTHERS = ("Cos", "Gelu", "HardSwish", "Mish", "Shrink", "Sin", "Swish")


@rule(*_INCREASING)
def increasing(ranges: Ranges, node: Node) -> None:
    """A function that never falls maps bounds to bounds."""
    axis, interval = _input(ranges, node)
    if any(node.attribute(name, 1.0) < 0 for name in ("alpha", "gamma")):
        interval = _points_only(interval)
    if node.op_type == "Relu":
        zero = Interval.between(0.0, 0.0)
        ranges.set(node.outputs[0], axis, interval.largest(zero))
        return
    low, high = _at(ranges, node, interval.low), _at(ranges, node, interval.high)
    ranges.set(node.outputs[0], axis, UNKNOWN if low is None or high is None else Interval.of(low, high))


@rule(*_OTHERS)
def other(ranges: Ranges, node: Node) -> None:
    """Of any other function only its values at single points are known."""
    axis, interval = _input(ranges, node)
    value = _at(ranges, node, np.where(interval.point, interval.low, 0.0))
    if value is None:
        ranges.set(node.outputs[0], axis, UNKNOWN)
        return
    result = Interval(np.where(interval.point, value, -np.inf), np.where(interval.point, value, np.inf))
    ranges.set(node.outputs[0], axis, result)


@rule("Abs")
def absolute(ranges: Ranges, node: Node) -> None:
    """The distance from zero."""
    axis, interval = _input(ranges, node)
    most = np.maximum(np.abs(interval.low), np.abs(interval.high))
    least = np.where(
        (interval.low <= 0) & (interval.high >= 0), 0.0, np.minimum(np.abs(interval.low), np.abs(interval.high))
    )
    ranges.set(node.outputs[0], axis, Interval.of(least, most))


@rule("Neg")
def negative(ranges: Ranges, node: Node) -> None:
    """Bounds change places."""
    axis, interval = _input(ranges, node)
    ranges.set(node.outputs[0], axis, Interval(-interval.high, -interval.low))


@rule("PRelu")
def parametric_relu(ranges: Ranges, node: Node) -> None:
    """The positive part, and a slope times the negative part."""
    axis, interval = _input(ranges, node)
    slope = ranges.operand(node.inputs[1], axis, len(ranges.analysis.shapes.dims[node.outputs[0]]))
    zero = Interval.between(0.0, 0.0)
    ranges.set(node.outputs[0], axis, interval.largest(zero) + slope * interval.smallest(zero))


@rule("Softmax")
def softmax(ranges: Ranges, node: Node) -> None:
    """A share of one."""
    ranges.set(node.outputs[0], None, Interval.between(0.0, 1.0))


@rule("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum")
def broadcasting(ranges: Ranges, node: Node) -> None:
    """Arithmetic on the bounds of operands that are aligned at the last axis."""
    output = node.outputs[0]
    axis, rank = ranges.channel_axis(output), len(ranges.analysis.shapes.dims[output])
    operands = [ranges.operand(name, axis, rank) for name in node.inputs]
    combine = {
        "Add": Interval.__add__,
        "Sum": Interval.__add__,
        "Sub": Interval.__sub__,
        "Mul": Interval.__mul__,
        "Div": Interval.__truediv__,
        "Max": Interval.largest,
        "Min": Interval.smallest,
    }[node.op_type]
    interval = reduce(combine, operands)
    ranges.set(output, axis, interval if axis is None else interval.spread(ranges.analysis.shapes.dims[output][axis]))


@rule("Where")
def where(ranges: Ranges, node: Node) -> None:
    """One operand or the other."""
    output = node.outputs[0]
    axis, rank = ranges.channel_axis(output), len(ranges.analysis.shapes.dims[output])
    first, second = (ranges.operand(name, axis, rank) for name in node.inputs[1:])
    interval = first.either(second)
    ranges.set(output, axis, interval if axis is None else interval.spread(ranges.analysis.shapes.dims[output][axis]))


@rule("BatchNormalization")
def batch_normalization(ranges: Ranges, node: Node) -> None:
    """A factor and a summand per channel."""
    affine = normalisation(ranges.analysis, node)
    if affine is not None:
        scale, shift = (Interval(values, values) for values in affine)
        ranges.set(node.outputs[0], 1, ranges.along(node.inputs[0], 1) * scale + shift)


@rule("InstanceNormalization")
def instance_normalization(ranges: Ranges, node: Node) -> None:
    """A channel that is constant has no deviation from its mean: the bias is left."""
    bias = ranges.along(node.inputs[2], 0)
    flat = ranges.along(node.inputs[0], 1).point | ranges.along(node.inputs[1], 0).zero
    ranges.set(node.outputs[0], 1, Interval(np.where(flat, bias.low, -np.inf), np.where(flat, bias.high, np.inf)))


@rule("QuantizeLinear", "DequantizeLinear")
def scaling(ranges: Ranges, node: Node) -> None:
    """Zero becomes the zero point and comes back as zero; all else is rounded."""
    axis, interval = _input(ranges, node)
    ranges.set(node.outputs[0], axis, interval.only_zero())


def _input(ranges: Ranges, node: Node) -> tuple[int | None, Interval]:
    """Return the channel axis of the output, and the bounds of the first input along it."""
    axis = ranges.channel_axis(node.outputs[0])
    return axis, ranges.whole(node.inputs[0]) if axis is None else ranges.along(node.inputs[0], axis)


def _points_only(interval: Interval) -> Interval:
    return Interval(np.where(interval.point, interval.low, -np.inf), np.where(interval.point, interval.high, np.inf))


def _at(ranges: Ranges, node: Node, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """Return what a function of one variable makes of values; its other inputs are constants."""
    others = [ranges.constant(name) if name else None for name in node.inputs[1:]]
    if any(name and value is None for name, value in zip(node.inputs[1:], others, strict=True)):
        return None
    try:
        return evaluate(node, [values, *others], ranges.analysis.graph.opsets)[0].astype(np.float64)
    except Exception:  # the reference implementation raises whatever it likes; nothing is known then
        return None
