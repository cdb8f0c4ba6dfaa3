# SPDX-License-Identifier: Apache-2.0
"""A read-only view of one ONNX graph: nodes in order, who makes a value, who reads it.

Nothing here is changed by an analysis; the surgery works on a copy of the protobuf message.
Nodes are identified by their index, because names may be empty or repeated in a valid file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from graphprune.errors import ModelFileError, quote

__all__ = ["Graph", "Node", "subgraphs"]


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the bodies that hang on a node (`If`, `Loop`, `Scan`)."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def _captured(node: NodeProto) -> tuple[str, ...]:
    """Names that the bodies of a node read from the graph around it, in order of appearance."""
    captured: dict[str, None] = {}
    pending: list[tuple[GraphProto, frozenset[str]]] = [(body, frozenset()) for body in subgraphs(node)]
    while pending:
        body, outer = pending.pop()
        known = set(outer)
        known.update(value.name for value in body.input)
        known.update(tensor.name for tensor in body.initializer)
        known.update(name for inner in body.node for name in inner.output)
        used = [name for inner in body.node for name in inner.input] + [value.name for value in body.output]
        captured.update((name, None) for name in used if name and name not in known)
        pending.extend((deeper, frozenset(known)) for inner in body.node for deeper in subgraphs(inner))
    return tuple(captured)


class Node:
    """One operator instance.

    Attributes
    ----------
    index : int
        Position in the graph; the identity of the node.
    captured : tuple of str
        Values of the surrounding graph that its bodies read (empty for ordinary operators).
    """

    __slots__ = ("__dict__", "captured", "domain", "index", "inputs", "op_type", "outputs", "proto")

    def __init__(self, index: int, proto: NodeProto) -> None:
        self.index = index
        self.proto = proto
        self.op_type: str = proto.op_type
        self.domain: str = "" if proto.domain == "ai.onnx" else proto.domain
        self.inputs: tuple[str, ...] = tuple(proto.input)
        self.outputs: tuple[str, ...] = tuple(proto.output)
        has_body = any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in proto.attribute)
        self.captured: tuple[str, ...] = _captured(proto) if has_body else ()

    @cached_property
    def attributes(self) -> Mapping[str, Any]:
        """Attribute values by name; strings decoded, tensors and graphs as protobuf messages."""
        values: dict[str, Any] = {}
        for attribute in self.proto.attribute:
            value = helper.get_attribute_value(attribute)
            if isinstance(value, bytes):
                value = value.decode("utf-8", "replace")
            values[attribute.name] = value
        return values

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return one attribute's value, or `default` where the node does not set it."""
        return self.attributes.get(name, default)

    @property
    def label(self) -> str:
        """Name for people: the node's own, else its first output."""
        return self.proto.name or next((name for name in self.outputs if name), f"node {self.index}")

    def __repr__(self) -> str:
        return f"{self.op_type}({quote(self.label)})"


class Graph:
    """The top-level graph of a model.

    Parameters
    ----------
    proto : ModelProto
        A validated model without local functions (see `normalize.inline_functions`).

    Raises
    ------
    ModelFileError
        If a node reads a value that nothing makes, or the nodes are not in topological order.
    """

    def __init__(self, proto: ModelProto) -> None:
        self.proto = proto
        graph = proto.graph
        self.nodes: list[Node] = [Node(index, node) for index, node in enumerate(graph.node)]
        self.initializers: dict[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs: dict[str, onnx.TypeProto] = {
            value.name: value.type for value in graph.input if value.name not in self.initializers
        }
        self.outputs: tuple[str, ...] = tuple(value.name for value in graph.output)
        self.opsets: dict[str, int] = {
            ("" if entry.domain == "ai.onnx" else entry.domain): entry.version for entry in proto.opset_import
        }
        self.producer: dict[str, Node] = {}
        self.consumers: dict[str, list[tuple[Node, int]]] = {}
        self._connect()

    def _connect(self) -> None:
        known = set(self.inputs) | set(self.initializers)
        for node in self.nodes:
            for slot, name in enumerate(node.inputs):
                if name:
                    self.consumers.setdefault(name, []).append((node, slot))
            for name in (*node.inputs, *node.captured):
                if name and name not in known:
                    raise ModelFileError(
                        f"node {node!r} reads {quote(name)}, which no earlier node makes",
                        hint="the nodes must be in topological order; export the model again",
                    )
            for name in node.outputs:
                if name:
                    self.producer[name] = node
                    known.add(name)

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return self.opsets.get("", 1)

    @cached_property
    def _taken(self) -> frozenset[str]:
        """All names of values and nodes."""
        return frozenset(self.inputs) | set(self.initializers) | set(self.producer) | {n.proto.name for n in self.nodes}

    def unused(self, name: str) -> str:
        """Return `name`, or where something has it already (a model that was pruned before) one made of it."""
        number, free = 1, name
        while free in self._taken:
            number, free = number + 1, f"{name}.{number + 1}"
        return free

    @cached_property
    def captured(self) -> frozenset[str]:
        """All values that bodies of control-flow nodes read from this graph."""
        return frozenset(name for node in self.nodes for name in node.captured)
