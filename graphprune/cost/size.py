# SPDX-License-Identifier: Apache-2.0
"""The size of the written file: the bytes of its tensors, and an upper bound for everything else.

What a pruned file holds beside its tensors depends a little on which channels stay: names of copies, constants that
spell new sizes, and the list of kept positions in the metadata. So the size is bounded instead of predicted:

- *tensors*: exactly, as a function of the widths (`CostModel.size`);
- *kept positions*: at most as many digits each as the last position of their axis has, also a function of the widths;
- *the graph*: what the original has beside these tensors, which surgery only shortens, and for every edit that it may
  make the longest form that the edit can take. Both do not depend on the widths.

The bound is never below what is written, and usually within 1 % above it.
"""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from graphprune.analysis.polynomial import Length, Polynomial, Term
from graphprune.labels.adapt import adapter_for, size_slots
from graphprune.model.files.inline_tensors import FREE_INITIALIZERS
from graphprune.model.files.messages import copy_but
from graphprune.model.tensors import DATA_FIELDS, count_bytes, is_external
from graphprune.model.validity.survey import survey
from graphprune.model.write import ALIGNMENT, KEPT_OUTSIDE

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from graphprune.analysis.analysis import Analysis
    from graphprune.analysis.groups import Group

__all__ = ["WrittenSize"]

_HEADER = 24  # tags and lengths around one small message and all that hold it: each at most 1 + 5 bytes
_VARINT = 11  # a tag and a number of 64 bits
_SUFFIX = 24  # what surgery appends to a name: ".pruned0", ".12345.3.held", ".sizes.pruned", a number against clashes
_MARKS = 400  # keys of the metadata, the digest of the plan, and what is said of the verification
_LOCATION = 400  # where a tensor lies in a data file: a file name of at most 255 bytes, offset and length
_NODE = 160  # operator, attributes and tags of a node that surgery adds


class WrittenSize:
    """Bytes of the file that is written for given widths, never too few; as if it were written anew even at full width.

    Parameters
    ----------
    analysis : Analysis
    """

    def __init__(self, analysis: Analysis) -> None:
        self._tensors = analysis.cost.size
        self._positions = Polynomial(list(_positions(analysis)), analysis.cost.sizes)
        self._rest = _graph(analysis) + _edits(analysis) + _MARKS

    def __call__(self, widths: npt.NDArray[np.int64]) -> int:
        """Return the bound at `widths`, int64 of shape (groups,)."""
        return self._tensors(widths) + self._positions(widths) + self._rest

    def alternatives(self) -> list[list[Term]]:
        """Return the terms that the bound is the sum of."""
        parts = (*self._tensors.alternatives(), *self._positions.alternatives())
        return [[*(term for terms in parts for term in terms), Term(self._rest, ())]]

    def shifted(self, by: int) -> WrittenSize:
        """Return the same with as many bytes more at any widths, which is a bound only where `by` is positive."""
        other = copy.copy(self)
        other._rest += by
        return other

    def change(self, widths: npt.NDArray[np.int64], group: int, width: int) -> int:
        """Return by how much the bound changes when `group` moves from ``widths[group]`` to `width`."""
        return self._tensors.change(widths, group, width) + self._positions.change(widths, group, width)


def _positions(analysis: Analysis) -> Iterable[Term]:
    """Yield the text of the kept positions: digits and a comma for each, and what stands around each list."""
    axes: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for number, group in enumerate(analysis.groups):
        for name, axis, count in _makers(group):
            axes.setdefault((name, axis), []).append((number, count))
    for (name, axis), shares in axes.items():
        full = analysis.shapes.dims[name][axis]
        groups = np.array([number for number, _ in shares], dtype=np.int64)
        per_atom = np.array([count // analysis.groups[number].size for number, count in shares], dtype=np.int64)
        length = Length(full, full - sum(count for _, count in shares), groups, per_atom)
        yield Term(len(str(full)) + 1, (length,))
        yield Term(len(json.dumps(name)) + len(json.dumps(str(axis))) + 8, ())


def _makers(group: Group) -> Iterable[tuple[str, int, int]]:
    """Yield the axes whose kept positions the metadata lists (see `surgery.marks`), with the group's slices on it."""
    makers = [member for member in group.members if member.role == "out"] or group.members
    counts = {(member.initializer, member.axis): len(member.positions) for member in makers}
    yield from ((name, axis, count) for (name, axis), count in counts.items())


def _graph(analysis: Analysis) -> int:
    """Return what the original takes beside the tensors that are counted."""
    proto = analysis.flat.restore(analysis.graph.proto)
    total: int = proto.ByteSize()
    for name in analysis.stored:
        tensor = analysis.constants.stored(name)
        if tensor is not None and not is_external(tensor):
            total -= min(_encoded(tensor), count_bytes(tensor))
    return total + _outside(analysis, [entry.tensor for entry in survey(proto).tensors])


def _encoded(tensor: TensorProto) -> int:
    """Return the bytes that the values of a tensor take inside the file."""
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data)
    bare = TensorProto()
    copy_but(tensor, bare, *DATA_FIELDS)
    return int(tensor.ByteSize() - bare.ByteSize())


def _outside(analysis: Analysis, tensors: list[TensorProto]) -> int:
    """Return what a data file costs beside the tensors in it, or putting them into the model."""
    if not any(map(is_external, tensors)) and analysis.cost.size(analysis.cost.sizes) <= KEPT_OUTSIDE:
        return 0
    return sum(_LOCATION + _HEADER + ALIGNMENT for tensor in tensors if count_bytes(tensor)) + _HEADER * sum(
        map(is_external, tensors)
    )


def _edits(analysis: Analysis) -> int:
    """Return the most that the edits of the surgery add, the values of copied tensors apart."""
    forms = 1 if analysis.model.proto.ir_version >= FREE_INITIALIZERS else 3  # as nodes, they have three names
    return forms * (_copies(analysis) + _sizes(analysis) + _means(analysis))


def _copies(analysis: Analysis) -> int:
    """Headers of tensors that some reader gets a copy of, or that are computed now and stored then."""
    total = 0
    for use in analysis.scope.space.uses:
        root = analysis.constants.trace(use.tensor).tensor
        if root in analysis.shared or root != use.tensor or root not in analysis.stored:
            name = max(len(root.encode()), len(use.tensor.encode()))
            total += 2 * (name + _SUFFIX) + _HEADER + _VARINT * (1 + len(use.axes))
    return total


def _sizes(analysis: Analysis) -> int:
    """Constants that spell sizes anew, splice some of them, or hold what was computed from a size."""
    shapes, total = analysis.shapes, 0
    for node in analysis.graph.nodes:
        label = max([len(name.encode()) for name in (*node.inputs, *node.outputs)], default=0) + _SUFFIX
        if adapter_for(node) is not None and size_slots(node):
            total += _NODE
        slots = size_slots(node)
        for slot, name in enumerate(node.inputs):
            value = shapes.values.get(name)
            if slot in slots:
                count = 16 if value is None else value.size
                total += 8 * label + 5 * _HEADER + _NODE + 2 * _VARINT * count
            elif name in shapes.derived:
                total += 2 * label + 2 * _HEADER + (0 if value is None else 2 * value.nbytes)
    return total


def _means(analysis: Analysis) -> int:
    """Bound what a factor behind each mean over channels takes: a node, a number and their names."""
    total = 0
    for contraction in analysis.scope.space.contractions:
        if contraction.mean == "masked":
            name = max(len(contraction.node.outputs[0].encode()), len(contraction.node.proto.name.encode()))
            total += 6 * (name + _SUFFIX) + 2 * _HEADER + _NODE
    return total
