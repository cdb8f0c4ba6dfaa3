# SPDX-License-Identifier: Apache-2.0
"""Affine operators per channel: ``y = scale * x + shift`` with a constant scale and shift for each channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.array_types import Floats

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.model.graph import Node

__all__ = ["Affine", "affine_behind", "normalisation"]

Affine = tuple[Floats, Floats]


def normalisation(analysis: Analysis, node: Node) -> Affine | None:
    """Return scale and shift of a `BatchNormalization` with fixed statistics, each of shape (channels,)."""
    if node.attribute("training_mode", 0) or any(node.outputs[1:]):
        return None
    try:
        gamma, beta, mean, var = (analysis.constants.array(name).astype(np.float64) for name in node.inputs[1:5])
    except KeyError:
        return None
    scale = gamma / np.sqrt(var + node.attribute("epsilon", 1e-5))
    return scale, beta - mean * scale


def affine_behind(analysis: Analysis, node: Node, axis: int) -> tuple[Affine, frozenset[int]]:
    """Return what the affine operators right behind a node make of its output, and which they are.

    They follow one another without a second reader in between.

    Parameters
    ----------
    axis : int
        The channel axis of the output.
    """
    graph = analysis.graph
    name, size = node.outputs[0], analysis.shapes.dims[node.outputs[0]][axis]
    absorbed: list[int] = []
    scale: Floats = np.ones(size)
    shift: Floats = np.zeros(size)
    while len(readers := graph.consumers.get(name, [])) == 1 and name not in (*graph.outputs, *graph.captured):
        reader, slot = readers[0]
        step = _affine(analysis, reader, slot, axis)
        if step is None:
            break
        shift = step[0] * shift + step[1]
        scale = step[0] * scale
        name = reader.outputs[0]
        absorbed.append(reader.index)
    return (scale, shift), frozenset(absorbed)


def _affine(analysis: Analysis, node: Node, slot: int, axis: int) -> Affine | None:
    """Return scale and shift of one operator, None where it is not affine per channel."""
    if node.domain:
        return None
    if node.op_type == "BatchNormalization" and slot == 0 and axis == 1:
        return normalisation(analysis, node)
    if node.op_type not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2 or (node.op_type, slot) == ("Div", 1):
        return None
    operand = _per_channel(analysis, node.inputs[1 - slot], node.inputs[slot], axis)
    if operand is None or analysis.shapes.dims[node.outputs[0]] != analysis.shapes.dims[node.inputs[slot]]:
        return None
    one, zero = np.ones_like(operand), np.zeros_like(operand)
    if node.op_type == "Mul":
        return operand, zero
    if node.op_type == "Div":
        return (1.0 / operand, zero) if operand.all() else None
    sign = -1.0 if node.op_type == "Sub" else 1.0
    return (one, sign * operand) if slot == 0 else (sign * one, operand)


def _per_channel(analysis: Analysis, name: str, beside: str, axis: int) -> Floats | None:
    """Return a constant operand as one value per channel, None where it varies along another axis."""
    shapes = analysis.shapes
    if name not in shapes.constant:
        return None
    rank, size = len(shapes.dims[beside]), shapes.dims[beside][axis]
    own = shapes.dims[name]
    aligned = (1,) * (rank - len(own)) + own
    if len(own) > rank or any(length != 1 for at, length in enumerate(aligned) if at != axis):
        return None
    try:
        return np.broadcast_to(analysis.constants.array(name).astype(np.float64).ravel(), (size,))
    except KeyError:
        return None
