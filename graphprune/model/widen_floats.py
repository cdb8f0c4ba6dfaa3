# SPDX-License-Identifier: Apache-2.0
"""Widening: a copy of a model in which small float types are float32, for runtimes without kernels for them.

From bfloat16 and float16 this is exact: every weight keeps its value, and only what is computed is rounded later.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, TypeProto, helper

from graphprune.model.graph import subgraphs
from graphprune.model.load import Model
from graphprune.model.survey import survey
from graphprune.model.tensors import is_external

__all__ = ["NARROW", "widened"]

NARROW = frozenset({TensorProto.BFLOAT16, TensorProto.FLOAT16, TensorProto.DOUBLE})
"""Float types that become float32; the weights of the last one are rounded, in both models alike."""

_TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype", "stash_type"})


def widened(model: Model) -> Model:
    """Return a copy with all `NARROW` types turned into float32; it is for running only."""
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    for held in survey(proto).tensors:
        if held.tensor.data_type in NARROW:
            _widen_tensor(model, held.tensor)
    _widen_graph(proto.graph)
    return model.replaced(proto)


def _widen_tensor(model: Model, tensor: TensorProto) -> None:
    source, store = TensorProto(), model.tensors
    source.CopyFrom(tensor)
    tensor.Clear()
    tensor.name, tensor.data_type = source.name, TensorProto.FLOAT
    tensor.dims.extend(source.dims)
    if is_external(source):
        dtype = helper.tensor_dtype_to_np_dtype(source.data_type)
        store.defer(
            tensor, lambda: (np.frombuffer(x, dtype).astype(np.float32).tobytes() for x in store.pieces(source))
        )
    else:
        tensor.raw_data = np.asarray(store.array(source)).astype(np.float32).tobytes()


def _widen_graph(top: GraphProto) -> None:
    """Change declared types and the attributes that name types, in all bodies."""
    pending = [top]
    while pending:
        graph = pending.pop()
        del graph.value_info[:]
        for value in (*graph.input, *graph.output):
            _widen_type(value.type)
        for node in graph.node:
            _widen_attributes(node.attribute)
            pending.extend(subgraphs(node))


def _widen_attributes(attributes: Iterable[AttributeProto]) -> None:
    for attribute in attributes:
        if attribute.name in _TYPE_ATTRIBUTES and attribute.i in NARROW:
            attribute.i = TensorProto.FLOAT


def _widen_type(kind: TypeProto) -> None:
    which = kind.WhichOneof("value")
    if which == "tensor_type" and kind.tensor_type.elem_type in NARROW:
        kind.tensor_type.elem_type = TensorProto.FLOAT
    elif which == "sequence_type":
        _widen_type(kind.sequence_type.elem_type)
    elif which == "optional_type":
        _widen_type(kind.optional_type.elem_type)
