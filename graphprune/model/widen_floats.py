# SPDX-License-Identifier: Apache-2.0
"""Widening: a copy of a model in which small float types are float32, for runtimes without kernels for them.

From bfloat16 and float16 this is exact: every weight keeps its value, and only what is computed is rounded later. What
is computed from nothing but weights and shapes is rounded as before, for another copy may hold it stored already.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, helper

from graphprune.model.graph import subgraphs
from graphprune.model.load import Model
from graphprune.model.tensors import is_external
from graphprune.model.validity.survey import survey

__all__ = ["HALVES", "NARROW", "widened"]

NARROW = frozenset({TensorProto.BFLOAT16, TensorProto.FLOAT16, TensorProto.DOUBLE})
"""Float types that become float32; the weights of the last one are rounded, in both models alike."""

HALVES = frozenset({TensorProto.BFLOAT16, TensorProto.FLOAT16})
"""Float types of 16 bits."""

_MEASURING = ("Shape", "Size")
_TRUTHS = frozenset({"And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or"})
_TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype", "stash_type"})


def widened(model: Model) -> Model:
    """Return a copy with all `NARROW` types turned into float32; it is for running only."""
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    for held in survey(proto).tensors:
        if held.tensor.data_type in NARROW:
            _widen_tensor(model, held.tensor)
    _widen_graph(proto.graph)
    _round_after(proto.graph, _steady_halves(model.proto.graph))
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


def _steady_halves(graph: GraphProto) -> dict[str, int]:
    """Return what is computed in a half type from nothing but weights and shapes, with that type."""
    given = {value.name for value in graph.input}
    stored = [tensor for tensor in graph.initializer if tensor.name not in given]
    steady = {"", *(tensor.name for tensor in stored)}
    kinds = {tensor.name: tensor.data_type for tensor in stored}
    computed: dict[str, int] = {}
    for node in graph.node:
        measured = node.op_type in _MEASURING and not node.domain
        if not measured and (list(subgraphs(node)) or not steady.issuperset(node.input)):
            continue
        steady.update(node.output)
        named = [attribute.i for attribute in node.attribute if attribute.name in _TYPE_ATTRIBUTES]
        read = [kinds[name] for name in node.input if kinds.get(name) in HALVES and not measured]
        kind = next(iter((*named, *read)), TensorProto.UNDEFINED)
        if kind in HALVES and node.op_type not in _TRUTHS:
            kinds.update(dict.fromkeys(node.output, kind))
            computed.update(dict.fromkeys(node.output, kind))
    return computed


def _round_after(graph: GraphProto, halves: dict[str, int]) -> None:
    """Round results as the half type does that they had, and give them their names back as float32."""
    if not halves:
        return
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:]
    for node in nodes:
        graph.node.append(node)
        for slot, name in enumerate(node.output):
            if name in halves:
                graph.node[-1].output[slot] = wide = f"{name}.graphprune.wide"
                half = f"{name}.graphprune.half"
                graph.node.append(helper.make_node("Cast", [wide], [half], to=halves[name]))
                graph.node.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))


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
