# SPDX-License-Identifier: Apache-2.0
"""Shortening: the graph without what vanishes with emptied groups, and with the same atoms as before.

Surgery then starts from the shortened graph, which has fewer nodes and some small constants more. Its atoms carry the
numbers that they have in the whole graph, so that plans, masks and costs of both speak of the same things.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from graphprune.analysis.accounting import Accounts
from graphprune.analysis.analysis import Analysis
from graphprune.analysis.groups import Grouping, describe
from graphprune.array_types import Array, Ints, Mask
from graphprune.errors import UnsupportedModelError
from graphprune.model.files.inline_tensors import FREE_INITIALIZERS, as_nodes
from graphprune.model.files.messages import copy_but
from graphprune.model.unread import remove_unread
from graphprune.model.values.bodies import flatten
from graphprune.surgery.prune import prune
from graphprune.surgery.slices import Kept

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from graphprune.labels.vector import Labels
    from graphprune.model.graph import Node
    from graphprune.rewrites.vanish import Effects

__all__ = ["EMPTIED", "Shortened", "shorten"]


EMPTIED = ".emptied"
"""What the names of new constants end with, besides a number where that is taken."""
_UNSEEN = -2


@dataclass(frozen=True, eq=False)
class Shortened:
    """The graph without what vanishes.

    Attributes
    ----------
    cut : ModelProto
        The whole graph without the slices of emptied groups; what vanishes is still there, and cannot be run.
    analysis : Analysis
        Of the shortened graph.
    """

    cut: ModelProto
    analysis: Analysis


def shorten(analysis: Analysis, keep: Mask, effects: Effects) -> Shortened:
    """Return the graph without what vanishes.

    Parameters
    ----------
    keep : ndarray of bool, shape (atoms,)
        Which atoms stay; groups that keep some are left whole.
    effects : Effects
        Legal ones, of this `keep`.

    Raises
    ------
    UnsupportedModelError
        If other channels are coupled in what is left.

    Complexity: that of an analysis.
    """
    kept = np.bincount(analysis.grouping.group_of[keep], minlength=len(analysis.groups))
    stays: Mask = kept[analysis.grouping.group_of] > 0
    cut = prune(analysis, stays, effects.vanished)
    flat = cut if analysis.flat.is_flat else flatten(cut, like=analysis.flat).proto
    short = analysis.flat.restore(_write(Kept(analysis, stays), flat, effects))
    model = replace(analysis.model.replaced(short), name=analysis.model.name)
    shorter = analysis.of(model, stays)
    shorter.grouping = Grouping(_atoms(analysis, shorter, stays), analysis.grouping.group_of)
    accounts = Accounts(shorter.scope, shorter.grouping)
    groups = describe(shorter.scope, shorter.grouping, accounts.shared)
    shorter.groups = tuple(replace(old, members=new.members) for old, new in zip(analysis.groups, groups, strict=True))
    shorter.cost, shorter.layers = accounts.model(), accounts.layers
    return Shortened(cut, shorter)


def _write(kept: Kept, source: ModelProto, effects: Effects) -> ModelProto:
    """Build the message from one in which all slices of emptied groups are gone."""
    analysis = kept.analysis
    result = ModelProto()
    copy_but(source, result, "graph")
    copy_but(source.graph, result.graph, "node")
    by_outputs = {node.outputs: node for node in analysis.graph.nodes}
    new: list[TensorProto] = []
    nodes = []
    for proto in source.graph.node:
        node = by_outputs.get(tuple(proto.output))
        if node is None or node.index not in effects.vanished:
            nodes.append(proto if node is None else _rewired(node, proto, kept, effects, new))
    if source.ir_version < FREE_INITIALIZERS:
        result.graph.node.extend(node for tensor in new for node in as_nodes(tensor, analysis.graph.opset))
        new = []
    result.graph.node.extend(nodes)
    result.graph.initializer.extend(new)
    remove_unread(result, source)
    return result


def _rewired(node: Node, before: NodeProto, kept: Kept, effects: Effects, new: list[TensorProto]) -> NodeProto:
    """Return a node that reads constants and other values instead of what nobody makes any more."""
    proto = NodeProto()
    proto.CopyFrom(before)
    names = []
    for slot, name in enumerate(before.input):
        reader = node.index, slot
        if reader in effects.constants:
            label = kept.analysis.graph.unused(f"{node.outputs[0]}.{slot}{EMPTIED}")
            array = _left(effects.constants[reader], kept.masks(kept.analysis.scope.values[node.inputs[slot]]))
            new.append(numpy_helper.from_array(array, label))
            names.append(label)
        elif reader not in effects.dropped:
            names.append(effects.replaced(name))
    proto.input[:] = names
    return proto


def _left(array: Array, masks: Sequence[Mask]) -> Array:
    """Return what stays of a constant that may have length 1 where the value that it stands for is longer."""
    for axis, mask in enumerate(masks):
        if array.shape[axis] == len(mask) != 1 and not mask.all():
            array = np.compress(mask, array, axis=axis)
    return array


def _atoms(before: Analysis, after: Analysis, keep: Mask) -> Ints:
    """Return for each label of the shortened graph its atom in the whole graph."""
    component = after.resolution.component
    count = int(component.max()) + 1
    low, high = np.full(count, len(keep), dtype=np.int64), np.full(count, _UNSEEN, dtype=np.int64)
    gone = np.append(~keep, False)
    for old, new in _pairs(before, after):
        atoms = before.grouping.atom_of[old.expand()]
        atoms = atoms[~gone[atoms]]
        if len(atoms) != len(new):
            raise _changed()
        here = component[new.expand()]
        np.minimum.at(low, here, atoms)
        np.maximum.at(high, here, atoms)
    frozen = np.zeros(count, dtype=np.bool_)
    frozen[component[after.resolution.frozen]] = True
    seen = high != _UNSEEN
    if (seen & (low != high)).any() or (seen & frozen & (high >= 0) & ~keep[np.maximum(high, 0)]).any():
        raise _changed()
    atom_of = np.where(seen & ~frozen, high, -1)
    return np.asarray(atom_of[component], dtype=np.int64)


def _pairs(before: Analysis, after: Analysis) -> Iterator[tuple[Labels, Labels]]:
    """Yield the labels of the same axes in both graphs."""
    for name, axes in after.scope.values.items():
        yield from zip(before.scope.values.get(name, ()), axes, strict=False)
    uses = {(use.node.outputs[0], use.tensor): use for use in before.scope.space.uses if use.node.outputs}
    for use in after.scope.space.uses:
        old = uses.get((use.node.outputs[0], use.tensor))
        if old is not None:
            yield from zip(old.axes, use.axes, strict=True)


def _changed() -> UnsupportedModelError:
    return UnsupportedModelError("without the emptied groups, other channels would be coupled")
