# SPDX-License-Identifier: Apache-2.0
"""Scales, biases and slopes that do not fit the axis that they are for: normalisation, quantisation, activation."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, prod
from typing import Final

from graphprune.model.inference.contributed import MICROSOFT
from graphprune.model.misfits.reads import Reads, Rule, first_of

__all__ = ["SCALE_RULES"]

_PER_CHANNEL_GROUPS: Final = 21
"""First operator set in which `GroupNormalization` has a scale for each channel."""
_SCALAR: Final = ((), (1,))


def _over_last_axes(reads: Reads) -> str | None:
    """Hold scale and bias against the axes that are normalised together."""
    dims = reads.dims(0)
    if dims is None:
        return None
    axis = reads.axis(-1)
    if axis is None:
        return _no_axis(reads, -1)
    where = f", the axes from {axis} on of input 0"
    return first_of(*(reads.broadcasts(slot, dims[axis:], where) for slot in (1, 2)))


def _in_groups(reads: Reads) -> str | None:
    dims, groups = reads.dims(0), int(reads.node.attribute("num_groups", 1))
    if dims is None or len(dims) < 2:
        return None
    if groups < 1 or dims[1] % groups:
        return reads.objection(0, f"has {dims[1]} channels, which num_groups {groups} does not divide")
    size = dims[1] if reads.opset >= _PER_CHANNEL_GROUPS else groups
    return first_of(*(reads.has_shape(slot, (size,)) for slot in (1, 2)))


def _in_groups_of_last(reads: Reads) -> str | None:
    """Onnxruntime's own one, whose channels come last if it is told so."""
    dims, groups = reads.dims(0), int(reads.node.attribute("groups", 1))
    if dims is None or len(dims) < 2:
        return None
    channels = dims[-1 if reads.node.attribute("channels_last", 1) else 1]
    if groups < 1 or channels % groups:
        return reads.objection(0, f"has {channels} channels, which groups {groups} does not divide")
    return first_of(*(reads.has_shape(slot, (channels,)) for slot in (1, 2)))


def _quantised(reads: Reads) -> str | None:
    dims, scale, zero = (reads.dims(slot) for slot in range(3))
    block = int(reads.node.attribute("block_size", 0))
    if scale is None:
        return None
    if zero is not None and zero != scale and (zero not in _SCALAR or scale not in _SCALAR):
        return reads.objection(2, f"has the shape {list(zero)}, but the scales have {list(scale)}")
    if dims is None or (not block and scale in _SCALAR):
        return None
    axis = reads.axis(1)
    if axis is None:
        return _no_axis(reads, 1)
    if block:
        return reads.has_shape(1, [ceil(size / block) if at == axis else size for at, size in enumerate(dims)])
    if len(scale) != 1:
        return reads.objection(
            1, f"has the shape {list(scale)}, but must be one number or one for each of {dims[axis]}"
        )
    return reads.has_length(1, 0, dims[axis])


def _quantised_convolution(reads: Reads) -> str | None:
    weight = reads.dims(3)
    for slot in (1, 2, 4, 5, 6, 7):
        known = reads.dims(slot)
        if known is None or known in _SCALAR:
            continue
        if slot not in (4, 5):
            return reads.objection(slot, f"has the shape {list(known)}, but must be one number")
        if weight is not None and known != (weight[0],):
            return reads.objection(
                slot, f"has the shape {list(known)}, but must have {list(weight[:1])} or be one number"
            )
    return None


def _slope(reads: Reads) -> str | None:
    dims = reads.dims(0)
    return None if dims is None else reads.broadcasts(1, dims)


def _bounds(reads: Reads) -> str | None:
    for slot in (1, 2):
        known = reads.dims(slot)
        if known is not None and known not in _SCALAR:
            return reads.objection(slot, f"has the shape {list(known)}, but must be one number")
    return None


def _last(*slots: int) -> Rule:
    """Hold vectors against the last axis of input 0."""

    def rule(reads: Reads) -> str | None:
        dims = reads.dims(0)
        return first_of(*(reads.has_shape(slot, dims[-1:]) for slot in slots)) if dims else None

    return rule


def _after_a_shortcut(*slots: int) -> Rule:
    """Hold what is added against input 0, and vectors against its last axis."""

    def rule(reads: Reads) -> str | None:
        dims = reads.dims(0)
        return first_of(reads.broadcasts(1, dims), _last(*slots)(reads)) if dims else None

    return rule


def _embedded(reads: Reads) -> str | None:
    """Hold all tables and vectors against the width of the table of words."""
    words, tokens = reads.dims(2), reads.dims(0)
    if words is None or len(words) != 2:
        return None
    tables = [reads.has_length(slot, 1, words[1]) for slot in (3, 4)]
    vectors = [reads.has_shape(slot, words[1:]) for slot in (5, 6)]
    places = reads.dims(3)
    short = None
    if places and tokens and len(tokens) == 2 and not reads.node.inputs[7:8] and places[0] < tokens[1]:
        short = reads.objection(3, f"has {places[0]} rows, but input 0 has {tokens[1]} positions")
    return first_of(*tables, *vectors, short)


def _packed(reads: Reads) -> str | None:
    """Count the scales of weights of which several share a byte."""
    scale, n, k = reads.dims(2), reads.node.attribute("N"), reads.node.attribute("K")
    block = int(reads.node.attribute("block_size", 0))
    if scale is None or not n or not k or block < 1:
        return None
    wanted = int(n) * ceil(int(k) / block)
    return None if prod(scale) == wanted else reads.objection(2, f"has {prod(scale)} scales, but {wanted} are needed")


def _no_axis(reads: Reads, default: int) -> str:
    dims = reads.dims(0) or ()
    return reads.objection(0, f"has {len(dims)} axes, but axis is {reads.node.attribute('axis', default)}")


SCALE_RULES: Final[Mapping[tuple[str, str], Rule]] = {
    ("", "Clip"): _bounds,
    ("", "DequantizeLinear"): _quantised,
    ("", "GroupNormalization"): _in_groups,
    ("", "LayerNormalization"): _over_last_axes,
    ("", "PRelu"): _slope,
    ("", "QLinearConv"): _quantised_convolution,
    ("", "QuantizeLinear"): _quantised,
    ("", "RMSNormalization"): _over_last_axes,
    ("", "SimplifiedLayerNormalization"): _over_last_axes,
    (MICROSOFT, "BiasGelu"): _last(1),
    (MICROSOFT, "EmbedLayerNormalization"): _embedded,
    (MICROSOFT, "FastGelu"): _last(1),
    (MICROSOFT, "GroupNorm"): _in_groups_of_last,
    (MICROSOFT, "MatMulNBits"): _packed,
    (MICROSOFT, "SkipLayerNormalization"): _after_a_shortcut(2, 3, 4),
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): _after_a_shortcut(2, 3),
}
