# SPDX-License-Identifier: Apache-2.0
"""Do the operands of every node fit together? What onnxruntime would refuse is refused before any channel is looked at.

Inference of onnx checks types, ranks and most shapes, but no bias, no channels of a convolution and no weights of
recurrent operators; onnxruntime checks those when the model runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Final

from graphprune.errors import quote
from graphprune.model.graph import Graph, Node
from graphprune.model.known import Shapes

__all__ = ["misfit"]

Dims = tuple[int, ...]
_Wanted = Callable[[Node, Sequence[Dims | None]], "list[tuple[int, int, int]]"]
"""From the shapes of the inputs to (slot, axis, size) that must hold."""


def misfit(graph: Graph, shapes: Shapes) -> str | None:
    """Return a sentence about the first node whose operands do not fit, None where all fit that are known.

    Complexity: O(nodes).
    """
    for node in graph.nodes:
        if node.domain or (node.op_type not in _RULES and node.op_type != "Reshape"):
            continue
        dims = [shapes.dims.get(name) if name else None for name in node.inputs]
        said = _reshape(node, dims, shapes) if node.op_type == "Reshape" else _operands(node, dims)
        if said is None and node.op_type in _WINDOWS:
            said = _window(node, dims)
        if said is not None:
            return said
    return None


def _operands(node: Node, dims: Sequence[Dims | None]) -> str | None:
    ranks = _RANKS.get(node.op_type, {})
    for slot, known in enumerate(dims):
        least = ranks.get(slot)
        if known is not None and least is not None and len(known) < least:
            return _said(node, slot, f"has {len(known)} axes, but needs {least}")
    for slot, axis, size in _RULES[node.op_type](node, dims):
        known = dims[slot] if slot < len(dims) else None
        if known is None:
            continue
        if not -len(known) <= axis < len(known):
            return _said(node, slot, f"has the shape {list(known)}, but needs an axis {axis} of {size}")
        if known[axis] != size:
            return _said(node, slot, f"has the shape {list(known)}, but axis {axis % len(known)} must be {size}")
    return None


def _said(node: Node, slot: int, what: str) -> str:
    return f"node {node!r}: input {slot} {quote(node.inputs[slot])} {what}"


def _reshape(node: Node, dims: Sequence[Dims | None], shapes: Shapes) -> str | None:
    """Count the elements of a fixed target."""
    target = shapes.values.get(node.inputs[1]) if len(node.inputs) > 1 else None
    if target is None or dims[0] is None or node.attribute("allowzero", 0):
        return None
    sizes = [int(size) for size in target.ravel()]
    if any(size == 0 and axis >= len(dims[0]) for axis, size in enumerate(sizes)):
        return _said(node, 1, f"is {sizes}, but input 0 has {len(dims[0])} axes")
    sizes = [dims[0][axis] if size == 0 else size for axis, size in enumerate(sizes)]
    elements, known = prod(dims[0]), prod(size for size in sizes if size != -1)
    fits = elements == known if -1 not in sizes else known == 0 or elements % known == 0
    return None if fits else _said(node, 0, f"has the shape {list(dims[0])}, which cannot become {sizes}")


def _window(node: Node, dims: Sequence[Dims | None]) -> str | None:
    """Compare a kernel with what it slides over, where inference rounds a negative size up to one."""
    data, kernel = dims[0], dims[_WINDOWS[node.op_type]]
    auto_pad = str(node.attribute("auto_pad", "NOTSET"))
    if data is None or kernel is None or auto_pad.startswith("SAME"):
        return None
    axes = len(kernel) - 2
    pads = node.attribute("pads", [0] * 2 * axes) if auto_pad == "NOTSET" else [0] * 2 * axes
    dilations = node.attribute("dilations", [1] * axes)
    for axis, size in enumerate(data[2:]):
        padded, reach = size + pads[axis] + pads[axis + axes], (kernel[axis + 2] - 1) * dilations[axis] + 1
        if padded < reach:
            return _said(
                node,
                0,
                f"has the shape {list(data)}: its kernel reaches over {reach} on axis {axis + 2}, {padded} are there",
            )
    return None


def _convolution(x: int, w: int, bias: int, *, transposed: bool = False) -> _Wanted:
    def wanted(node: Node, dims: Sequence[Dims | None]) -> list[tuple[int, int, int]]:
        kernel, group = dims[w] if w < len(dims) else None, node.attribute("group", 1)
        if kernel is None:
            return []
        reads, makes = (kernel[0], kernel[1] * group) if transposed else (kernel[1] * group, kernel[0])
        return [(x, 1, reads), (bias, 0, makes)]

    return wanted


def _per_channel(*slots: int) -> _Wanted:
    def wanted(node: Node, dims: Sequence[Dims | None]) -> list[tuple[int, int, int]]:
        data = dims[0]
        whole = data is None or len(data) == 1 or not node.attribute("spatial", 1)  # statistics of another form
        return [] if data is None or whole else [(slot, 0, data[1]) for slot in slots]

    return wanted


def _gemm(node: Node, dims: Sequence[Dims | None]) -> list[tuple[int, int, int]]:
    first = dims[0]
    if first is None:
        return []
    inner = first[0 if node.attribute("transA", 0) else 1]
    wanted = [(1, 1 if node.attribute("transB", 0) else 0, inner)]
    second, bias = dims[1], dims[2] if len(dims) > _BIAS else None
    if second is not None and bias and bias[-1] != 1:
        wanted.append((_BIAS, -1, second[0 if node.attribute("transB", 0) else 1]))
    return wanted


_BIAS = 2


def _recurrent(gates: int) -> _Wanted:
    def wanted(node: Node, dims: Sequence[Dims | None]) -> list[tuple[int, int, int]]:
        directions = 2 if node.attribute("direction", "forward") == "bidirectional" else 1
        hidden = node.attribute("hidden_size") or (dims[2][2] if dims[2] is not None else None)
        if hidden is None:
            return []
        sizes = [(1, 0, directions), (1, 1, gates * hidden), (2, 0, directions), (2, 1, gates * hidden)]
        sizes += [(2, 2, hidden), (3, 0, directions), (3, 1, 2 * gates * hidden)]
        return [*sizes, (1, 2, dims[0][2])] if dims[0] is not None else sizes

    return wanted


_RULES: Final[dict[str, _Wanted]] = {
    "BatchNormalization": _per_channel(1, 2, 3, 4),
    "Conv": _convolution(0, 1, 2),
    "ConvInteger": _convolution(0, 1, 4),
    "ConvTranspose": _convolution(0, 1, 2, transposed=True),
    "GRU": _recurrent(3),
    "Gemm": _gemm,
    "InstanceNormalization": _per_channel(1, 2),
    "LSTM": _recurrent(4),
    "QLinearConv": _convolution(0, 3, 8),
    "RNN": _recurrent(1),
}
_WINDOWS: Final = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3}
"""Slots of kernels."""
_RANKS: Final[dict[str, dict[int, int]]] = {
    "Conv": {0: 3, 1: 3},
    "ConvInteger": {0: 3, 1: 3},
    "ConvTranspose": {0: 3, 1: 3},
    "GRU": {0: 3, 1: 3, 2: 3},
    "Gemm": {0: 2, 1: 2},
    "InstanceNormalization": {0: 3},
    "LSTM": {0: 3, 1: 3, 2: 3},
    "QLinearConv": {0: 3, 3: 3},
    "RNN": {0: 3, 1: 3, 2: 3},
}
"""Axes that inputs must have at least."""
