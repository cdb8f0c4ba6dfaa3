# SPDX-License-Identifier: Apache-2.0
"""Sizes of inputs that weights demand: a convolution with a kernel of shape (16, 3, 3, 3) reads three channels."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import TensorProto

from graphprune.model.graph import Graph, Node

__all__ = ["demanded_sizes", "own_demands"]

_FOLLOWS = frozenset(
    {"Cast", "Clip", "Dropout", "Exp", "Identity", "LeakyRelu", "Log", "Neg", "Relu", "Sigmoid", "Sqrt"}
)
_FOLLOWS |= {"Tanh", "QuantizeLinear", "DequantizeLinear"}
_SEEN_THROUGH = frozenset({"Cast", "DequantizeLinear", "Identity", "Transpose"})
_BINARY = frozenset({"Add", "Div", "Mul", "Sub"})
_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
_CHANNELS_FIRST = frozenset({"BatchNormalization", "InstanceNormalization"})

Axes = tuple[int, ...]
"""For each axis of a value the axis of the input that it is."""


def demanded_sizes(graph: Graph) -> dict[str, dict[int, int]]:
    """Return by input and axis the size that the weights demand which read the input, perhaps behind simple operators.

    Complexity: O(nodes between inputs and their first layers).
    """
    return {name: dict(_demands(graph, name, len(kind.tensor_type.shape.dim))) for name, kind in graph.inputs.items()}


def _demands(graph: Graph, name: str, rank: int) -> Iterator[tuple[int, int]]:
    """Walk from an input forwards for as long as every axis is one of its axes; nearer demands come last and win."""
    pending: list[tuple[str, Axes]] = [(name, tuple(range(rank)))]
    seen: set[str] = set()
    demands: list[tuple[int, int]] = []
    while pending:
        value, axes = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        for node, slot in graph.consumers.get(value, ()):
            demands.extend((axes[axis], size) for axis, size in own_demands(graph, node, slot, len(axes)))
            onwards = _onwards(graph, node, slot, axes)
            if onwards is not None:
                pending.append((node.outputs[0], onwards))
    yield from reversed(demands)


def _onwards(graph: Graph, node: Node, slot: int, axes: Axes) -> Axes | None:
    """Return the axes of what a node makes, where they are those of its input; None where they are not."""
    if node.domain or not node.outputs:
        return None
    if slot == 0 and node.op_type in _FOLLOWS:
        return axes
    if slot == 0 and node.op_type == "Transpose":
        perm = node.attribute("perm", list(range(len(axes)))[::-1])
        return tuple(axes[axis] for axis in perm) if sorted(perm) == list(range(len(axes))) else None
    other = _dims(graph, node.inputs[1 - slot]) if node.op_type in _BINARY and len(node.inputs) > 1 else None
    return axes if other is not None and len(other) <= len(axes) else None


def own_demands(graph: Graph, node: Node, slot: int, rank: int) -> Iterator[tuple[int, int]]:
    """Yield axes of an input of one node, and their sizes as the weights of the node say them."""
    if node.domain:
        return
    for axis, size in _own_of(graph, node, slot, rank):
        if -rank <= axis < rank and size > 0:
            yield axis % rank, size


def _own_of(graph: Graph, node: Node, slot: int, rank: int) -> list[tuple[int, int]]:
    def dims(at: int, least: int) -> tuple[int, ...] | None:
        known = _dims(graph, node.inputs[at]) if at < len(node.inputs) else None
        return known if known is not None and len(known) >= least else None

    kind, group = node.op_type, node.attribute("group", 1)
    if kind in _BINARY and len(node.inputs) > 1:
        other = dims(1 - slot, 0)
        return [(axis - len(other), size) for axis, size in enumerate(other) if size != 1] if other else []
    if kind == "MatMul" and slot == 1:
        first = dims(0, 1)
        return [(-2, first[-1])] if first and rank > 1 else []
    if slot:
        return []
    if kind in ("Conv", "ConvInteger", "QLinearConv", "ConvTranspose"):
        kernel = dims(3 if kind == "QLinearConv" else 1, 3)
        return [(1, kernel[0] if kind == "ConvTranspose" else kernel[1] * group)] if kernel else []
    weight = dims(1, 1)
    if weight is None:
        return []
    if kind == "MatMul":
        return [(-1, weight[-2] if len(weight) > 1 else weight[0])]
    if kind == "Gemm" and len(weight) > 1:
        return [(0 if node.attribute("transA", 0) else 1, weight[1 if node.attribute("transB", 0) else 0])]
    if kind in _RECURRENT:
        return [(2, weight[-1])]
    if kind in _CHANNELS_FIRST:
        return [(1, weight[0])]
    return []


def _dims(graph: Graph, name: str) -> tuple[int, ...] | None:
    """Return the shape of a stored tensor, seen through what dequantises, casts or transposes it."""
    perms: list[list[int]] = []
    while name in graph.producer and graph.producer[name].op_type in (
        "DequantizeLinear",
        "Cast",
        "Identity",
        "Transpose",
    ):
        node = graph.producer[name]
        if node.op_type == "Transpose":
            perms.append(node.attribute("perm") or [])
        name = node.inputs[0]
    tensor = graph.initializers.get(name)
    if tensor is None and name in graph.producer and graph.producer[name].op_type == "Constant":
        tensor = graph.producer[name].attribute("value")
    if not isinstance(tensor, TensorProto):
        return None
    dims = tuple(tensor.dims)
    for perm in reversed(perms):
        order = perm or list(range(len(dims)))[::-1]
        if sorted(order) != list(range(len(dims))):
            return None
        dims = tuple(dims[axis] for axis in order)
    return dims
