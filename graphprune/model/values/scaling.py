# SPDX-License-Identifier: Apache-2.0
"""Scaling: how the scales and zero points of `QuantizeLinear` and `DequantizeLinear` lie over their data.

Both operators keep every slice a slice. A scale per tensor concerns no axis; a scale per channel has
one entry for each slice of one axis; with blocks one entry stands for several neighbouring slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graphprune.array_types import Array

if TYPE_CHECKING:
    from graphprune.model.graph import Node

__all__ = ["PARAMETERS", "Quantised", "Span", "is_scaling", "real_values", "spans"]

PARAMETERS = (1, 2)
"""Inputs of a scaling node beside its data: scale and zero point."""

Span = tuple[int, int]
"""An axis of the data, and how many of its slices one entry of the parameter stands for; 0: all of them."""


def is_scaling(node: Node) -> bool:
    """Whether a node quantises or dequantises elementwise; the `com.microsoft` forms came before the types of ONNX."""
    return node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.domain in ("", "com.microsoft")


def spans(node: Node, data: Sequence[int], parameter: Sequence[int]) -> tuple[Span, ...] | None:
    """Return for each axis of a scale or zero point what it stands for.

    Parameters
    ----------
    data, parameter : sequence of int
        Shapes of the node's first input, and of its scale or zero point.

    Returns
    -------
    tuple of (int, int), or None
        None where the shapes do not say: blocks that do not divide the axis.
    """
    if all(size == 1 for size in parameter):
        return tuple((0, 0) for _ in parameter)
    axis = int(node.attribute("axis", 1)) % max(len(data), 1)
    if len(parameter) == 1:
        return ((axis, 1),) if axis < len(data) and parameter[0] == data[axis] else None
    if len(parameter) != len(data):
        return None
    blocks: list[Span] = []
    for at, (size, entries) in enumerate(zip(data, parameter, strict=True)):
        if at != axis and size != entries:
            return None
        if not entries or size % entries:
            return None
        blocks.append((at, 0 if entries == 1 else size // entries))
    return tuple(blocks)


@dataclass(frozen=True)
class Quantised:
    """What turns the integers of a stored tensor into the real numbers that they stand for.

    Attributes
    ----------
    scale, zero_point : str
        Names of constants; empty where there is none.
    scale_spans, zero_spans : tuple of (int, int)
        How they lie over the tensor (see `spans`).
    bits : int
        Where several values share a byte: bits of each. Scales and zero points, packed alike, are then those of
        blocks along the last axis, and without a zero point the middle of the range stands for zero.
    """

    scale: str
    zero_point: str
    scale_spans: tuple[Span, ...]
    zero_spans: tuple[Span, ...]
    bits: int = 0


def real_values(stored: Array, scale: Array | None, zero_point: Array | None, quantised: Quantised) -> Array:
    """Return ``(stored - zero_point) * scale`` as float32."""
    if quantised.bits:
        return _real_blocks(stored, scale, zero_point, quantised.bits)
    real = stored.astype(np.float32)
    if zero_point is not None:
        real -= _laid_over(zero_point, quantised.zero_spans, stored.shape)
    if scale is not None:
        real *= _laid_over(scale, quantised.scale_spans, stored.shape)
    return real


def _real_blocks(stored: Array, scale: Array | None, zero_point: Array | None, bits: int) -> npt.NDArray[np.float32]:
    """Return the values of blocks of packed integers, shape (rows, blocks, values of a block)."""
    rows, blocks, _ = stored.shape
    real = _unpacked(stored, bits).astype(np.float32)
    if zero_point is None:
        real -= np.float32(1 << (bits - 1))
    else:
        packed = zero_point.dtype == np.uint8 and zero_point.size != rows * blocks
        zeros = _unpacked(zero_point.reshape(rows, -1), bits)[:, :blocks] if packed else zero_point
        real -= zeros.reshape(rows, blocks, 1).astype(np.float32)
    if scale is not None:
        real *= scale.reshape(rows, blocks, 1).astype(np.float32)
    return real


def _unpacked(stored: Array, bits: int) -> Array:
    """Spread packed integers along the last axis, the lowest bits of a byte first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    spread = (stored[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return spread.reshape(*stored.shape[:-1], -1)


def _laid_over(parameter: Array, blocks: tuple[Span, ...], shape: Sequence[int]) -> npt.NDArray[np.float32]:
    """Bring a parameter into a form that broadcasts over its data."""
    values = parameter.astype(np.float32)
    if values.size == 1:
        return values.reshape(())
    target = [1] * len(shape)
    for at, (axis, block) in enumerate(blocks):
        if block > 1:
            values = values.repeat(block, axis=at)
        target[axis] = values.shape[at]
    return values.reshape(target)
