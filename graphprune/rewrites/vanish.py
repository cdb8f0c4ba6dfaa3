# SPDX-License-Identifier: Apache-2.0
"""Effects: the nodes that vanish with emptied groups, and what their readers find instead.

A value with an axis of which no slice stays is *void*, and the nodes that make it vanish. A layer that sums over
nothing gives its bias: the same for every input, so it vanishes too, and whatever only reads such *constants*. Where
they meet what the network still computes, in an addition or another elementwise operator, a small constant takes their
place; an addition of zeros goes as well. `Concat` reads fewer inputs. Anything else that would have to read a void or a
constant makes the emptying illegal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from graphprune.array_types import Array, Mask
from graphprune.labels.rules.elementwise import BROADCASTING, UNARY
from graphprune.model.evaluation.arithmetic import evaluate
from graphprune.model.values.bodies import DOMAIN

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.labels.vector import Labels
    from graphprune.model.graph import Node

__all__ = ["MEETS", "Effects", "find_effects"]

Reader = tuple[int, int]

_FOLLOWS = frozenset({*UNARY, *BROADCASTING, "BatchNormalization", "GlobalAveragePool", "GlobalMaxPool", "Transpose"})
"""Operators that make a constant of constants, and may be run on one of which axes are cut to length 1."""
_REGROUPS = frozenset({"AveragePool", "Flatten", "MaxPool", "ReduceMean", "Reshape", "Squeeze", "Unsqueeze"})
"""The same for operators that see the lengths of axes."""
MEETS = frozenset(BROADCASTING) - {"Where"}
"""Operators that may read a constant beside what the network computes."""
_LARGEST = 1 << 20  # elements of a constant that is worth computing


@dataclass
class Effects:
    """What emptied groups do to a graph.

    Attributes
    ----------
    why : str
        Why it cannot be done; empty where it can.
    needs : frozenset of int
        Groups that have to be emptied, too, before it can be told.
    vanished : set of int
        Nodes that are gone.
    constants : dict of (int, int) to ndarray
        By node and input, what is read instead of what nobody makes any more.
    dropped : set of (int, int)
        Inputs that a `Concat` loses.
    bypassed : dict of str to str
        Results of additions of zeros, and what their readers read instead.
    """

    why: str = ""
    needs: frozenset[int] = frozenset()
    vanished: set[int] = field(default_factory=set)
    constants: dict[Reader, Array] = field(default_factory=dict)
    dropped: set[Reader] = field(default_factory=set)
    bypassed: dict[str, str] = field(default_factory=dict)

    def replaced(self, name: str) -> str:
        """Return what is read instead of a value."""
        while name in self.bypassed:
            name = self.bypassed[name]
        return name


def find_effects(analysis: Analysis, keep: Mask) -> Effects:
    """Return what the groups do of which nothing is kept.

    Parameters
    ----------
    keep : ndarray of bool, shape (atoms,)

    Complexity: O(values + labels) where some group is empty, else O(atoms).
    """
    kept = np.bincount(analysis.grouping.group_of[keep], minlength=len(analysis.groups))
    if (kept > 0).all():
        return Effects()
    return _Walk(analysis, keep).run()


class _Walk:
    """Follows voids and constants through the graph."""

    def __init__(self, analysis: Analysis, keep: Mask) -> None:
        self._analysis = analysis
        self._gone: Mask = np.append(~keep, False)
        self._void: dict[int, bool] = {}
        self._constants: dict[str, Array] = {}
        self._voids: set[str] = set()
        self.effects = Effects()

    def run(self) -> Effects:
        """Go through all nodes in order, then see what nobody reads any more."""
        graph, shapes = self._analysis.graph, self._analysis.shapes
        for name, axes in self._analysis.scope.values.items():
            if any(self._is_void(labels) for labels in axes):
                self._voids.add(name)
        for node in graph.nodes:
            if not any(name in shapes.constant for name in node.outputs if name):
                self._visit(node)
            if self.effects.why or self.effects.needs:
                return self.effects
        lost = self._voids | set(self._constants)
        for name in (*graph.outputs, *graph.captured):
            if name in lost:
                return self._refuse(f"the output {name!r} would no longer depend on the input")
        self._bury()
        for name in lost:
            for node, slot in graph.consumers.get(name, ()):
                reader = node.index, slot
                if not (node.index in self.effects.vanished or reader in self._handled):
                    return self._refuse(f"{node.op_type} reads the shape of what would be gone")
        return self.effects

    @property
    def _handled(self) -> set[Reader]:
        return self.effects.dropped | set(self.effects.constants)

    def _refuse(self, why: str) -> Effects:
        self.effects.why = self.effects.why or why
        return self.effects

    def _is_void(self, labels: Labels) -> bool:
        """Whether no slice of an axis stays."""
        if not labels.live:
            return False
        key = id(labels.base)
        if key not in self._void:
            self._void[key] = bool(self._gone[self._analysis.grouping.atom_of[labels.base]].all())
        return self._void[key]

    def _visit(self, node: Node) -> None:
        """Decide what becomes of one node."""
        outputs = [name for name in node.outputs if name]
        if any(name in self._voids for name in outputs):
            if node.domain == DOMAIN:
                self._refuse(f"{node.op_type.removesuffix('Entry')} hands on what would be gone")
            elif all(name in self._voids for name in outputs):
                self.effects.vanished.add(node.index)
            else:
                self._refuse(f"{node.op_type} makes more than what would be gone")
            return
        empty = [slot for slot, name in enumerate(node.inputs) if name in self._voids]
        fixed = [slot for slot, name in enumerate(node.inputs) if name in self._constants]
        if empty:
            self._read_nothing(node, empty, fixed)
        elif fixed:
            self._read_constants(node, fixed)

    def _read_nothing(self, node: Node, empty: list[int], fixed: list[int]) -> None:
        """Look at a node that reads voids and makes something."""
        if node.op_type == "Concat" and not node.domain and not fixed and len(empty) < len(node.inputs):
            self.effects.dropped.update((node.index, slot) for slot in empty)
            return
        made = None if node.domain or len(node.outputs) != 1 else self._bias(node, empty)
        if made is None:
            self._refuse(f"{node.op_type} cannot do without its input")
            return
        self.effects.vanished.add(node.index)
        self._constants[node.outputs[0]] = made

    def _bias(self, node: Node, empty: list[int]) -> Array | None:
        """Return what a layer makes that sums over nothing, with axes of length 1 where it is the same all along."""
        analysis = self._analysis
        weighted = {"Conv": (0,), "ConvTranspose": (0,), "Gemm": (0,), "MatMul": (0, 1)}.get(node.op_type, ())
        (slot,) = empty if len(empty) == 1 else (-1,)
        contracted = [
            contraction
            for contraction in analysis.scope.space.contractions
            if contraction.node is node and contraction.slot == slot and self._is_void(contraction.labels)
        ]
        if slot not in weighted or not contracted or node.inputs[1 - slot] not in analysis.shapes.constant:
            return None
        dtype = analysis.constants.array(node.inputs[1 - slot]).dtype
        dims = analysis.shapes.dims[node.outputs[0]]
        axis = 1 if node.op_type != "MatMul" else len(dims) - 1
        if node.op_type == "MatMul" and slot == 1:
            axis = len(dims) - 2
        shape = [1] * len(dims)
        shape[axis] = dims[axis]
        if len(node.inputs) < 3 or not node.inputs[2]:
            return np.zeros(shape, dtype=dtype)
        try:
            bias = analysis.constants.array(node.inputs[2])
        except KeyError:
            return None
        factor = node.attribute("beta", 1.0) if node.op_type == "Gemm" else 1.0
        if node.op_type == "Gemm" and bias.ndim == len(dims) and bias.shape[0] != 1:
            return None
        row = np.broadcast_to(bias.ravel(), dims[axis]).reshape(shape)
        return row.astype(dtype) if factor == 1 else (row.astype(np.float64) * factor).astype(dtype)

    def _read_constants(self, node: Node, fixed: list[int]) -> None:
        """Look at a node that reads what is the same for every input."""
        shapes = self._analysis.shapes
        others = [
            slot for slot, name in enumerate(node.inputs) if name and slot not in fixed and name not in shapes.constant
        ]
        if not others:
            self._make_constant(node, fixed)
            return
        target = shapes.dims.get(node.outputs[0])
        spans = any(shapes.dims.get(node.inputs[slot]) == target for slot in others)
        small = all(self._constants[node.inputs[slot]].size <= _LARGEST for slot in fixed)
        if node.op_type == "Concat" and not node.domain and self._needs_all_of(node, fixed):
            return
        if node.domain or node.op_type not in MEETS or not spans or not small:
            self._refuse(f"{node.op_type} would read a constant")
            return
        if self._adds_nothing(node, fixed):
            self.effects.bypassed[node.outputs[0]] = node.inputs[others[0]]
            self.effects.vanished.add(node.index)
            return
        for slot in fixed:
            self.effects.constants[node.index, slot] = self._constants[node.inputs[slot]]

    def _needs_all_of(self, node: Node, fixed: list[int]) -> bool:
        """Ask for the channels that a `Concat` would read as constants, if all of them can go."""
        grouping, values = self._analysis.grouping, self._analysis.scope.values
        axis = node.attribute("axis", 1) % len(self._analysis.shapes.dims[node.outputs[0]])
        atoms = grouping.atom_of[np.concatenate([values[node.inputs[slot]][axis].base for slot in fixed])]
        if (atoms < 0).any():
            return False
        self.effects.needs |= frozenset(np.unique(grouping.group_of[atoms]).tolist())
        return True

    def _adds_nothing(self, node: Node, fixed: list[int]) -> bool:
        """Whether a node adds zeros to a value that nothing outside the graph asks for."""
        graph = self._analysis.graph
        output = node.outputs[0]
        sums = node.op_type == "Add" or (node.op_type == "Sub" and fixed == [1])
        asked = output in graph.outputs or output in graph.captured
        return sums and not asked and not self._constants[node.inputs[fixed[0]]].any()

    def _make_constant(self, node: Node, fixed: list[int]) -> None:
        """Compute what a node makes of constants; a layer among them needs its channels emptied first."""
        contracted = [
            contraction
            for contraction in self._analysis.scope.space.contractions
            if contraction.node is node and contraction.slot in fixed
        ]
        if contracted:
            grouping = self._analysis.grouping
            atoms = grouping.atom_of[np.concatenate([contraction.labels.base for contraction in contracted])]
            if (atoms < 0).any():
                self._refuse(f"{node.op_type} would read a constant in channels that stay")
            else:
                self.effects.needs |= frozenset(np.unique(grouping.group_of[atoms]).tolist())
            return
        whole = node.op_type in _REGROUPS
        if node.domain or not (whole or node.op_type in _FOLLOWS) or any(node.outputs[1:]):
            self._refuse(f"{node.op_type} would read nothing but a constant")
            return
        try:
            made = evaluate(
                node, [self._operand(name, whole=whole) for name in node.inputs], self._analysis.graph.opsets
            )
        except Exception:  # the reference implementation raises whatever it likes
            self._refuse(f"{node.op_type} cannot be computed beforehand")
            return
        self._constants[node.outputs[0]] = _reduced(made[0]) if whole else made[0]
        self.effects.vanished.add(node.index)

    def _operand(self, name: str, *, whole: bool) -> Array | None:
        """Return what an input holds, constants of the graph's own included; all of it if `whole`."""
        if not name:
            return None
        if name not in self._constants:
            return self._analysis.constants.array(name)
        dims = self._analysis.shapes.dims[name]
        if whole and prod(dims) > _LARGEST:
            raise ValueError
        return np.broadcast_to(self._constants[name], dims) if whole else self._constants[name]

    def _bury(self) -> None:
        """Add the nodes that nobody reads any more."""
        graph, effects = self._analysis.graph, self.effects
        read = set(graph.outputs)
        for node in reversed(graph.nodes):
            if node.index in effects.vanished:
                continue
            read_here = [effects.replaced(name) for name in node.outputs if name]
            alive = any(name in read for name in node.outputs) or any(name in read for name in read_here)
            if not alive and any(name in graph.consumers for name in node.outputs):
                effects.vanished.add(node.index)
                continue
            read.update(node.captured)
            for slot, name in enumerate(node.inputs):
                if (node.index, slot) not in effects.constants and (node.index, slot) not in effects.dropped:
                    read.add(effects.replaced(name))


def _reduced(array: Array) -> Array:
    """Cut axes along which all is the same to length 1."""
    for axis in range(array.ndim):
        first = array.take([0], axis)
        if array.shape[axis] > 1 and (array == first).all():
            array = first
    return array
