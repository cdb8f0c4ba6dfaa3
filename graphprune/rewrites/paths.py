# SPDX-License-Identifier: Apache-2.0
"""Paths: what stands between the weights that make the channels of a group and the weights that read them.

Two channels may be merged only where everything on the way treats them alike:

- *scaled*: a channel that is ``a`` times another one stays so. Every operator is linear or positively homogeneous
  (``f(a x) = a f(x)`` for a > 0: `Relu`, pools, sums, moving of elements). Affine operators per channel right behind
  the weights that make it (`BatchNormalization`) are seen as a part of these.
- *equal*: only equal channels stay equal. Every operator works on each channel in the same way, with constants that
  must be equal too.
- *none*: something mixes the channels, or reads them without weights that could take a merged channel over; or no
  weight tells whether they are equal.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from graphprune.labels.rules.elementwise import BROADCASTING, UNARY
from graphprune.model.tensors import FLOATS
from graphprune.rewrites.affine import affine_behind
from graphprune.rewrites.readers import goes_by_groups

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.analysis.groups import Group, Member
    from graphprune.labels.space import Use
    from graphprune.labels.vector import Labels
    from graphprune.model.graph import Node
    from graphprune.rewrites.affine import Affine
    from graphprune.rewrites.readers import Reader, Sites

__all__ = ["Grade", "Maker", "Path", "atom_positions", "find_paths"]

Grade = Literal["scaled", "equal", "none"]

_MOVING = frozenset(
    {
        *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "SpaceToDepth"),
        *("Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    }
)
_HOMOGENEOUS = _MOVING | {
    *("Abs", "AveragePool", "Dropout", "GlobalAveragePool", "GlobalMaxPool", "LeakyRelu", "MaxPool", "PRelu"),
    *("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Resize", "Upsample"),
}
"""Positively homogeneous, whatever else they read; others are under a condition."""
_SUMS = frozenset({"Add", "Max", "Mean", "Min", "Sub", "Sum"})
_PER_CHANNEL = _HOMOGENEOUS.union(
    UNARY,
    BROADCASTING,
    ("BatchNormalization", "DequantizeLinear", "GlobalLpPool", "InstanceNormalization", "LogSoftmax", "LpPool", "Pad"),
    ("QuantizeLinear", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd", "ReduceSumSquare"),
    ("Softmax",),
)
_PER_SLICE = _PER_CHANNEL | {"MatMul"}
"""A product of two activations sees slices of an axis that it does not sum over one by one, as those of heads."""
_MAKERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_GRADES: tuple[Grade, ...] = ("none", "equal", "scaled")


@dataclass(frozen=True, eq=False)
class Maker:
    """A weight that makes channels, and what affine operators do to them right behind it."""

    use: Use
    axis: int
    behind: Affine


@dataclass(eq=False)
class Path:
    """What is known of the way of a group's channels.

    Attributes
    ----------
    grade : {"scaled", "equal", "none"}
    why : str
        What keeps the grade below "scaled".
    makers : list of Maker
    sites : list of Reader
        Where weights read the channels.
    """

    grade: Grade = "scaled"
    why: str = ""
    makers: list[Maker] = field(default_factory=list)
    sites: list[Reader] = field(default_factory=list)

    @property
    def columns(self) -> frozenset[tuple[str, int | None]]:
        """The axes of stored weights along which merging adds up slices; on all others, merged ones must be equal."""
        return frozenset((site.tensor, site.stored_column) for site in self.sites)

    def compared(self, group: Group) -> tuple[Member, ...]:
        """Return the members whose slices must be equal where the channels are."""
        return tuple(member for member in group.members if (member.initializer, member.axis) not in self.columns)

    def lower(self, grade: Grade, why: str) -> None:
        """Let the grade be no better than this."""
        if _GRADES.index(grade) < _GRADES.index(self.grade):
            self.grade, self.why = grade, why


def find_paths(analysis: Analysis, sites: Sites) -> tuple[Path, ...]:
    """Return the path of each group.

    Complexity: O(values + labels).
    """
    walk = _Walk(analysis, sites)
    return tuple(walk.path(number, group) for number, group in enumerate(analysis.groups))


class _Walk:
    """Looks at every value that carries channels, and at who makes and reads it."""

    def __init__(self, analysis: Analysis, sites: Sites) -> None:
        self._analysis = analysis
        self._sites = sites
        self._known: dict[int, frozenset[int]] = {}
        self._uses: dict[int, list[Use]] = defaultdict(list)
        for use in analysis.scope.space.uses:
            self._uses[use.node.index].append(use)
        self._contracted = defaultdict(list)
        for contraction in sites.contractions:
            self._contracted[contraction.node.index].append(contraction)
        self._of = {
            name: frozenset[int]().union(*(self._owners(labels) for labels in axes))
            for name, axes in analysis.scope.values.items()
        }
        self._touched: list[dict[int, Node]] = [{} for _ in analysis.groups]
        graph = analysis.graph
        for name, groups in self._of.items():
            nodes = [node for node, _ in graph.consumers.get(name, ())]
            nodes += [graph.producer[name]] if name in graph.producer else []
            for group in groups:
                self._touched[group].update((node.index, node) for node in nodes)

    def path(self, number: int, group: Group) -> Path:
        """Grade the path of one group."""
        path = Path()
        absorbed: set[int] = set()
        for node in self._touched[number].values():
            for use in self._uses[node.index]:
                for axis, (role, labels) in enumerate(zip(use.roles, use.axes, strict=True)):
                    if role == "out" and number in self._owners(labels):
                        absorbed |= self._add_maker(path, use, axis, number)
        for node in self._touched[number].values():
            if node.index not in absorbed:
                self._grade(path, node, number)
        if not path.makers:
            path.lower("equal" if path.compared(group) else "none", "no weight makes its channels")
        _check_positions(path, group)
        return path

    def _owners(self, labels: Labels) -> frozenset[int]:
        """Return the groups that have slices on an axis."""
        if not labels.live:
            return frozenset()
        key = id(labels.base)
        if key not in self._known:
            grouping = self._analysis.grouping
            atoms = grouping.atom_of[labels.base]
            self._known[key] = frozenset(np.unique(grouping.group_of[atoms[atoms >= 0]]).tolist())
        return self._known[key]

    def _add_maker(self, path: Path, use: Use, axis: int, number: int) -> frozenset[int]:
        """Note a weight that makes channels; return the operators behind it that count as part of it."""
        node = use.node
        if node.domain or node.op_type not in _MAKERS:
            path.lower("equal", f"{node.op_type} makes its channels")
            return frozenset()
        out = self._analysis.scope.values[node.outputs[0]]
        place = [at for at, labels in enumerate(out) if number in self._owners(labels)]
        if len(place) != 1 or len(out[place[0]]) != len(use.axes[axis]):
            path.lower("none", f"{node.op_type} spreads its channels")
            return frozenset()
        behind, absorbed = affine_behind(self._analysis, node, place[0])
        path.makers.append(Maker(use, axis, behind))
        return absorbed

    def _grade(self, path: Path, node: Node, number: int) -> None:
        """Lower the grade by what one node does to the channels that it reads."""
        reads = {slot for slot, name in enumerate(node.inputs) if number in self._of.get(name, ())}
        for contraction in self._contracted[node.index]:
            if number not in self._owners(contraction.labels) or self._is_own(node, number):
                continue
            site = self._sites.at(contraction) or self._sites.within_groups(contraction)
            if site is None:
                path.lower("none", f"{node.op_type} sums over channels without weights of its own")
            elif not self._sites.editable(site):
                path.lower("none", f"the weights of {node.op_type} cannot be changed")
            else:
                path.sites.append(site)
            reads.discard(contraction.slot)
        if not reads or (node.op_type in ("Shape", "Size") and not node.domain):
            return
        if node.domain or not (node.op_type in _PER_SLICE or self._is_own(node, number)):
            path.lower("none", f"{node.op_type} mixes channels")
        elif not self._homogeneous(node, reads, number):
            path.lower("equal", f"{node.op_type} does not scale with its input")

    def _is_own(self, node: Node, number: int) -> bool:
        """Whether a convolution has a kernel of its own for each channel of the group, or for all that go together."""
        if node.op_type not in ("Conv", "ConvTranspose"):
            return False
        return goes_by_groups(self._analysis, node) or any(
            use.slot == 1 and "per_channel" in use.roles and any(number in self._owners(axis) for axis in use.axes)
            for use in self._uses[node.index]
        )

    def _homogeneous(self, node: Node, reads: set[int], number: int) -> bool:
        """Whether ``f(a x) = a f(x)`` for a > 0, where x are the inputs `reads`."""
        own = any(number in self._owners(labels) for use in self._uses[node.index] for labels in use.axes)
        if own and node.op_type != "PRelu":
            return False
        others = {slot for slot, name in enumerate(node.inputs) if name} - reads
        if node.op_type in _SUMS:
            return not others
        if node.op_type == "Mul":
            return len(reads) == 1
        if node.op_type == "Div":
            return reads == {0}
        if node.op_type == "Cast":
            return node.attribute("to") in FLOATS
        if node.op_type == "Pad":
            return self._pads_zeros(node)
        return node.op_type in _HOMOGENEOUS

    def _pads_zeros(self, node: Node) -> bool:
        if node.attribute("mode", "constant") != "constant":
            return True
        if node.attribute("value", 0.0) != 0:
            return False
        given = node.inputs[2] if len(node.inputs) > 2 else ""
        value = self._analysis.shapes.values.get(given)
        return not given or (value is not None and not value.any())


def _check_positions(path: Path, group: Group) -> None:
    """Lower the grade unless slices of one atom correspond to those of any other, wherever they are."""
    for member in group.members:
        places = atom_positions(member, group.size)
        if places is None or (places - places[:, :1] != places[:1] - places[0, 0]).any():
            path.lower("none", "its channels lie in different orders")
        elif member.role == "out" and places.shape[1] > 1:
            path.lower("equal", "several channels go together")


def atom_positions(member: Member, size: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]] | None:
    """Return the positions of each atom along a member's axis, shape (size, k); None where their numbers differ."""
    counts = np.bincount(member.atoms, minlength=size)
    if counts.min() != counts.max():
        return None
    order = np.lexsort((member.positions, member.atoms))
    places: np.ndarray[tuple[int, int], np.dtype[np.int64]] = member.positions[order].reshape(size, -1)
    return places
