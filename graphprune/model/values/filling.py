# SPDX-License-Identifier: Apache-2.0
"""Values that are one number in all places: whether they flow like others, or say how large something is."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from graphprune.model.graph import Graph, Node
from graphprune.model.tensors import FLOATS
from graphprune.model.values.bodies import DOMAIN, LOOPS

__all__ = ["MOVING", "fills"]

MOVING = frozenset({"Expand", "Gather", "Pad", "Reshape", "Resize", "Slice", "Tile"})
"""Operators whose first input is the data; the others say how large the result is, and where its parts come from."""

_PARTS = MOVING | {"Identity", "Split", "Squeeze", "Transpose", "Unsqueeze"}
_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
_STATES = (5, 6)


def fills(graph: Graph, node: Node, open_sizes: Container[str]) -> bool:
    """Whether a node makes one real number in all places of an open shape, or what a loop begins with.

    It is then a value like any other, with channels along the axes of fixed length. Zeros that a recurrent layer
    begins with are none: it begins with them anyhow, and leaves them out where it loses units.

    Parameters
    ----------
    open_sizes : container of str
        Values that depend on the shape of an activation.
    """
    if node.op_type != "ConstantOfShape" or node.domain or node.inputs[0] not in open_sizes:
        return False
    if any(reader.domain == DOMAIN and reader.op_type in LOOPS for reader, _ in _readers(graph, node.outputs[0])):
        return True
    value = node.attribute("value")
    number = numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.zeros(1, dtype=np.float32)
    is_real = helper.np_dtype_to_tensor_dtype(number.dtype) in FLOATS
    return is_real and (bool(number.any()) or not _begins_recurrence(graph, node.outputs[0]))


def _readers(graph: Graph, name: str) -> list[tuple[Node, int]]:
    return list(graph.consumers.get(name, ()))


def _begins_recurrence(graph: Graph, name: str) -> bool:
    """Whether a recurrent layer begins with this value, or with parts of it."""
    pending, seen = [name], {name}
    while pending:
        for reader, slot in _readers(graph, pending.pop()):
            if reader.domain:
                continue
            if reader.op_type in _RECURRENT and slot in _STATES:
                return True
            if slot == 0 and reader.op_type in _PARTS:
                pending.extend(set(reader.outputs) - seen)
                seen.update(reader.outputs)
    return False
