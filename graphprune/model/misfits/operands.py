# SPDX-License-Identifier: Apache-2.0
"""Do the operands of every node fit together? What onnxruntime would refuse is refused before any channel is looked at.

Inference of onnx checks types, ranks and most shapes, but no bias, no channels of a convolution and no weights of
recurrent operators; onnxruntime checks those when the model runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from math import prod
from typing import Final

from graphprune.model.graph import Graph, Node
from graphprune.model.inference.contributed import MICROSOFT
from graphprune.model.inference.known import Shapes
from graphprune.model.misfits.layer_misfits import LAYER_RULES
from graphprune.model.misfits.position_misfits import POSITION_RULES
from graphprune.model.misfits.reads import Dims, Reads, Rule, first_of
from graphprune.model.misfits.scale_misfits import SCALE_RULES

__all__ = ["misfit"]

_Wanted = Callable[[Node, Sequence[Dims | None]], "list[tuple[int, int, int]]"]
"""From the shapes of the inputs to (slot, axis, size) that must hold."""


def misfit(graph: Graph, shapes: Shapes, unreached: Collection[int] = ()) -> str | None:
    """Return a sentence about the first node whose operands do not fit, None where all fit that are known.

    Parameters
    ----------
    unreached : collection of int
        Nodes that are not run for inputs of these sizes.

    Complexity: O(nodes), and the elements of the lists of positions that they read.
    """
    for node in graph.nodes:
        if node.index in unreached:
            continue
        reads = Reads(node, shapes, graph.opsets.get(node.domain, 1))
        said = first_of(*(rule(reads) for rule in _RULES_OF.get((node.domain, node.op_type), ())))
        if said is not None:
            return said
    return None


def _sizes(wanted: _Wanted, ranks: Mapping[int, int]) -> Rule:
    """Hold the sizes of inputs against what a node wants of them, and their ranks against the least."""

    def rule(reads: Reads) -> str | None:
        dims = [reads.dims(slot) for slot in range(len(reads.node.inputs))]
        for slot, known in enumerate(dims):
            if known is not None and len(known) < ranks.get(slot, 0):
                return reads.objection(slot, f"has {len(known)} axes, but needs {ranks[slot]}")
        return first_of(*(reads.has_length(slot, axis, size) for slot, axis, size in wanted(reads.node, dims)))

    return rule


def _reshape(reads: Reads) -> str | None:
    """Count the elements of a fixed target."""
    dims, target = reads.dims(0), reads.numbers(1)
    if target is None or dims is None or reads.node.attribute("allowzero", 0):
        return None
    sizes = [int(size) for size in target]
    if any(size == 0 and axis >= len(dims) for axis, size in enumerate(sizes)):
        return reads.objection(1, f"is {sizes}, but input 0 has {len(dims)} axes")
    sizes = [dims[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    elements, known = prod(dims), prod(size for size in sizes if size != -1)
    fits = elements == known if -1 not in sizes else known == 0 or elements % known == 0
    return None if fits else reads.objection(0, f"has the shape {list(dims)}, which cannot become {sizes}")


def _window(slot: int) -> Rule:
    """Compare a kernel with what it slides over, where inference rounds a negative size up to one."""

    def rule(reads: Reads) -> str | None:
        node, data, kernel = reads.node, reads.dims(0), reads.dims(slot)
        auto_pad = str(node.attribute("auto_pad", "NOTSET"))
        if data is None or kernel is None or auto_pad.startswith("SAME"):
            return None
        axes = len(kernel) - 2
        pads = node.attribute("pads", [0] * 2 * axes) if auto_pad == "NOTSET" else [0] * 2 * axes
        dilations = node.attribute("dilations", [1] * axes)
        for axis, size in enumerate(data[2:]):
            padded, reach = size + pads[axis] + pads[axis + axes], (kernel[axis + 2] - 1) * dilations[axis] + 1
            if padded < reach:
                what = f"its kernel reaches over {reach} on axis {axis + 2}, {padded} are there"
                return reads.objection(0, f"has the shape {list(data)}: {what}")
        return None

    return rule


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


_IMAGES: Final = {0: 3, 1: 3}
_SEQUENCES: Final = {0: 3, 1: 3, 2: 3}
_SIZE_RULES: Final[Mapping[tuple[str, str], tuple[Rule, ...]]] = {
    ("", "BatchNormalization"): (_sizes(_per_channel(1, 2, 3, 4), {}),),
    ("", "Conv"): (_sizes(_convolution(0, 1, 2), _IMAGES), _window(1)),
    ("", "ConvInteger"): (_sizes(_convolution(0, 1, 4), _IMAGES), _window(1)),
    ("", "ConvTranspose"): (_sizes(_convolution(0, 1, 2, transposed=True), _IMAGES),),
    ("", "GRU"): (_sizes(_recurrent(3), _SEQUENCES),),
    ("", "Gemm"): (_sizes(_gemm, {0: 2, 1: 2}),),
    ("", "InstanceNormalization"): (_sizes(_per_channel(1, 2), {0: 3}),),
    ("", "LSTM"): (_sizes(_recurrent(4), _SEQUENCES),),
    ("", "QLinearConv"): (_sizes(_convolution(0, 3, 8), {0: 3, 3: 3}), _window(3)),
    ("", "RNN"): (_sizes(_recurrent(1), _SEQUENCES),),
    ("", "Reshape"): (_reshape,),
    (MICROSOFT, "FusedConv"): (_sizes(_convolution(0, 1, 2), _IMAGES),),
}
_FURTHER: Final = (SCALE_RULES, POSITION_RULES, LAYER_RULES)
_RULES_OF: Final[Mapping[tuple[str, str], tuple[Rule, ...]]] = {
    operator: (*_SIZE_RULES.get(operator, ()), *(rules[operator] for rules in _FURTHER if operator in rules))
    for operator in {*_SIZE_RULES, *(operator for rules in _FURTHER for operator in rules)}
}
"""By domain and operator."""
