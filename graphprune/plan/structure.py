# SPDX-License-Identifier: Apache-2.0
"""The structure of a model: a digest of its graph without the weights, equal for all checkpoints of one network.

A plan may be carried over to a model with the same structure, since every name, shape,
operator and attribute that a plan depends on is in it.
"""

from __future__ import annotations

import hashlib
from math import prod
from typing import TYPE_CHECKING

from onnx import AttributeProto, TensorProto

from graphprune.errors import PlanError, quote

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan

__all__ = ["check_model", "structure_digest"]

_INTEGERS = frozenset((TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL))
_LARGEST_SHAPE_CONSTANT = 4096  # elements; larger integer tensors are tables of data, like weights


def structure_digest(proto: ModelProto) -> str:
    """Return the SHA-256 of everything in a model but its weights and its documentation.

    Small integer and boolean tensors are part of the structure: shapes, axes and indices are
    stored in them. Of all other tensors only names, types and shapes count.

    Complexity: O(nodes + initializers); no weight is read.
    """
    digest = hashlib.sha256()
    for opset in sorted(proto.opset_import, key=lambda entry: entry.domain):
        digest.update(f"opset {opset.domain!r} {opset.version}\n".encode())
    graph = proto.graph
    for value in (*graph.input, *graph.output):
        digest.update(value.name.encode() + b"\0" + value.type.SerializeToString(deterministic=True))
    for tensor in graph.initializer:
        digest.update(_tensor(tensor))
    for node in graph.node:
        digest.update(_node(node))
    for function in proto.functions:
        digest.update(f"function {function.domain!r} {function.name!r} {list(function.input)}\n".encode())
        for node in function.node:
            digest.update(_node(node))
    return digest.hexdigest()


def _tensor(tensor: TensorProto) -> bytes:
    head = f"tensor {tensor.name!r} {tensor.data_type} {list(tensor.dims)}\n".encode()
    if tensor.data_type not in _INTEGERS or prod(tensor.dims) > _LARGEST_SHAPE_CONSTANT:
        return head
    data = tensor.raw_data or repr([*tensor.int64_data, *tensor.int32_data]).encode()
    return head + data


def _node(node: NodeProto) -> bytes:
    head = f"node {node.domain!r} {node.op_type!r} {node.name!r} {list(node.input)} {list(node.output)}\n".encode()
    return head + b"".join(_attribute(attribute) for attribute in sorted(node.attribute, key=lambda entry: entry.name))


def _attribute(attribute: AttributeProto) -> bytes:
    if attribute.type == AttributeProto.TENSOR:
        return f"attribute {attribute.name!r} ".encode() + _tensor(attribute.t)
    return attribute.SerializeToString(deterministic=True)


def check_model(plan: Plan, model: Model, *, rebind: bool) -> None:
    """Refuse a plan of another model; nothing else that is wrong would say what the matter is."""
    if plan.model.sha256 == model.sha256:
        return
    name = quote(model.name)
    if plan.solver.options.get("structure") != structure_digest(model.proto):
        raise PlanError(
            f"the plan was made for another model ({quote(plan.model.name)}), {name} has another structure",
            hint="make a new plan with `graphprune solve`",
        )
    if not rebind:
        raise PlanError(
            f"the plan was made for another file than {name}: the structure is the same, the contents differ",
            hint="to use it for this file all the same, give --rebind (rebind=True)",
        )
