# SPDX-License-Identifier: Apache-2.0
"""Long lists: which nodes onnx must not follow number by number when it infers shapes.

What a list of numbers holds is handed on in messages, some seventy bytes for each number and node, of whatever kind it
is: sizes, ranges, windows, sound. Most lengths are known from a pass without that. For those that are computed there
are upper bounds here: the numbers that onnx hands on come of stored ones and of sizes, by sums and products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Final

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, TypeProto, defs, helper, numpy_helper

from graphprune.array_types import Array

__all__ = ["nodes_with_long_lists"]

_LONGEST: Final = 1 << 16
"""Elements of a list that could still be one of sizes, positions or tokens."""
_MOST_TOGETHER: Final = 1 << 21
"""Elements of all lists together, each counted at every node that makes or reads it."""
_USUAL_RANK: Final = 6
"""Axes of a value of which inference does not even say how many it has."""
_LIMIT: Final = 1e30
"""A bound that is as good as none; products of two still are numbers."""


def nodes_with_long_lists(
    bare: ModelProto, whole: ModelProto, left_out: frozenset[int] | None = None
) -> frozenset[int]:
    """Return the indices of nodes that read or make lists too long for onnx to hand on.

    Parameters
    ----------
    bare : ModelProto
        A graph in topological order.
    whole : ModelProto
        The same with the shapes that follow without handing on what lists hold.
    left_out : frozenset of int, optional
        Nodes at which inference stopped, where `whole` has the shapes that follow with that: what it does not know
        without these it never will.

    Complexity: O(nodes).
    """
    types = {value.name: value.type for value in (*whole.graph.input, *whole.graph.value_info, *whole.graph.output)}
    bounds = _Bounds(bare, types)
    kinds = {node.op_type: node for node in bare.graph.node if not node.domain}
    followed = {kind for kind, node in kinds.items() if _hands_on(node)}
    lists: dict[int, list[str]] = {}
    for index, node in enumerate(bare.graph.node):
        if node.op_type in followed and not node.domain:
            lists[index] = [name for name in (*node.input, *node.output) if name]
    if any(bounds.may_be_long(name) for names in lists.values() for name in names):
        _bound(bare, bounds, left_out)
    lengths = {
        index: [bounds.length(name, bare.graph.node[index].op_type) for name in names] for index, names in lists.items()
    }
    longest = float(_LONGEST)
    while sum(sum(each) for each in lengths.values() if max(each) <= longest) > _MOST_TOGETHER:
        longest /= 2
    return frozenset(index for index, each in lengths.items() if max(each) > longest)


def _bound(bare: ModelProto, bounds: _Bounds, left_out: frozenset[int] | None) -> None:
    """Find the bounds of all values."""
    behind: set[str] = set()
    for index, node in enumerate(bare.graph.node):
        is_settled = left_out is not None and index not in left_out and behind.isdisjoint(node.input)
        if not is_settled:
            behind.update(filter(None, node.output))
        bounds.pass_on(node, is_settled=is_settled)


def _hands_on(node: NodeProto) -> bool:
    """Whether onnx follows what lists hold through an operator, or through the function that it stands for."""
    if node.domain or not defs.has(node.op_type):
        return False
    schema = defs.get_schema(node.op_type)
    # The stub of onnx does not know the second one.
    return bool(schema.has_data_propagation_function or schema.has_function)  # type: ignore[attr-defined]


class _Bounds:
    """Upper bounds of what one pass over the nodes may find out of values, their numbers handed on.

    Sizes that depend on open dimensions never become known, and need no bound.
    """

    def __init__(self, bare: ModelProto, types: Mapping[str, TypeProto]) -> None:
        self._types = types
        self._dims: dict[str, Sequence[int] | None] = {}
        self._sides: dict[str, float] = {}
        self._ranks: dict[str, int] = {}
        self._axes_at_most: dict[str, float] = {}
        self._numbers: dict[str, float] = {}
        self._stored: dict[str, TensorProto | NodeProto] = {}
        for tensor in bare.graph.initializer:
            self._stored[tensor.name] = tensor
            self._dims[tensor.name] = list(tensor.dims)

    def may_be_long(self, name: str) -> bool:
        """Whether a value may be a list of which it is not known how long it is."""
        dims = self._sizes(name)
        return dims is None or (len(dims) == 1 and dims[0] < 0)

    def length(self, name: str, reader: str) -> float:
        """Return how long a value may be if it may be a list, else 0; or a list that its reader makes of it."""
        return self.side(name) if self._rank(name) in (1, None) or reader in _LISTS_INSIDE else 0.0

    def number(self, name: str) -> float:
        """Return the largest absolute value that the numbers in a value may have, as far as onnx hands on any."""
        if name not in self._numbers and name in self._stored:
            values = _values(self._stored[name])
            largest = np.abs(values.astype(np.float64)).max(initial=0.0)
            self._numbers[name] = min(float(np.nan_to_num(largest, nan=_LIMIT)), _LIMIT)
        return self._numbers.get(name, 0.0)

    def side(self, name: str) -> float:
        """Return how long the longest axis of a value may be."""
        return max(*(self._sizes(name) or ()), 0.0, self._sides.get(name, 0.0))

    def elements(self, name: str) -> float:
        """Return how many elements a value may have."""
        dims = self._sizes(name)
        side = min(self._sides.get(name, 0.0), _LIMIT ** (1 / _USUAL_RANK))
        if dims is None:
            return float(side ** self._ranks.get(name, _USUAL_RANK))
        return min(prod(float(size) if size > 0 else side for size in dims), _LIMIT)

    def axes(self, name: str) -> float:
        """Return how many axes a value may have."""
        rank = self._rank(name)
        return self._axes_at_most.get(name, _USUAL_RANK) if rank is None else rank

    def pass_on(self, node: NodeProto, *, is_settled: bool) -> None:
        """Find the bounds of what a node makes; of its shape there are none where that is settled."""
        if node.domain:
            return  # inference stops here
        inputs = [*node.input, *[""] * 4]
        if node.op_type == "Constant":
            self._stored[node.output[0]] = node
        elif node.op_type in _NUMBERS:
            self._numbers[node.output[0]] = min(_NUMBERS[node.op_type](self, inputs), _LIMIT)
        if is_settled:
            return
        unknown = [name for name in node.output if name and not self._is_known(name)]
        if not unknown:
            return
        length = self._exact_length(node, inputs)
        if length is not None:
            self._dims[node.output[0]] = [length]
            return
        side = min(_grown(node, _SIDES.get(node.op_type, _as_long)(self, inputs)), _LIMIT)
        self._sides.update(dict.fromkeys(unknown, side))
        rank = self._rank_made(node, inputs)
        if rank is not None:
            self._ranks.update(dict.fromkeys(unknown, rank))
        else:
            target = self.side(inputs[_TARGETS.get(node.op_type, -1)])
            most = max([target, *(self.axes(name) for name in node.input if name)])
            self._axes_at_most.update(dict.fromkeys(unknown, most))

    def _sizes(self, name: str) -> Sequence[int] | None:
        """Return the sizes of a value as far as they are known, -1 where one is not; None without any shape."""
        if name not in self._dims:
            kind = self._types.get(name)
            shape = None if kind is None or not kind.tensor_type.HasField("shape") else kind.tensor_type.shape.dim
            self._dims[name] = (
                None if shape is None else [dim.dim_value if dim.HasField("dim_value") else -1 for dim in shape]
            )
        return self._dims[name]

    def _is_known(self, name: str) -> bool:
        dims = self._sizes(name)
        return dims is not None and -1 not in dims

    def _rank(self, name: str) -> int | None:
        dims = self._sizes(name)
        return self._ranks.get(name) if dims is None else len(dims)

    def _exact_length(self, node: NodeProto, inputs: Sequence[str]) -> int | None:
        """Return the length of a list of sizes, which inference may not know yet."""
        if node.op_type == "Shape" and not node.attribute:
            return self._rank(inputs[0])
        lengths = [self._list_length(name) for name in node.input]
        if not lengths or (first := lengths[0]) is None:
            return None
        if node.op_type == "Cast":
            return first
        if node.op_type == "Concat":
            return None if None in lengths else sum(length or 0 for length in lengths)
        if node.op_type != "Slice":
            return None
        start, end, step = (self._single(inputs[slot]) for slot in (1, 2, 4))
        step = step if inputs[4] else 1
        return len(range(first)[start:end:step]) if step and start is not None and end is not None else None

    def _single(self, name: str) -> int | None:
        """Return the one integer that is stored in a value."""
        values = _values(self._stored[name]) if name in self._stored else np.empty(0)
        return int(values.item()) if values.size == 1 and values.dtype.kind == "i" else None

    def _list_length(self, name: str) -> int | None:
        dims = self._sizes(name)
        return dims[0] if dims is not None and len(dims) == 1 and dims[0] >= 0 else None

    def _rank_made(self, node: NodeProto, inputs: Sequence[str]) -> int | None:
        """Return how many axes a result has where that is plain."""
        kind = node.op_type
        if kind in _TARGETS:
            target = self._sizes(inputs[_TARGETS[kind]])
            made = target[0] if target and target[0] >= 0 else None
            given = self._rank(inputs[0])
            return made if kind != "Expand" or made is None or given is None else max(made, given)
        if kind in _FIXED_RANK:
            return _FIXED_RANK[kind]
        ranks = [self._rank(name) for name in node.input if name]
        if not ranks or (first := ranks[0]) is None:
            return None
        if kind in _LESS or kind == "Unsqueeze":
            axes = self._axes(node, inputs)
            change = 0 if kind in _LESS and _int(node, "keepdims", int(kind != "Squeeze")) else axes
            return None if change is None else first + (change if kind == "Unsqueeze" else -change)
        if kind == "Gather":
            return None if ranks[1] is None else first - 1 + ranks[1]
        if kind in _FIRST_RANK:
            return first
        known = [rank for rank in ranks if rank is not None]
        if len(known) < len(ranks) or (kind not in _BROADCASTING and not (kind == "MatMul" and min(known) > 1)):
            return None
        return max(known)

    def _axes(self, node: NodeProto, inputs: Sequence[str]) -> int | None:
        """Return how many axes a node is given to add or to take away."""
        given = [len(attribute.ints) for attribute in node.attribute if attribute.name == "axes"]
        if node.op_type.startswith("Arg"):
            return 1
        sizes = self._sizes(inputs[1])
        return given[0] if given else sizes[0] if sizes and sizes[0] >= 0 else None


def _grown(node: NodeProto, side: float) -> float:
    """Return how long a side becomes by what stands in the attributes of a node."""
    for attribute in node.attribute:
        if attribute.name in _ADDING:
            side += sum(map(abs, attribute.ints)) + abs(attribute.i)
        elif attribute.name in ("blocksize", "scales") or (
            attribute.name == "strides" and node.op_type in ("ConvTranspose", "MaxUnpool")
        ):
            side *= max([1.0, *map(abs, attribute.ints), *map(abs, attribute.floats), float(abs(attribute.i)) ** 2])
    return side


def _int(node: NodeProto, name: str, default: int) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)


def _values(stored: TensorProto | NodeProto) -> Array:
    """Return the numbers of a small tensor, or of a `Constant`; none of others."""
    if isinstance(stored, NodeProto):
        attribute = next(iter(stored.attribute), AttributeProto())
        if attribute.name in ("value_int", "value_ints", "value_float", "value_floats"):
            return np.asarray(helper.get_attribute_value(attribute))
        stored = attribute.t
    if stored.data_type == TensorProto.STRING or prod(stored.dims) > _LONGEST:
        return np.empty(0)
    values = np.asarray(numpy_helper.to_array(stored)) if stored.data_type else np.empty(0)
    return values if values.dtype.kind in "biuf" else np.empty(0)


_Rule = Callable[[_Bounds, Sequence[str]], float]


def _nothing(*_: object) -> float:
    """How long it is never becomes known but of stored numbers, and then at once."""
    return 0.0


def _as_long(bounds: _Bounds, names: Sequence[str]) -> float:
    return max(bounds.side(name) for name in names)


def _kept(bounds: _Bounds, names: Sequence[str]) -> float:
    return bounds.number(names[0])


def _summed(bounds: _Bounds, names: Sequence[str]) -> float:
    return bounds.number(names[0]) + bounds.number(names[1])


def _multiplied(bounds: _Bounds, names: Sequence[str]) -> float:
    return bounds.number(names[0]) * bounds.number(names[1])


def _as_told(bounds: _Bounds, names: Sequence[str]) -> float:
    """As long as what comes in, or as a number says."""
    return max(_as_long(bounds, names), *(bounds.number(name) for name in names[1:]))


def _padded(bounds: _Bounds, names: Sequence[str]) -> float:
    return bounds.side(names[0]) + 2 * bounds.number(names[1])


def _scaled(bounds: _Bounds, names: Sequence[str]) -> float:
    return bounds.side(names[0]) * max(bounds.number(names[1]), 1.0)


def _resized(bounds: _Bounds, names: Sequence[str]) -> float:
    return max(bounds.side(names[0]) * max(bounds.number(names[2]), 1.0), bounds.number(names[3]))


_NUMBERS: Final[Mapping[str, _Rule]] = {
    **dict.fromkeys(("Cast", "Gather", "Slice", "Squeeze", "Unsqueeze"), _kept),
    **dict.fromkeys(("Add", "Sub"), _summed),
    "Concat": lambda bounds, names: max(bounds.number(name) for name in names),
    "Mul": _multiplied,
    "Shape": lambda bounds, names: bounds.side(names[0]),
    "Size": lambda bounds, names: bounds.elements(names[0]),
}
"""What onnx hands on numbers through, and how large these become."""

_SIDES: Final[Mapping[str, _Rule]] = {
    **dict.fromkeys(("CenterCropPad", "Expand", "OneHot"), _as_told),
    **dict.fromkeys(
        ("ConstantOfShape", "BlackmanWindow", "HammingWindow", "HannWindow"),
        lambda bounds, names: bounds.number(names[0]),
    ),
    **dict.fromkeys(("Compress", "NonMaxSuppression", "NonZero", "Range", "Unique"), _nothing),
    "Flatten": lambda bounds, names: bounds.elements(names[0]),
    "Concat": lambda bounds, names: sum(bounds.side(name) for name in names),
    "Pad": _padded,
    "Reshape": lambda bounds, names: max(bounds.number(names[1]), bounds.elements(names[0])),
    "Resize": _resized,
    "Shape": lambda bounds, names: bounds.axes(names[0]),
    **dict.fromkeys(("Tile", "Upsample"), _scaled),
}
"""How long the longest axis of a result may be, where it may be longer than those of all operands."""

_GROWING_BY: Final = "hidden_size kernel_shape output_height output_padding output_shape output_width pads"
_ADDING: Final = frozenset(_GROWING_BY.split())
"""Attributes by which an axis may become longer."""
_LISTS_INSIDE: Final = frozenset({"AffineGrid"})
"""Functions that make a list as long as any of their sizes."""

_TARGETS: Final = {"ConstantOfShape": 0, "Expand": 1, "Reshape": 1}
_FIXED_RANK: Final = {
    **dict.fromkeys(("BlackmanWindow", "HammingWindow", "HannWindow", "Range", "Shape"), 1),
    **dict.fromkeys(("Flatten", "NonMaxSuppression", "NonZero"), 2),
    "Size": 0,
}
_SUMMARIES: Final = """
    ArgMax ArgMin ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Squeeze
"""
_LESS: Final = frozenset(_SUMMARIES.split())
"""Operators that take axes away, unless they keep them with one element each."""
_LIKE_THE_FIRST: Final = """
    AveragePool BatchNormalization BitShift Cast CastLike Clip Conv ConvInteger ConvTranspose CumSum DepthToSpace
    DequantizeLinear Dropout GatherElements GlobalAveragePool GlobalMaxPool GroupNormalization InstanceNormalization
    LRN LayerNormalization LogSoftmax LpPool MaxPool Pad QLinearConv QuantizeLinear RMSNormalization Resize
    ScatterElements ScatterND Slice Softmax SpaceToDepth Split Tile TopK Transpose Trilu Upsample
"""
_FIRST_RANK: Final = frozenset(_LIKE_THE_FIRST.split())
"""Operators whose result has as many axes as their first operand."""
_ELEMENTWISE: Final = """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil Celu Concat Cos Cosh
    Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Less
    LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Sigmoid Sign Sin Sinh
    Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor
"""
_BROADCASTING: Final = frozenset(_ELEMENTWISE.split())
"""Operators whose result has as many axes as any of their operands."""
