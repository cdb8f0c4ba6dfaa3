# SPDX-License-Identifier: Apache-2.0
"""The bytes of a model, tensor by tensor: whoever writes them all at once holds several copies of all weights.

protobuf collects a message in a buffer that doubles, and copies that. Here only one tensor is held at a time; the bytes
are those that ``SerializeToString`` gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from onnx import GraphProto, ModelProto

from graphprune.model.files.messages import carry_unknown, copy_field, varint

if TYPE_CHECKING:
    from google.protobuf.message import Message

__all__ = ["MOST_BYTES", "ModelBytes"]

MOST_BYTES: Final = (1 << 31) - 1
"""Bytes of a message up to which protobuf reads one."""
_DELIMITED: Final = 2
"""The wire type of what comes with its length."""


@dataclass(frozen=True, eq=False)
class ModelBytes:
    """The bytes of a model, in pieces; every iteration makes them anew.

    Raises
    ------
    EncodeError, ValueError, RuntimeError
        While iterating, where a part is too large or too deep for protobuf.
    """

    proto: ModelProto

    def __iter__(self) -> Iterator[bytes]:
        graph = self.proto.graph
        graph_number = ModelProto.DESCRIPTOR.fields_by_name["graph"].number
        tensor_number = GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
        yield _some(self.proto, ModelProto(), lambda number: number < graph_number)
        if self.proto.HasField("graph"):
            before = _some(graph, GraphProto(), lambda number: number < tensor_number)
            after = _some(graph, GraphProto(), lambda number: number > tensor_number, unknown=True)
            sizes = [tensor.ByteSize() for tensor in graph.initializer]
            heads = [_head(tensor_number, size) for size in sizes]
            total = len(before) + len(after) + sum(sizes) + sum(map(len, heads))
            if total > MOST_BYTES:
                raise ValueError(f"a graph of {total} bytes, of which protobuf reads {MOST_BYTES}")
            yield _head(graph_number, total)
            yield before
            for head, tensor in zip(heads, graph.initializer, strict=True):
                yield head
                yield tensor.SerializeToString()
            yield after
        yield _some(self.proto, ModelProto(), lambda number: number > graph_number, unknown=True)

    def count(self) -> int:
        """Return how many bytes there are."""
        return sum(map(len, self))


def _head(number: int, size: int) -> bytes:
    return varint(number << 3 | _DELIMITED) + varint(size)


def _some(source: Any, part: Message, wanted: Callable[[int], bool], *, unknown: bool = False) -> bytes:
    """Return the bytes of some fields of a message, by their numbers."""
    for field in source.DESCRIPTOR.fields:
        if wanted(field.number):
            copy_field(source, part, field)
    if unknown:
        carry_unknown(source, part)
    return part.SerializeToString()
