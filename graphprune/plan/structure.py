# SPDX-License-Identifier: Apache-2.0
"""The structure of a model: a digest of its graph without the weights, equal for all checkpoints of one network.

A plan may be carried over to a model with the same structure, since every name, shape,
operator and attribute that a plan depends on is in it. How a file spells that out is not: the order of stored
tensors, raw or typed storage of integers, names of open dimensions, documentation.
"""

from __future__ import annotations

import hashlib
from math import prod
from typing import TYPE_CHECKING

from onnx import AttributeProto, TensorProto, numpy_helper

from graphprune.errors import PlanError, quote
from graphprune.model.validity.survey import survey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnx import GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto

    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan

__all__ = ["check_model", "outline", "structure_digest"]

_INTEGERS = frozenset((TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL))
_LARGEST_SHAPE_CONSTANT = 4096  # elements; larger integer tensors are tables of data, like weights


def structure_digest(proto: ModelProto) -> str:
    """Return the SHA-256 of everything in a model but its weights and its documentation, those in bodies included.

    Small integer and boolean tensors are part of the structure: shapes, axes and indices are
    stored in them. Of all other tensors only names, types and shapes count.

    Complexity: O(nodes + initializers); no weight is read.
    """
    digest = hashlib.sha256()
    for opset in _opsets(proto):
        digest.update(f"opset {opset.domain!r} {opset.version}\n".encode())
    for line in _graph(proto.graph):
        digest.update(line)
    for function in proto.functions:
        digest.update(f"function {function.domain!r} {function.name!r} {list(function.input)}\n".encode())
        for node in function.node:
            digest.update(_node(node))
    return digest.hexdigest()


def outline(proto: ModelProto) -> str:
    """Return four characters for each operator set, input, output, tensor, node and attribute that counts, in order.

    Where the structure is another one, they tell what differs first.
    """
    return "".join(hashlib.sha256(line).hexdigest()[:_CHARACTERS] for _, line in _entries(proto))


_CHARACTERS = 4


def _opsets(proto: ModelProto) -> list[OperatorSetIdProto]:
    return sorted(proto.opset_import, key=lambda entry: entry.domain)


def _entries(proto: ModelProto) -> Iterator[tuple[str, bytes]]:
    """Yield all that counts with what it is called in a message."""
    for opset in _opsets(proto):
        yield f"version {opset.version} of the operators of {quote(opset.domain)}", str(opset.version).encode()
    graph = proto.graph
    for value in (*graph.input, *graph.output):
        yield f"input or output {quote(value.name)} of another type or shape", _value(value)
    for tensor in sorted(graph.initializer, key=lambda tensor: tensor.name):
        yield f"tensor {quote(tensor.name)} of shape {list(tensor.dims)}", _tensor(tensor, tensor.name)
    for node in (*graph.node, *(node for function in proto.functions for node in function.node)):
        name = quote(node.name or next(iter(node.output), ""))
        yield f"{node.op_type} node {name}, or what it reads", _head(node)
        for attribute in sorted(node.attribute, key=lambda entry: entry.name):
            yield f"attribute {quote(attribute.name)} of {node.op_type} node {name}", _attribute(attribute)


def _graph(graph: GraphProto) -> Iterator[bytes]:
    """Yield a line for everything in a graph that counts."""
    yield from (_value(value) for value in (*graph.input, *graph.output))
    yield from (_tensor(tensor, tensor.name) for tensor in sorted(graph.initializer, key=lambda tensor: tensor.name))
    yield from (_node(node) for node in graph.node)


def _value(value: ValueInfoProto) -> bytes:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return f"value {value.name!r} {kind}\n".encode()
    tensor = value.type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else "?" for dim in tensor.shape.dim]
    return f"value {value.name!r} {tensor.elem_type} {dims if tensor.HasField('shape') else '?'}\n".encode()


def _tensor(tensor: TensorProto, name: str) -> bytes:
    head = f"tensor {name!r} {tensor.data_type} {list(tensor.dims)}\n".encode()
    stored_here = tensor.data_location != TensorProto.EXTERNAL
    if tensor.data_type not in _INTEGERS or prod(tensor.dims) > _LARGEST_SHAPE_CONSTANT or not stored_here:
        return head
    return head + numpy_helper.to_array(tensor).tobytes()


def _head(node: NodeProto) -> bytes:
    return f"node {node.domain!r} {node.op_type!r} {node.name!r} {list(node.input)} {list(node.output)}\n".encode()


def _node(node: NodeProto) -> bytes:
    return _head(node) + b"".join(
        _attribute(attribute) for attribute in sorted(node.attribute, key=lambda entry: entry.name)
    )


def _attribute(attribute: AttributeProto) -> bytes:
    head = f"attribute {attribute.name!r} ".encode()
    if attribute.type == AttributeProto.TENSOR:
        return head + _tensor(attribute.t, "")
    if attribute.type == AttributeProto.GRAPH:
        return head + b"".join(_graph(attribute.g)) + b"end\n"
    if attribute.type == AttributeProto.SPARSE_TENSOR:
        return head + f"sparse {list(attribute.sparse_tensor.dims)}\n".encode()
    bare = AttributeProto()
    bare.CopyFrom(attribute)
    bare.ClearField("doc_string")
    return bare.SerializeToString(deterministic=True)


def _first_difference(plan: Plan, proto: ModelProto) -> str:
    """Say what of that which a plan names is not there, or is otherwise, in a model."""
    held = survey(proto)
    operators = {name: node.op_type for node in held.nodes for name in (node.name, *node.output[:1]) if name}
    for layer in plan.layers:
        name = layer.node.partition("@")[0]  # a name that two bodies share has got a number
        if name not in operators:
            return f"there is no node {quote(name)}"
        if operators[name] != layer.op:
            return f"node {quote(name)} is {operators[name]}, not {layer.op}"
    dims = {
        tensor.name or ("" if holder is None else holder.output[0]): list(tensor.dims)
        for tensor, holder in ((entry.tensor, entry.node) for entry in held.tensors)
    }
    for member in (member for group in plan.groups for member in group.members):
        shape = dims.get(member.initializer)
        if shape and member.removed and (member.axis >= len(shape) or max(member.removed) >= shape[member.axis]):
            return f"weight {quote(member.initializer)} has shape {shape}, so axis {member.axis} is too short"
    return _other_input(plan, proto) or _other_entry(plan, proto) or "some attribute, shape or connection is otherwise"


def _other_entry(plan: Plan, proto: ModelProto) -> str:
    """Say what comes first of that which the model of the plan did not have; empty where the plan does not tell."""
    known = plan.solver.options.get("outline")
    if not isinstance(known, str) or not known:
        return ""
    at = 0
    for what, line in _entries(proto):
        if known[at : at + _CHARACTERS] != hashlib.sha256(line).hexdigest()[:_CHARACTERS]:
            return f"it has {what}"
        at += _CHARACTERS
    return "nodes are missing at its end" if len(known) > at else ""


def _other_input(plan: Plan, proto: ModelProto) -> str:
    """Say which input is missing or has another shape."""
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in proto.graph.input}
    for name, shape in plan.model.inputs.items():
        if name not in shapes:
            return f"there is no input {quote(name)}"
        own = shapes[name]
        if len(own) != len(shape) or any(size > 0 and size != it for size, it in zip(own, shape, strict=True)):
            return f"input {quote(name)} has shape {own}, not {list(shape)}"
    return ""


def check_model(plan: Plan, model: Model, *, rebind: bool) -> None:
    """Refuse a plan of another model; nothing else that is wrong would say what the matter is."""
    if plan.model.sha256 == model.sha256:
        return
    name = quote(model.name)
    if plan.solver.options.get("structure") != structure_digest(model.proto):
        raise PlanError(
            f"the plan was made for another model ({quote(plan.model.name)}), {name} has another structure: "
            f"{_first_difference(plan, model.proto)}",
            hint="make a new plan with `graphprune solve`",
        )
    if not rebind:
        raise PlanError(
            f"the plan was made for another file than {name}: the structure is the same, the contents differ",
            hint="to use it for this file all the same, give --rebind (rebind=True)",
        )
