# SPDX-License-Identifier: Apache-2.0
"""Lengths and numbers that belong together: of which only some fit the sizes of other inputs.

A mask is as long as the cache of a decoder and its new steps together, and `GroupQueryAttention` refuses to run unless
the number of steps that it is given is that, too. A voice detector is told the sampling rate, and has a branch for
each, of which one takes windows of this length. A model is run with made-up inputs, so these must be made to fit.
"""

from __future__ import annotations

import re
from typing import Final

from onnx import TensorProto

from graphprune.model.graph import Graph
from graphprune.model.inference.contributed import MICROSOFT
from graphprune.model.inference.known import Shapes
from graphprune.model.sizes.batch_axes import Declared, sample_axes

__all__ = ["Place", "caches", "fitting_values", "sums"]

Place = tuple[str, int]
"""An axis of an input."""

_PASSING: Final = frozenset({"Cast", "Expand", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_UNMOVED: Final = frozenset({"Cast", "Identity"})
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


_SUM: Final = re.compile(r"(\w+(?: *\+ *\w+)+)")
_TOKENS: Final = (TensorProto.INT32, TensorProto.INT64)
_STEPS: Final = 2
"""Axis of a cache (batch, heads, steps, size) that counts steps, where an operator reads it."""


def caches(graph: Graph) -> dict[str, int]:
    """Return the graph inputs that hold keys and values of earlier steps, and which of their axes counts steps.

    Attention operators read them, or new ones are put behind them and all are outputs.
    """
    found: dict[str, int] = {}
    outputs = {_before(graph, name) for name in graph.outputs}
    for node in graph.nodes:
        for slot in _CACHES.get((node.domain, node.op_type), ()):
            name = _before(graph, node.inputs[slot]) if slot < len(node.inputs) else ""
            if name in graph.inputs:
                found.setdefault(name, _STEPS)
        if node.op_type == "Concat" and node.outputs[0] in outputs:
            name, axis = _before(graph, node.inputs[0], _UNMOVED), int(node.attribute("axis", 0))
            declared = Declared.of(graph.inputs[name]) if name in graph.inputs else None
            axis += len(declared.sizes) if declared is not None and axis < 0 else 0
            if declared is not None and axis in declared.open:
                found.setdefault(name, axis)
    return found


def _before(graph: Graph, name: str, passing: frozenset[str] = _PASSING) -> str:
    """Return the value that some operators pass on; `Concat` does where it has one input."""
    while name in graph.producer:
        node = graph.producer[name]
        if node.op_type not in passing and not (node.op_type == "Concat" and len(node.inputs) == 1):
            break
        name = node.inputs[0]
    return name


def sums(graph: Graph, *, guess: bool = True) -> dict[Place, tuple[Place | int, ...]]:
    """Return open axes of inputs that are as long as other axes together, by what these are.

    So says the name of a dimension (``past + sequence``). A decoder with a cache has a mask for the cache and what
    is new, whatever its dimension is called.

    Parameters
    ----------
    guess : bool
        Whether what no name says is taken for granted.
    """
    declared = {name: one for name, kind in graph.inputs.items() if (one := Declared.of(kind)) is not None}
    named = {
        one.names[axis]: (name, axis)
        for name, one in reversed(declared.items())
        for axis in one.open
        if one.names[axis]
    }
    found: dict[Place, tuple[Place | int, ...]] = {}
    for name, one in declared.items():
        for axis in one.open:
            terms = re.split(r" *\+ *", one.names[axis]) if _SUM.fullmatch(one.names[axis]) else []
            if terms and all(term in named or term.isdecimal() for term in terms):
                found[name, axis] = tuple(named.get(term) or int(term) for term in terms)
    return {**(_covering(graph, declared) if guess else {}), **found}


def _covering(graph: Graph, declared: dict[str, Declared]) -> dict[Place, tuple[Place | int, ...]]:
    """Return the last axes of masks that cover the cache and the new steps."""
    cached = {name: axis for name, axis in caches(graph).items() if name in declared}
    tokens = [name for name in declared if name not in cached and _is_embedded(graph, name)]
    if not cached or not tokens or len(declared[tokens[0]].sizes) != _STEPS:
        return {}
    past = next(iter(cached.items()))
    new, own = (tokens[0], 1), declared[tokens[0]].names[1]
    samples = dict(zip(declared, sample_axes(list(declared.values())), strict=True))
    taken = {own, declared[past[0]].names[past[1]]} - {""}
    found: dict[Place, tuple[Place | int, ...]] = {}
    for name, one in declared.items():
        last = len(one.sizes) - 1
        if name in cached or name in tokens or last not in one.open or last == samples[name]:
            continue
        called = one.names[last]
        if called not in taken if called else "mask" in name.lower():
            found[name, last] = past, new
    return found


def _is_embedded(graph: Graph, name: str) -> bool:
    """Whether an input holds the numbers of rows of a stored table."""
    return graph.inputs[name].tensor_type.elem_type in _TOKENS and any(
        node.op_type == "Gather" and slot == 1 and node.inputs[0] not in graph.inputs
        for node, slot in graph.consumers.get(name, ())
    )


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
