# SPDX-License-Identifier: Apache-2.0
"""Counting: turn labelled axes into the exact cost polynomials of a model.

A tensor that several nodes read with *different* slices (exporters merge equal constants) is
counted once per set of slices, before and after pruning: surgery gives each its own copy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from math import prod

import numpy as np
from onnx import TensorProto

from graphprune.analysis.groups import Grouping
from graphprune.analysis.polynomial import CostModel, FewTerms, Length, Polynomial, Term
from graphprune.labels.operator import Scope
from graphprune.labels.space import MultiplyAdds, Use
from graphprune.labels.vector import Labels
from graphprune.model.graph import Node
from graphprune.model.tensors import count_bits

__all__ = ["Accounts", "Layer"]

_FLOATS = frozenset(
    value
    for name, value in TensorProto.DataType.items()
    if name in ("FLOAT", "DOUBLE", "BFLOAT16") or name.startswith(("FLOAT16", "FLOAT8", "FLOAT4", "FLOAT6"))
)


@dataclass(frozen=True, eq=False)
class Layer:
    """One counted node: its output channels, FLOPs and parameters as functions of the widths."""

    node: str
    op: str
    width: Length
    flops: FewTerms
    params: FewTerms


@dataclass
class _Stored:
    """A stored (or folded) tensor and the different ways in which its readers slice it."""

    elements: int
    bits: int
    is_float: bool
    ways: dict[tuple[bytes, ...], tuple[Length, ...]] = field(default_factory=dict)


class Accounts:
    """Costs of one labelled graph.

    Attributes
    ----------
    layers : tuple of Layer
        Counted nodes, in graph order.
    shared : frozenset of str
        Stored tensors whose readers keep different slices.
    stored : frozenset of str
        Stored tensors that are counted as such: all but those that fall when a computed constant is stored.
    """

    def __init__(self, scope: Scope, grouping: Grouping) -> None:
        self._scope = scope
        self._grouping = grouping
        self._lengths: dict[tuple[int, int, int], Length] = {}
        self._ways: dict[tuple[int, int, int], bytes] = {}
        self._uses: dict[int, list[Use]] = {}
        for use in scope.space.uses:
            self._uses.setdefault(use.node.index, []).append(use)
        self._tensors = self._collect()
        self.shared = frozenset(name for name, stored in self._tensors.items() if len(stored.ways) > 1)
        self.stored = frozenset(name for name, _ in self._stored()) - self._absorbed
        self.layers = tuple(self._layer(cost) for cost in scope.space.costs)

    def model(self) -> CostModel:
        """Return the costs of the whole model."""
        sizes = self._grouping.sizes
        flops = [term for cost in self._scope.space.costs for term in self._flops(cost)]
        params = [
            term for stored in self._tensors.values() if stored.is_float for term in _terms(stored, stored.elements)
        ]
        size = [term for stored in self._tensors.values() for term in _terms(stored, stored.bits, parts=8)]
        return CostModel(sizes, Polynomial(flops, sizes), Polynomial(params, sizes), Polynomial(size, sizes))

    def _length(self, labels: Labels) -> Length:
        """Length of an axis as a function of the widths."""
        key = (id(labels.base), labels.repeat, labels.tile)
        if key not in self._lengths:
            self._lengths[key] = self._grouping.length(labels)
        return self._lengths[key]

    def _way(self, labels: Labels) -> bytes:
        """Digest that is equal where the kept slices always are, however the labels are compressed."""
        key = (id(labels.base), labels.repeat, labels.tile)
        if key not in self._ways:
            atoms = self._grouping.atom_of[labels.base]
            spread = np.tile(np.repeat(atoms, labels.repeat), labels.tile) if (atoms >= 0).any() else atoms[:0]
            self._ways[key] = blake2b(spread.tobytes(), digest_size=16).digest() if len(spread) else b""
        return self._ways[key]

    def _flops(self, cost: MultiplyAdds) -> list[Term]:
        return [Term(2 * scale, tuple(self._length(axis) for axis in factors)) for scale, factors in cost.products]

    def _layer(self, cost: MultiplyAdds) -> Layer:
        terms = [
            Term(_rest(use.axes), tuple(self._length(axis) for axis in use.axes if axis.live))
            for use in self._uses.get(cost.node.index, ())
        ]
        missing = self._untracked(cost.node)
        return Layer(
            cost.node.label,
            cost.node.op_type,
            self._length(cost.outer),
            FewTerms(self._flops(cost)),
            FewTerms([*terms, Term(missing, ())]),
        )

    def _untracked(self, node: Node) -> int:
        """Elements of constant inputs that the rule did not label (a bias of a layer that stays whole)."""
        shapes = self._scope.shapes
        tracked = {use.slot for use in self._uses.get(node.index, ())}
        return sum(
            prod(shapes.dims[name])
            for slot, name in enumerate(node.inputs)
            if slot not in tracked and name in shapes.constant and shapes.dtypes.get(name) in _FLOATS
        )

    def _collect(self) -> dict[str, _Stored]:
        """Find all stored tensors and the ways in which they are read."""
        scope = self._scope
        tensors: dict[str, _Stored] = {}
        for name, tensor in self._stored():
            is_number = tensor.data_type in _FLOATS and len(tensor.dims) > 0 and not self._holds_integers(name)
            counted = is_number or name in scope.quantised
            packed = scope.quantised[name].bits if name in scope.quantised else 0
            tensors[name] = _Stored(prod(tensor.dims) * (8 // packed if packed else 1), count_bits(tensor), counted)
        roots = {use.tensor: scope.constants.trace(use.tensor) for use in scope.space.uses}
        folded = [name for name in dict.fromkeys(root.tensor for root in roots.values()) if name not in tensors]
        self._absorbed = frozenset(scope.constants.absorbed(folded)) & tensors.keys()
        for source in self._absorbed:
            tensors[source] = _Stored(0, 0, tensors[source].is_float)
        tensors.update((name, self._folded(name)) for name in folded)
        for use in scope.space.uses:
            root = roots[use.tensor]
            axes = {stored: use.axes[at] for at, stored in enumerate(root.axes) if stored is not None}
            traced = {stored: (self._length(axis), self._way(axis)) for stored, axis in axes.items()}
            rank = len(scope.shapes.dims[root.tensor])
            lengths = tuple(
                traced[at] if at in traced else (Length.fixed(scope.shapes.dims[root.tensor][at]), b"")
                for at in range(rank)
            )
            tensors[root.tensor].ways.setdefault(
                tuple(key for _, key in lengths), tuple(length for length, _ in lengths)
            )
        self._add_whole_readers(tensors, folded)
        return tensors

    def _stored(self) -> Iterable[tuple[str, TensorProto]]:
        yield from self._scope.graph.initializers.items()
        for node in self._scope.graph.nodes:
            if node.op_type == "Constant" and not node.domain and isinstance(node.attribute("value"), TensorProto):
                yield node.outputs[0], node.attribute("value")

    def _holds_integers(self, name: str) -> bool:
        """Whether a tensor is only cast to integers: before operator set 9, `Constant` nodes held sizes as floats."""
        readers = self._scope.graph.consumers.get(name, [])
        return bool(readers) and all(
            node.op_type == "Cast" and node.attribute("to") not in _FLOATS for node, _ in readers
        )

    def _folded(self, name: str) -> _Stored:
        """Count a computed constant as if it were stored; what is made from sizes is no parameter."""
        shapes = self._scope.shapes
        if name in shapes.derived:
            return _Stored(0, 0, False)
        probe = TensorProto(data_type=shapes.dtypes.get(name, TensorProto.FLOAT), dims=shapes.dims[name])
        return _Stored(prod(shapes.dims[name]), count_bits(probe), probe.data_type in _FLOATS)

    def _add_whole_readers(self, tensors: dict[str, _Stored], folded: list[str]) -> None:
        """Count readers without a recorded use: they read their constant whole, unless folding ends them."""
        scope = self._scope
        tracked = {(use.node.index, use.slot) for use in scope.space.uses}
        gone = scope.constants.superseded(folded, tracked)
        for name, stored in tensors.items():
            if not stored.ways:
                stored.ways[()] = ()
                continue
            whole = tuple(b"" for _ in next(iter(stored.ways)))
            readers = scope.constants.readers(name)
            if any((node.index, slot) not in tracked and node.index not in gone for node, slot in readers):
                stored.ways.setdefault(whole, tuple(Length.fixed(size) for size in scope.shapes.dims[name]))


def _rest(axes: Iterable[Labels]) -> int:
    return prod(len(axis) for axis in axes if not axis.live)


def _terms(stored: _Stored, total: int, parts: int = 1) -> Iterable[Term]:
    """One term per way in which the tensor is read; `total` elements or bits at full size, `parts` of them to count."""
    for lengths in stored.ways.values():
        if not lengths:
            yield Term(total, (), parts)
            continue
        full = prod(length.full for length in lengths)
        each, rest = divmod(total, full) if full else (0, total)
        if rest:
            yield Term(total, (), parts)
        elif each % parts:
            yield Term(each, lengths, parts)
        else:
            yield Term(each // parts, lengths)
