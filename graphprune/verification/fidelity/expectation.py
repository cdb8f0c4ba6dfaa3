# SPDX-License-Identifier: Apache-2.0
"""Expectation: what a plan says must be left of every axis and every constant.

For the fidelity check, and therefore apart from the surgery: it starts from the plan's own
lists, and asks of every reader of a constant which slices it has to find.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

import numpy as np

from graphprune.analysis.analysis import Analysis
from graphprune.array_types import Mask
from graphprune.errors import VerificationError, quote
from graphprune.labels.adapt import size_slots, whole
from graphprune.labels.vector import Labels
from graphprune.model.graph import Node
from graphprune.model.values.scaling import is_scaling, spans
from graphprune.plan.keep_mask import keep_mask
from graphprune.plan.schema import Plan

__all__ = ["Demands", "Expectation", "Masks", "find_demands"]

Masks = tuple[Mask, ...]
Reader = tuple[int, int]


class Expectation:
    """What is left of the axes of a graph, by a plan."""

    def __init__(self, analysis: Analysis, plan: Plan) -> None:
        self.analysis = analysis
        self._stays = np.append(keep_mask(analysis, plan), True)  # labels without an atom have the number -1
        self._listed: dict[tuple[str, int], list[tuple[int, ...]]] = {}
        for group in plan.groups:
            for member in group.members:
                if member.removed:
                    self._listed.setdefault((member.initializer, member.axis), []).append(member.removed)
        self._masks: dict[tuple[int, int, int], Mask] = {}
        self._explained: set[tuple[str, int, bytes]] = set()

    def mask(self, labels: Labels) -> Mask:
        """Return which slices of an axis stay (bool, shape (len(labels),))."""
        key = (id(labels.base), labels.repeat, labels.tile)
        if key not in self._masks:
            self._masks[key] = labels.spread(self._stays[self.analysis.grouping.atom_of[labels.base]])
        return self._masks[key]

    def activation(self, name: str) -> Masks | None:
        """Return what stays of a value that is no constant; None where it has no labels."""
        axes = self.analysis.scope.values.get(name)
        return None if axes is None else tuple(self.mask(labels) for labels in axes)

    @cached_property
    def uses(self) -> dict[Reader, Masks]:
        """What readers of constants want, by node and slot; each checked against the lists of the plan."""
        found: dict[Reader, Masks] = {}
        for use in self.analysis.scope.space.uses:
            masks = tuple(self.mask(labels) for labels in use.axes)
            if not use.follows:
                found[use.node.index, use.slot] = masks
            root = self.analysis.constants.trace(use.tensor)
            for mask, axis in zip(masks, root.axes, strict=True):
                if axis is not None:
                    self._check_listed(root.tensor, axis, mask)
        return found

    def _check_listed(self, name: str, axis: int, mask: Mask) -> None:
        """Raise unless the removed slices are those that the plan lists for groups of this axis."""
        key = (name, axis, mask.tobytes())
        if key in self._explained or mask.all():
            return
        left = mask.copy()
        for removed in self._listed.get((name, axis), ()):
            positions = np.asarray(removed, dtype=np.int64)
            if positions[-1] < len(mask) and not mask[positions].any():
                left[positions] = True
        if not left.all():
            raise VerificationError(
                f"the plan does not list all slices of {quote(name)} axis {axis} that its groups remove"
            )
        self._explained.add(key)

    @cached_property
    def shares(self) -> dict[int, float]:
        """The factor kept / total of every mean over slices of which some go, by node."""
        counts: dict[int, list[Mask]] = {}
        for contraction in self.analysis.scope.space.contractions:
            if contraction.mean == "masked":
                mask = self.mask(contraction.labels)
                if not mask.all():
                    counts.setdefault(contraction.node.index, []).append(mask)
        return {
            index: prod(int(mask.sum()) for mask in masks) / prod(len(mask) for mask in masks)
            for index, masks in counts.items()
        }

    def touches(self, node: Node) -> bool:
        """Whether an axis of an input or output of a node loses slices."""
        values = (self.activation(name) for name in (*node.inputs, *node.outputs))
        wanted = (self.uses.get((node.index, slot)) for slot in range(len(node.inputs)))
        return any(not whole(mask) for masks in (*values, *wanted) if masks is not None for mask in masks)


@dataclass
class Demands:
    """What the readers of the pruned graph have to find.

    Attributes
    ----------
    stored : dict of str to list of masks
        Of tensors of the original file, by every reader that still reads them.
    added : dict of str to list of (str, masks)
        New tensors: the original value and what must be left of it, by every reader.
    sizes : dict of str to (node, slot)
        New tensors that spell sizes out, and where they are read.
    shapes : dict of str to masks
        What is left of constants that nodes compute by moving axes of a stored one.
    """

    stored: dict[str, list[Masks]] = field(default_factory=dict)
    added: dict[str, list[tuple[str, Masks]]] = field(default_factory=dict)
    sizes: dict[str, tuple[Node, int]] = field(default_factory=dict)
    shapes: dict[str, Masks] = field(default_factory=dict)


def find_demands(expectation: Expectation, inputs: Mapping[int, Sequence[str]]) -> Demands:
    """Return what all readers of constants have to find.

    Parameters
    ----------
    inputs : mapping of int to sequence of str
        For every node that is still there, by its index, what it reads now.

    Raises
    ------
    VerificationError
        If a reader still reads a computed value of which slices were to go.
    """
    walk = _Walk(expectation, inputs)
    for index, names in inputs.items():
        walk.visit(expectation.analysis.graph.nodes[index], names)
    graph = expectation.analysis.graph
    for name in (*graph.captured, *graph.outputs):
        if name in expectation.analysis.shapes.constant and name in expectation.analysis.shapes.dims:
            walk.follow(name, name, walk.whole(name))
    return walk.demands


class _Walk:
    """Goes from the readers of constants back to what is stored."""

    def __init__(self, expectation: Expectation, inputs: Mapping[int, Sequence[str]]) -> None:
        self._expectation = expectation
        self._analysis = expectation.analysis
        self._inputs = inputs
        self.demands = Demands()

    def whole(self, name: str) -> Masks:
        """Return masks that keep all of a value."""
        return tuple(np.ones(size, dtype=np.bool_) for size in self._analysis.shapes.dims[name])

    def visit(self, node: Node, names: Sequence[str]) -> None:
        """Note what one node has to find."""
        shapes, constants = self._analysis.shapes, self._analysis.constants
        if node.op_type in ("Shape", "Size") and not node.domain:
            return
        passes_on = all(name in shapes.constant for name in node.outputs) and constants.layout(node) is not None
        for slot, name in enumerate(names):
            old = node.inputs[slot] if slot < len(node.inputs) else ""
            if name != old and slot in size_slots(node):
                self.demands.sizes[name] = node, slot
            elif old in shapes.constant and old in shapes.dims and not (passes_on and (slot == 0 or is_scaling(node))):
                masks = self._expectation.uses.get((node.index, slot))
                self.follow(old, name, self.whole(old) if masks is None else masks)

    def follow(self, old: str, name: str, masks: Masks) -> None:
        """Note a demand on the constant `old`, which is read as `name`, where it is stored."""
        graph, constants = self._analysis.graph, self._analysis.constants
        derived = name == old and old in self._analysis.shapes.derived
        if derived and constants.stored(constants.trace(old).tensor) is None:
            return  # what is computed from shapes follows them; whether rightly so, only a run can tell
        while name == old and constants.stored(old) is None:
            node = graph.producer[old]
            layout = constants.layout(node)
            cut = [axis for axis, mask in enumerate(masks) if not mask.all()]
            if layout is None or node.index not in self._inputs or any(layout[axis] is None for axis in cut):
                if cut:
                    raise VerificationError(f"{quote(old)} is computed whole, but slices of it were to go")
                return
            self.demands.shapes[old] = masks
            kept = list(self.whole(node.inputs[0]))
            for mask, axis in zip(masks, layout, strict=True):
                if axis is not None:
                    kept[axis] = mask
            self._follow_scales(node, tuple(kept))
            old, name, masks = node.inputs[0], self._inputs[node.index][0], tuple(kept)
        if name == old:
            self.demands.stored.setdefault(old, []).append(masks)
            self.demands.shapes[old] = masks
        else:
            self.demands.added.setdefault(name, []).append((old, masks))

    def _follow_scales(self, node: Node, kept: Masks) -> None:
        """Note what a scaling node has to find of its scale and zero point, if this is left of its data."""
        if not is_scaling(node):
            return
        dims = self._analysis.shapes.dims
        for slot, old in enumerate(node.inputs[1:], start=1):
            if not old:
                continue
            found = spans(node, [len(mask) for mask in kept], dims[old])
            if found is None:
                raise VerificationError(
                    f"slices of {quote(node.inputs[0])} were to go, but its scale does not show which"
                )
            masks = list(self.whole(old))
            for at, (axis, block) in enumerate(found):
                if block:
                    blocks = kept[axis].reshape(-1, block)
                    masks[at] = blocks[:, 0]
                    if (blocks != masks[at][:, None]).any():
                        raise VerificationError(f"only a part of a block of {quote(node.inputs[0])} was to go")
            self.follow(old, self._inputs[node.index][slot], tuple(masks))
