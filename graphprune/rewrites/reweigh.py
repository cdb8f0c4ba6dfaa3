# SPDX-License-Identifier: Apache-2.0
"""Reweighing: a model with other weights and the same channels, from which surgery and its checks start.

Whatever inherits something from removed channels (merging, folding of constants, later a refit of weights) is written
as edits: new values of stored tensors, and new biases of nodes that had none or shared theirs. The *reweighted
original* is the original with these edits. Its masked form is what the pruned model must equal.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from graphprune.analysis.analysis import Analysis
from graphprune.array_types import Array
from graphprune.errors import InternalError, quote
from graphprune.model.files.inline_tensors import FREE_INITIALIZERS, as_nodes
from graphprune.model.files.messages import copy_but
from graphprune.model.tensors import DATA_FIELDS, count_bytes, is_external

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from graphprune.model.tensors import TensorStore

__all__ = ["FOLDED", "Reweighted", "WeightEdits", "reweigh"]


FOLDED = ".folded"
"""What the names of new tensors end with, besides a number where that is taken."""
_DEFERRED = 1 << 20


@dataclass
class WeightEdits:
    """New values, as plain data.

    Attributes
    ----------
    tensors : dict of str to callable
        By stored tensor, what makes its new values from the old ones; shape and type stay.
    operands : dict of (int, int) to ndarray
        By node and input, a constant that is read from now on: a bias, or what is added behind a product.
    """

    tensors: dict[str, Callable[[Array], Array]] = field(default_factory=dict)
    operands: dict[tuple[int, int], Array] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether anything is edited."""
        return bool(self.tensors or self.operands)


@dataclass(frozen=True, eq=False)
class Reweighted:
    """The reweighted original.

    Attributes
    ----------
    analysis : Analysis
        Of the model with the edits; its atoms are those of the original.
    edits : WeightEdits
    names : dict of (int, int) to str
        The new tensors of `edits.operands`.
    """

    analysis: Analysis
    edits: WeightEdits
    names: dict[tuple[int, int], str] = field(default_factory=dict)


def reweigh(analysis: Analysis, edits: WeightEdits) -> Reweighted:
    """Return the model with these edits; the original itself where there are none.

    Raises
    ------
    InternalError
        If the edits change which channels are coupled, which they must not.

    Complexity: that of an analysis; a large tensor in a data file is edited when it is read.
    """
    if not edits:
        return Reweighted(analysis, edits)
    names = {
        (index, slot): analysis.graph.unused(f"{analysis.graph.nodes[index].outputs[0]}.{slot}{FOLDED}")
        for index, slot in edits.operands
    }
    proto = _write(analysis, edits, names)
    model = replace(analysis.model.replaced(analysis.flat.restore(proto)), name=analysis.model.name)
    edited = analysis.of(model)
    same = np.array_equal(edited.grouping.atom_of, analysis.grouping.atom_of)
    if not same or not np.array_equal(edited.grouping.group_of, analysis.grouping.group_of):
        raise InternalError("other weights changed which channels are coupled")
    return Reweighted(edited, edits, names)


def _write(analysis: Analysis, edits: WeightEdits, names: dict[tuple[int, int], str]) -> ModelProto:
    """Build the message."""
    source, store = analysis.graph.proto, analysis.model.tensors
    result = ModelProto()
    copy_but(source, result, "graph")
    copy_but(source.graph, result.graph, "node", "initializer")
    new = [_tensor(analysis, edits, reader, name) for reader, name in names.items()]
    if source.ir_version < FREE_INITIALIZERS:
        result.graph.node.extend(node for tensor in new for node in as_nodes(tensor, analysis.graph.opset))
        new = []
    nodes: dict[int, NodeProto] = {}
    for (index, slot), name in names.items():
        proto = nodes.setdefault(index, _copy(analysis.graph.nodes[index].proto))
        proto.input.extend([""] * (slot + 1 - len(proto.input)))
        proto.input[slot] = name
    for node in analysis.graph.nodes:
        if node.op_type == "Constant" and not node.domain and node.outputs[0] in edits.tensors:
            proto = nodes[node.index] = _copy(node.proto)
            held = next(attribute.t for attribute in proto.attribute if attribute.name == "value")
            held.CopyFrom(_edited(store, held, edits.tensors[node.outputs[0]]))
        result.graph.node.append(nodes.get(node.index, node.proto))
    result.graph.initializer.extend(
        _edited(store, tensor, edits.tensors[tensor.name]) if tensor.name in edits.tensors else tensor
        for tensor in source.graph.initializer
    )
    result.graph.initializer.extend(new)
    return result


def _copy(proto: NodeProto) -> NodeProto:
    result = NodeProto()
    result.CopyFrom(proto)
    return result


def _tensor(analysis: Analysis, edits: WeightEdits, reader: tuple[int, int], name: str) -> TensorProto:
    """Return a new tensor in the type of what the node computes."""
    values = np.asarray(edits.operands[reader])
    dtype = analysis.shapes.dtypes[analysis.graph.nodes[reader[0]].outputs[0]]
    wanted = helper.tensor_dtype_to_np_dtype(dtype)
    raw = np.ascontiguousarray(values.astype(wanted)).tobytes()
    return TensorProto(name=name, data_type=dtype, dims=values.shape, raw_data=raw)


def _edited(store: TensorStore, tensor: TensorProto, change: Callable[[Array], Array]) -> TensorProto:
    """Return a tensor message with new values; those of a large one in a data file are made when they are read."""
    result = TensorProto()
    copy_but(tensor, result, *DATA_FIELDS)

    def make() -> bytes:
        before = store.array(tensor)
        after = np.asarray(change(before))
        if after.dtype != before.dtype or after.shape != before.shape:
            raise InternalError(f"the edit of {quote(tensor.name)} changes its shape or type")
        return after.tobytes()

    def pieces() -> Iterator[bytes]:
        yield make()

    if is_external(tensor) and count_bytes(tensor) >= _DEFERRED:
        store.defer(result, pieces)
    else:
        result.raw_data = make()
    return result
