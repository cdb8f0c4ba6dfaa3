# SPDX-License-Identifier: Apache-2.0
"""Chunks: the parts of a network that onnxruntime runs as one kernel, and the lengths that they depend on.

A convolution or matrix product takes the normalisation, the addition of another activation and the activation function
behind it into its own kernel, as far as nobody else reads what is between them. Every other node is a chunk of its own.
What a chunk takes depends on the lengths of its axes. Lengths in proportion to each other are one *feature*; most
chunks have one (a depthwise convolution, an activation function) or two (input and output channels).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import gcd
from typing import TYPE_CHECKING

from graphprune.analysis.polynomial import Length, Term
from graphprune.labels.adapt import size_attributes, size_slots
from graphprune.model.values.bodies import DOMAIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from graphprune.analysis.analysis import Analysis
    from graphprune.labels.vector import Labels
    from graphprune.model.graph import Node

__all__ = ["Axis", "Chunk", "ChunkOperand", "find_chunks"]

_HEADS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_NORMS = frozenset({"BatchNormalization"})
_SUMS = frozenset({"Add"})
_ACTIVATIONS = frozenset({"Clip", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Tanh"})
_VIEWS = frozenset({"Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
_GROUPED = frozenset({"Conv", "ConvTranspose"})  # their group follows from the lengths
_MOST_FEATURES = 2


@dataclass(frozen=True)
class Axis:
    """An axis of ``scale`` times the length of a feature; of length ``scale`` where `feature` is -1."""

    scale: int
    feature: int = -1

    def at(self, features: tuple[int, ...]) -> int:
        """Return the length, given those of the features."""
        return self.scale if self.feature < 0 else self.scale * features[self.feature]


@dataclass(frozen=True)
class ChunkOperand:
    """What a chunk reads from outside: an activation, or a constant."""

    name: str
    axes: tuple[Axis, ...]
    dtype: int
    constant: bool


@dataclass(frozen=True, eq=False)
class Chunk:
    """Nodes that run as one kernel.

    Attributes
    ----------
    nodes : tuple of Node
    operands : tuple of ChunkOperand
    features : tuple of Length
        What the axes of the operands depend on.
    work : tuple of Term
        What its time is in proportion to where it depends on more than can be measured: FLOPs, or elements.
    measurable : bool
        Whether a model of these nodes alone can be made for any lengths of the features.
    """

    nodes: tuple[Node, ...]
    operands: tuple[ChunkOperand, ...]
    features: tuple[Length, ...]
    work: tuple[Term, ...]
    measurable: bool


@dataclass
class _Features:
    """Numbers the lengths that are not in proportion to an earlier one."""

    lengths: list[Length] = field(default_factory=list)
    _known: dict[tuple[int, bytes, bytes], int] = field(default_factory=dict)

    def axis(self, length: Length) -> Axis:
        """Return an axis of this length."""
        if not len(length.groups):
            return Axis(length.full)
        scale = gcd(length.constant, *length.per_atom.tolist())
        per_atom = length.per_atom // scale
        key = length.constant // scale, length.groups.tobytes(), per_atom.tobytes()
        if key not in self._known:
            self._known[key] = len(self.lengths)
            self.lengths.append(Length(length.full // scale, length.constant // scale, length.groups, per_atom))
        return Axis(scale, self._known[key])


class _Finder:
    """Cuts one graph into chunks."""

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self._lengths: dict[tuple[int, int, int], Length] = {}
        self._uses = {(use.node.index, use.slot): use.axes for use in analysis.scope.space.uses}
        self._costs = {cost.node.index: cost for cost in analysis.scope.space.costs}

    def chunks(self) -> Iterable[Chunk]:
        """Yield the chunks of all nodes that take time."""
        taken: set[int] = set()
        for node in self._analysis.graph.nodes:
            if node.index in taken or self._idle(node):
                continue
            nodes = self._fused(node, taken)
            taken.update(item.index for item in nodes)
            yield self._chunk(nodes)

    def _idle(self, node: Node) -> bool:
        """Whether a node takes no time: it is computed beforehand, only gives another shape, or stands for an `If`."""
        constant = self._analysis.shapes.constant
        known = all(name in self._analysis.shapes.dims for name in node.outputs if name)
        return (
            node.op_type in _VIEWS
            or node.domain == DOMAIN
            or all(name in constant for name in node.outputs if name)
            or not known
        )

    def _fused(self, node: Node, taken: set[int]) -> tuple[Node, ...]:
        """Return a node with those behind it that its kernel takes in."""
        nodes = [node]
        if node.op_type not in _HEADS or node.domain:
            return (node,)
        for kind in (_NORMS, _SUMS, _ACTIVATIONS):
            after = self._only_reader(nodes[-1])
            if after is not None and after.op_type in kind and not after.domain and after.index not in taken:
                nodes.append(after)
        return tuple(nodes)

    def _only_reader(self, node: Node) -> Node | None:
        graph = self._analysis.graph
        readers = graph.consumers.get(node.outputs[0], ())
        inner = node.outputs[0] in graph.captured or node.outputs[0] in graph.outputs
        return readers[0][0] if len(readers) == 1 and not inner else None

    def _chunk(self, nodes: tuple[Node, ...]) -> Chunk:
        features = _Features()
        made = {name for node in nodes for name in node.outputs}
        operands: dict[str, ChunkOperand] = {}
        known = True
        for node in nodes:
            for slot, name in enumerate(node.inputs):
                if not name or name in made or name in operands:
                    continue
                lengths = self._read(node, slot)
                known = known and lengths is not None
                axes = tuple(features.axis(length) for length in lengths or ())
                constant = name in self._analysis.shapes.constant
                operands[name] = ChunkOperand(name, axes, self._analysis.shapes.dtypes.get(name, 0), constant)
        followed = all(self._follows(node) for node in nodes) or not features.lengths
        return Chunk(
            nodes,
            tuple(operands.values()),
            tuple(features.lengths),
            self._work(nodes, operands.values()),
            known and followed and len(features.lengths) <= _MOST_FEATURES,
        )

    def _follows(self, node: Node) -> bool:
        """Whether a node for other lengths differs in the shapes of its operands alone, or in its group."""
        spelt = any(slot < len(node.inputs) and node.inputs[slot] for slot in size_slots(node))
        set_ = any(node.attribute(name) is not None for name in size_attributes(node))
        return not node.captured and not spelt and (not set_ or node.op_type in _GROUPED)

    def _read(self, node: Node, slot: int) -> tuple[Length, ...] | None:
        """Return the lengths of what a node reads; None where they are not known."""
        name = node.inputs[slot]
        axes = self._uses.get((node.index, slot)) or self._analysis.scope.values.get(name)
        if axes is not None:
            return tuple(self._length(labels) for labels in axes)
        dims = self._analysis.shapes.dims.get(name)
        return None if dims is None else tuple(Length.fixed(size) for size in dims)

    def _length(self, labels: Labels) -> Length:
        key = (id(labels.base), labels.repeat, labels.tile)
        if key not in self._lengths:
            self._lengths[key] = self._analysis.grouping.length(labels)
        return self._lengths[key]

    def _work(self, nodes: tuple[Node, ...], operands: Iterable[ChunkOperand]) -> tuple[Term, ...]:
        costs = [self._costs[node.index] for node in nodes if node.index in self._costs]
        if costs:
            products = [product for cost in costs for product in cost.products]
            return tuple(Term(scale, tuple(self._length(axis) for axis in axes)) for scale, axes in products)
        values: Mapping[str, tuple[Labels, ...]] = self._analysis.scope.values
        names = dict.fromkeys([*(name for node in nodes for name in node.outputs), *(item.name for item in operands)])
        return tuple(
            Term(1, tuple(self._length(axis) for axis in values[name])) for name in names if name and name in values
        )


def find_chunks(analysis: Analysis) -> tuple[Chunk, ...]:
    """Cut a network into chunks, in graph order; nodes that take no time are left out."""
    return tuple(_Finder(analysis).chunks())
