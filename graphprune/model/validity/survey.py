# SPDX-License-Identifier: Apache-2.0
"""A survey is one pass over everything nested in a model: graphs, functions, nodes and tensors.

It goes by the message types of the protobuf, not by what attributes claim to hold, so nothing is hidden
from the checks that follow. It reads every text once, because protobuf decodes text lazily: invalid UTF-8
shows here and nowhere later.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from graphprune.errors import ModelFileError, UnsafeModelError, quote

__all__ = ["HeldTensor", "Survey", "label", "nodes_below", "survey"]

_IDENTIFIERS = frozenset({"name", "input", "output", "op_type", "domain", "overload", "dim_param", "key"})
# For parts of a model that has passed its limits already.
_UNLIMITED: Final = 2**62


@dataclass(frozen=True)
class HeldTensor:
    """A tensor together with the node whose attribute holds it (None: an initializer)."""

    tensor: onnx.TensorProto
    node: onnx.NodeProto | None

    @property
    def where(self) -> str:
        """How to name this tensor in a message."""
        if self.node is None or self.tensor.name:
            return f"tensor {quote(self.tensor.name)}"
        return f"the constant of {label(self.node)}"


@dataclass
class Survey:
    """All graphs, functions and tensors of a model, outer ones before those nested in them."""

    graphs: list[onnx.GraphProto] = field(default_factory=list)
    functions: list[onnx.FunctionProto] = field(default_factory=list)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    tensors: list[HeldTensor] = field(default_factory=list)
    sparse: list[onnx.SparseTensorProto] = field(default_factory=list)


def label(node: onnx.NodeProto) -> str:
    """Return how to name a node in a message: its operator and its name, or its first output."""
    name = node.name or next((output for output in node.output if output), "")
    return f"{quote(node.op_type)[1:-1]} node {quote(name)}"


def nodes_below(body: onnx.GraphProto | onnx.FunctionProto) -> list[onnx.NodeProto]:
    """Return the nodes of a body and of all graphs nested in it."""
    return survey(body).nodes


def survey(
    proto: Message, *, max_depth: int = _UNLIMITED, max_nodes: int = _UNLIMITED, max_name: int = _UNLIMITED
) -> Survey:
    """Visit every message below `proto` once, without recursion.

    Parameters
    ----------
    proto : Message
        A model, or any part of one.
    max_depth : int
        Deepest allowed nesting of graphs; the main graph has depth 1.
    max_nodes : int
        Largest allowed number of nodes, nested ones included.
    max_name : int
        Largest allowed length of an identifier, in characters.

    Returns
    -------
    Survey
        With every message in the order of the file, outer ones first.

    Raises
    ------
    UnsafeModelError
        If one of the three limits is exceeded.
    ModelFileError
        If a text is not valid UTF-8.
    """
    surveyed = Survey()
    stack: list[tuple[Message, onnx.NodeProto | None, int]] = [(proto, None, 0)]
    while stack:
        message, holder, depth = stack.pop()
        if isinstance(message, onnx.NodeProto):
            holder = message
            surveyed.nodes.append(message)
            if len(surveyed.nodes) > max_nodes:
                raise UnsafeModelError(f"the model has more than {max_nodes} nodes, the limit")
        elif isinstance(message, onnx.TensorProto):
            surveyed.tensors.append(HeldTensor(message, holder))
            _check_tensor_texts(message, max_name)
            continue
        elif isinstance(message, onnx.GraphProto):
            holder, depth = None, depth + 1
            surveyed.graphs.append(message)
            if depth > max_depth:
                raise UnsafeModelError(f"graphs are nested more than {max_depth} deep, the limit")
        elif isinstance(message, onnx.FunctionProto):
            holder, depth = None, depth + 1
            surveyed.functions.append(message)
        elif isinstance(message, onnx.SparseTensorProto):
            surveyed.sparse.append(message)
        stack.extend((child, holder, depth) for child in reversed(_children(message, max_name)))
    return surveyed


def _children(message: Message, max_name: int) -> list[Message]:
    """Return the messages directly inside `message`, after reading its texts."""
    children: list[Message] = []
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            if isinstance(value, Message):
                children.append(value)
            else:
                children.extend(value)
        elif descriptor.type == FieldDescriptor.TYPE_STRING:
            longest = max_name if descriptor.name in _IDENTIFIERS else _UNLIMITED
            _check_texts((value,) if isinstance(value, str | bytes) else value, longest)
    return children


def _check_tensor_texts(tensor: onnx.TensorProto, max_name: int) -> None:
    """Read the texts of a tensor without touching its data."""
    _check_texts((tensor.name,), max_name)
    _check_texts((tensor.doc_string,), _UNLIMITED)
    for entry in (*tensor.external_data, *tensor.metadata_props):
        _check_texts((entry.key, entry.value), max_name)


def _check_texts(texts: Iterable[object], longest: int) -> None:
    """Raise unless all texts are valid and short enough; protobuf hands out an invalid one as bytes, or raises."""
    try:
        for text in texts:
            if not isinstance(text, str):
                raise ModelFileError(f"the text {quote(text)} is not valid UTF-8; the file is corrupt")
            if len(text) > longest:
                raise UnsafeModelError(
                    f"the name {quote(text)} has {len(text)} characters, more than the limit {longest}"
                )
    except UnicodeDecodeError as error:
        raise ModelFileError("a text is not valid UTF-8; the file is corrupt") from error
