# SPDX-License-Identifier: Apache-2.0
"""Ranges behind operators that move, pick, pool or pad elements."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from graphprune.rewrites.ranges.interval import Interval, joined
from graphprune.rewrites.ranges.range_rules import rule
from graphprune.rewrites.ranges.weighted import is_padded

if TYPE_CHECKING:
    from graphprune.model.graph import Node
    from graphprune.rewrites.ranges.propagate_ranges import Ranges

__all__: list[str] = []


@rule("Cast", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "SpaceToDepth")
@rule("Split", "Squeeze", "Tile", "Transpose", "Unsqueeze")
@rule("GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReduceMax", "ReduceMean", "ReduceMin")
def move(ranges: Ranges, node: Node) -> None:
    """Elements, their averages or the largest of them stay within the bounds of what they are taken from."""
    source = node.inputs[0]
    if source in ranges.analysis.shapes.constant:
        for name in node.outputs:
            if name:
                ranges.set(name, None, ranges.whole(source))
        return
    if node.op_type == "MaxPool" and any(node.outputs[1:]):
        return
    for at, name in enumerate(node.outputs):
        if name and not (node.op_type == "Dropout" and at):
            ranges.move(source, name)


@rule("AveragePool")
def average_pool(ranges: Ranges, node: Node) -> None:
    """An average, of zeros too where what lies beyond the image counts."""
    output = node.outputs[0]
    axis = ranges.channel_axis(output)
    interval = ranges.whole(node.inputs[0]) if axis is None else ranges.along(node.inputs[0], axis)
    if is_padded(node) and node.attribute("count_include_pad", 0):
        interval = interval.with_value(0.0)
    ranges.set(output, axis, interval)


@rule("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")
def add_up(ranges: Ranges, node: Node) -> None:
    """A sum of zeros is zero."""
    ranges.move(node.inputs[0], node.outputs[0])
    output = node.outputs[0]
    axis = ranges.channel_axis(output)
    interval = ranges.whole(output) if axis is None else ranges.along(output, axis)
    ranges.set(output, axis, interval.only_zero())


@rule("Resize", "Upsample")
def resize(ranges: Ranges, node: Node) -> None:
    """Interpolation stays within bounds; cubic curves leave them, but not where all is the same."""
    crop = node.attribute("coordinate_transformation_mode") == "tf_crop_and_resize"
    if crop:
        return
    output = node.outputs[0]
    axis = ranges.channel_axis(output)
    interval = ranges.whole(node.inputs[0]) if axis is None else ranges.along(node.inputs[0], axis)
    if node.attribute("mode", "nearest") not in ("nearest", "linear"):
        interval = Interval(
            np.where(interval.point, interval.low, -np.inf), np.where(interval.point, interval.high, np.inf)
        )
    ranges.set(output, axis, interval)


@rule("Concat")
def concat(ranges: Ranges, node: Node) -> None:
    """Channels stand end to end; along another axis each may come from any operand."""
    output = node.outputs[0]
    rank = len(ranges.analysis.shapes.dims[output])
    along, axis = node.attribute("axis", 1) % rank, ranges.channel_axis(output)
    if axis is None:
        ranges.set(output, None, reduce(Interval.either, map(ranges.whole, node.inputs)))
        return
    parts = [ranges.along(name, axis) for name in node.inputs]
    ranges.set(output, axis, joined(parts) if along == axis else reduce(Interval.either, parts))


@rule("Pad")
def pad(ranges: Ranges, node: Node) -> None:
    """New channels have the padded value; along other axes it is one more that is possible."""
    source, output = node.inputs[0], node.outputs[0]
    axis = ranges.channel_axis(output)
    amounts = _amounts(ranges, node)
    if amounts is None or (axis is not None and ranges.channel_axis(source) not in (axis, None)):
        return
    value = _padded_value(ranges, node)
    interval = ranges.whole(source) if axis is None else ranges.along(source, axis)
    others = any(max(pair) > 0 for at, pair in amounts.items() if at != axis)
    if axis is None or others:
        interval = interval if value is None else interval.either(value)
    front, back = amounts.get(axis, (0, 0)) if axis is not None else (0, 0)
    if axis is not None and (front or back):
        inner = slice(max(-front, 0), len(interval.low) - max(-back, 0))
        interval = Interval(interval.low[inner], interval.high[inner])
        ends = interval.hull() if value is None else value
        interval = joined([ends.spread(max(front, 0)), interval, ends.spread(max(back, 0))])
    ranges.set(output, axis, interval)


def _amounts(ranges: Ranges, node: Node) -> dict[int, tuple[int, int]] | None:
    """Return what is put in front and behind, by axis."""
    values = ranges.analysis.shapes.values
    given = node.attribute("pads")
    if given is None:
        if node.inputs[1] not in values:
            return None
        given = np.ravel(values[node.inputs[1]]).tolist()
    rank = len(ranges.analysis.shapes.dims[node.inputs[0]])
    axes = list(range(rank))
    if len(node.inputs) > 3 and node.inputs[3]:
        if node.inputs[3] not in values:
            return None
        axes = [int(axis) % rank for axis in np.ravel(values[node.inputs[3]])]
    return {axis: (int(given[at]), int(given[at + len(axes)])) for at, axis in enumerate(axes)}


def _padded_value(ranges: Ranges, node: Node) -> Interval | None:
    """Return the bounds of the padded value; None where neighbours are repeated."""
    if node.attribute("mode", "constant") != "constant":
        return None
    if len(node.inputs) > 2 and node.inputs[2]:
        return ranges.whole(node.inputs[2])
    return Interval.between(*[node.attribute("value", 0.0)] * 2)
