# SPDX-License-Identifier: Apache-2.0
"""Integers that a model is told, of which only some fit the sizes of its other inputs.

`GroupQueryAttention` refuses to run unless the number of steps that it is given is the length of its cache and of
what is new. A voice detector is told the sampling rate, and has a branch for each, of which one takes windows of
this length. A model is run with made-up inputs, so these must be made to fit.
"""

from __future__ import annotations

from typing import Final

from graphprune.model.contributed import MICROSOFT
from graphprune.model.graph import Graph
from graphprune.model.known import Shapes

__all__ = ["caches", "fitting_values"]

_PASSING: Final = frozenset({"Cast", "Expand", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_CACHES: Final = {
    ("", "Attention"): (4, 5),
    (MICROSOFT, "Attention"): (4,),
    (MICROSOFT, "GroupQueryAttention"): (3, 4),
    (MICROSOFT, "MultiHeadAttention"): (6, 7),
}
"""Inputs with keys and values of earlier steps."""
_CACHED: Final = {"Attention": (4, 3), "MultiHeadAttention": (6, 2)}
"""Inputs with the cache of other operators, and the axis that counts its steps."""
_TOLD: Final = {"Attention": 6, "MultiHeadAttention": 8}


def caches(graph: Graph) -> frozenset[str]:
    """Return the graph inputs that hold keys and values of earlier steps: their axes are no image's."""
    found: set[str] = set()
    for node in graph.nodes:
        for slot in _CACHES.get((node.domain, node.op_type), ()):
            name = node.inputs[slot] if slot < len(node.inputs) else ""
            while name in graph.producer and graph.producer[name].op_type in _PASSING:
                name = graph.producer[name].inputs[0]
            if name in graph.inputs:
                found.add(name)
    return frozenset(found)


def fitting_values(graph: Graph, shapes: Shapes) -> dict[str, int]:
    """Return what the integers in some graph inputs have to be, by name; of two branches, those that lead to the first.

    Parameters
    ----------
    graph : Graph
    shapes : Shapes
        For the sizes with which the model will run.
    """
    found: dict[str, int] = {}
    for node in graph.nodes:
        if node.op_type == "Equal" and not node.domain and _decides(graph, node.outputs[0]):
            for asked, known in (node.inputs, node.inputs[::-1]):
                value = shapes.values.get(known)
                if value is not None and value.size == 1 and value.dtype.kind in "iu":
                    _follow(graph, shapes, asked, int(value.item()), found)
        if node.domain != MICROSOFT:
            continue
        names = (*node.inputs, *[""] * 9)
        dims = [shapes.dims.get(name, ()) for name in names]
        if node.op_type == "GroupQueryAttention" and len(dims[0]) == 3:
            total = dims[0][1] + (dims[3][2] if len(dims[3]) == 4 else 0)
            _follow(graph, shapes, names[5], total - 1, found)
            _follow(graph, shapes, names[6], total, found)
        elif node.op_type in _TOLD:
            slot, axis = _CACHED[node.op_type]
            if len(dims[slot]) > axis:
                _follow(graph, shapes, names[_TOLD[node.op_type]], dims[slot][axis], found)
    return found


def _decides(graph: Graph, name: str) -> bool:
    """Whether a value is the condition of an `If`."""
    readers = graph.consumers.get(name, ())
    return any(reader.op_type == "If" and slot == 0 for reader, slot in readers) or any(
        reader.op_type in _PASSING and not reader.domain and _decides(graph, reader.outputs[0]) for reader, _ in readers
    )


def _follow(graph: Graph, shapes: Shapes, name: str, wanted: int, found: dict[str, int]) -> None:
    """Go back from where a number is read to the graph input that it is made from."""
    while name not in graph.inputs:
        node = graph.producer.get(name)
        if node is None or node.domain or name in shapes.constant:
            return
        name = node.inputs[0] if node.inputs else ""
        if node.op_type in ("Add", "Sub"):
            by = shapes.values.get(node.inputs[1])
            if by is None or by.size != 1:
                return
            wanted += int(by.item()) * (1 if node.op_type == "Sub" else -1)
        elif node.op_type == "ReduceSum":
            wanted = 1  # the steps that a mask lets through: all of them
        elif node.op_type not in _PASSING:
            return
    found.setdefault(name, wanted)
