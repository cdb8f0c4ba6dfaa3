# SPDX-License-Identifier: Apache-2.0
"""Folding: what a constant channel adds to its readers becomes a part of their biases.

A channel with the value ``v`` everywhere adds ``v * W[:, c].sum(kernel)`` to a `Conv` that sees no padding, and ``v *
W[:, c]`` to a `Gemm`, or to a `MatMul` with an addition behind. On a padded border the sum would be another one, so
such a channel is not folded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graphprune.array_types import Floats
from graphprune.errors import PlanError, quote
from graphprune.model.tensors import FLOATS
from graphprune.rewrites.ranges.weighted import is_padded
from graphprune.rewrites.readers import Sites

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.labels.space import Contraction
    from graphprune.plan.schema import GroupPlan
    from graphprune.rewrites.ranges import Ranges
    from graphprune.rewrites.readers import Reader

__all__ = ["BiasSlot", "bias_of", "fold_edits"]


@dataclass(frozen=True, eq=False)
class BiasSlot:
    """Where a constant can be added to what a node makes of its channels.

    Attributes
    ----------
    reader : tuple of (int, int)
        Node and input that read it.
    value : ndarray of float64, shape (rows,)
        What is read there now.
    factor : float
        How often the node counts what its weights add up to, relative to the bias.
    """

    reader: tuple[int, int]
    value: Floats
    factor: float = 1.0


def bias_of(analysis: Analysis, site: Reader) -> BiasSlot | None:
    """Return the bias of the node at a site; None where it can have none, or sees padding."""
    node = site.node
    name = node.inputs[site.weight]
    if node.domain or site.row is None or analysis.shapes.dtypes.get(node.outputs[0]) not in FLOATS:
        return None
    size = analysis.shapes.dims[name][site.row]
    if node.op_type == "Conv" and not is_padded(node):
        return _given(analysis, site, 2, size)
    if node.op_type == "Gemm" and site.slot == 0 and node.attribute("beta", 1.0) != 0:
        return _given(analysis, site, 2, size, node.attribute("alpha", 1.0) / node.attribute("beta", 1.0))
    if node.op_type == "MatMul" and site.slot == 0 and len(analysis.shapes.dims[name]) == 2:
        return _behind(analysis, site, size)
    return None


def fold_edits(analysis: Analysis, groups: Sequence[GroupPlan], ranges: Ranges) -> dict[tuple[int, int], Floats]:
    """Return the new biases, by node and input, that take over the folded atoms of a plan.

    Parameters
    ----------
    analysis : Analysis
        Of the model with merged weights.
    ranges : Ranges
        Of this model; merged channels contribute nothing there.

    Raises
    ------
    PlanError
        If a folded atom is not constant in this model, or a reader cannot take it over.
    """
    folded = np.zeros(len(analysis.grouping.group_of) + 1, dtype=np.bool_)
    for start, group in zip(analysis.grouping.starts, groups, strict=False):
        folded[int(start) + np.asarray(group.folded, dtype=np.int64)] = True
    if not folded.any():
        return {}
    sites = Sites(analysis)
    operands: dict[tuple[int, int], Floats] = {}
    for contraction in sites.contractions:
        chosen = folded[analysis.grouping.atom_of[contraction.labels.expand()]]
        if chosen.any():
            _fold(analysis, contraction, sites.at(contraction), (chosen, ranges), operands)
    return operands


def _fold(
    analysis: Analysis,
    contraction: Contraction,
    site: Reader | None,
    channels: tuple[npt.NDArray[np.bool_], Ranges],
    operands: dict[tuple[int, int], Floats],
) -> None:
    """Add what the chosen channels contribute at one site."""
    chosen, ranges = channels
    node = contraction.node
    if node.inputs[contraction.slot] in analysis.shapes.constant:
        return
    interval = ranges.along(node.inputs[contraction.slot], contraction.axis)
    values = np.where(chosen & interval.point, interval.low, 0.0)
    if site is None:
        return
    weight = np.moveaxis(analysis.constants.array(node.inputs[site.weight]).astype(np.float64), site.column, 0)
    read = weight.reshape(len(weight), -1).any(axis=1)
    if (chosen & read & ~interval.point).any():
        raise PlanError(
            f"a channel that node {node!r} reads is folded, but is not constant in this model",
            hint="solve again for this model",
        )
    if not (values * read).any():
        return
    bias = bias_of(analysis, site)
    if bias is None or site.row is None:
        raise PlanError(
            f"a channel that is not zero is folded, but node {node!r} ({quote(node.op_type)}) cannot take it over",
            hint="solve again for this model",
        )
    rows = np.moveaxis(weight, site.row + (site.row < site.column), 1)
    added = bias.factor * np.tensordot(values, rows.reshape(*rows.shape[:2], -1).sum(axis=2), 1)
    operands[bias.reader] = operands.get(bias.reader, bias.value) + added


def _given(analysis: Analysis, site: Reader, slot: int, size: int, factor: float = 1.0) -> BiasSlot | None:
    """Return a bias that is an input of the node itself."""
    node = site.node
    reader = node.index, slot
    name = node.inputs[slot] if slot < len(node.inputs) else ""
    if not name:
        return BiasSlot(reader, np.zeros(size), factor)
    value = _row(analysis, name, size)
    return None if value is None else BiasSlot(reader, value, factor)


def _behind(analysis: Analysis, site: Reader, size: int) -> BiasSlot | None:
    """Return what is added right behind a product, if nobody else reads the product."""
    graph = analysis.graph
    output = site.node.outputs[0]
    readers = graph.consumers.get(output, [])
    if len(readers) != 1 or output in (*graph.outputs, *graph.captured):
        return None
    node, slot = readers[0]
    if node.op_type != "Add" or node.domain:
        return None
    value = _row(analysis, node.inputs[1 - slot], size)
    return None if value is None else BiasSlot((node.index, 1 - slot), value)


def _row(analysis: Analysis, name: str, size: int) -> Floats | None:
    """Return a constant that has one value per row, or one for all; None where it is another one."""
    if name not in analysis.shapes.constant:
        return None
    dims = analysis.shapes.dims[name]
    if any(length != 1 for length in dims[:-1]) or (dims and dims[-1] not in (1, size)):
        return None
    try:
        return np.broadcast_to(analysis.constants.array(name).astype(np.float64).ravel(), (size,)).copy()
    except KeyError:
        return None
