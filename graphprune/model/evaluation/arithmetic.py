# SPDX-License-Identifier: Apache-2.0
"""Arithmetic on constants, with a bound on the work before anything is computed.

The expressions of a file that somebody else made may ask for anything: a regular expression that never ends,
a text doubled forty times, a tensor of terabytes. So this process computes only operators whose time and memory
follow from the sizes of their operands, after counting; all others are left to a child process with limits
(:mod:`graphprune.model.evaluation.constant_evaluation`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, Final

import numpy as np
from onnx import GraphProto, TensorProto, ValueInfoProto, helper
from onnx.reference import ReferenceEvaluator

from graphprune.array_types import Array
from graphprune.model.graph import Node

__all__ = ["MOST_WORK", "NotComputedError", "evaluate", "work"]

MOST_WORK: Final = 1 << 25
"""Elements that one evaluation may read and make together where the caller names no other bound."""

_OTHER_TYPE: Final = frozenset({"Cast", "CastLike", "QuantizeLinear"})
_HALVES: Final = (np.dtype(np.float16), helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16))

# One element of these takes a step of the Python interpreter in the reference implementation.
_STEP: Final = 64


# And one of these a series, or several passes over all elements.
_SERIES: Final = 8


class NotComputedError(Exception):
    """A node is of a kind, or asks for an amount of work, that is not computed in this process."""


def evaluate(
    node: Node, inputs: Sequence[Array | None], opsets: Mapping[str, int], *, most: float = MOST_WORK
) -> list[Array]:
    """Run one node with the reference implementation of onnx, if the work is known to be bounded.

    Parameters
    ----------
    most : float
        Elements that may be read and made.

    Raises
    ------
    NotComputedError
        If the operator is not on the list of this module, or the work exceeds `most`.
    Exception
        Whatever the reference implementation raises; callers treat it as "not known".
    """
    if work(node, inputs) > most:
        raise NotComputedError(f"{node.op_type} is not computed here")
    # A lone NodeProto would be run at the latest operator set; in a graph the given one counts.
    body = GraphProto(name="node")
    body.node.append(node.proto)
    body.input.extend(ValueInfoProto(name=name) for name in dict.fromkeys(node.inputs) if name)
    body.output.extend(ValueInfoProto(name=name) for name in node.outputs if name)
    session = ReferenceEvaluator(body, opsets=dict(opsets))
    half = _half_type(node, inputs)
    feeds = {
        name: value.astype(np.float32) if half is not None and value is not None and value.dtype == half else value
        for name, value in zip(node.inputs, inputs, strict=True)
        if name
    }
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what numpy thinks of the numbers of a file is no message of ours
        made = session.run(None, feeds)
    results = (_rounded(np.asarray(result), half) for result in made)
    return [next(results) if name else np.empty(0) for name in node.outputs]


def _half_type(node: Node, inputs: Sequence[Array | None]) -> np.dtype[Any] | None:
    """Return the half type in which a node reads and makes numbers, None where it does not, or says a type itself.

    Runtimes compute with more digits and round what comes of it; the reference implementation rounds every step.
    """
    if node.op_type in _OTHER_TYPE or any(name in node.attributes for name in ("dtype", "output_dtype", "to")):
        return None
    kinds = (value.dtype for value in inputs if value is not None)
    return next((kind for kind in kinds if kind in _HALVES), None)


def _rounded(result: Array, half: np.dtype[Any] | None) -> Array:
    return result.astype(half) if half is not None and result.dtype == np.float32 else result


def work(node: Node, inputs: Sequence[Array | None]) -> float:
    """Return how many elements a node reads and makes, infinite where that is not known.

    An upper bound from the shapes of the operands and, where these say how large the result is, their values.
    A step of the interpreter counts as 64 elements.

    Complexity: O(1), but for operands that are sizes.
    """
    count = _COUNTS.get(node.op_type) if not node.domain else None
    operands = [value for value in inputs if value is not None]
    if count is None or _makes_texts(node) or any(value.dtype.kind in "OSU" for value in operands):
        return np.inf
    try:
        return sum(value.size for value in operands) + float(count(node, operands))
    except (ValueError, TypeError, IndexError, OverflowError, ZeroDivisionError):
        return np.inf  # operands that do not fit the operator


def _makes_texts(node: Node) -> bool:
    """Whether a node writes numbers out, an object for each, at hundreds of times the cost of any other."""
    return bool(node.attribute("to") == TensorProto.STRING)


_Count = Callable[[Node, list[Array]], float]


def _broadcast(_: Node, operands: list[Array]) -> float:
    return float(prod(np.broadcast_shapes(*(value.shape for value in operands))))


def _same(_: Node, operands: list[Array]) -> float:
    """No larger than what is read."""
    return float(sum(value.size for value in operands))


def _per_step(_: Node, operands: list[Array]) -> float:
    return float(_STEP * sum(value.size for value in operands))


def _slowly(node: Node, operands: list[Array]) -> float:
    return _SERIES * _broadcast(node, operands)


def _product(sizes: Array) -> float:
    return float(np.prod(np.abs(sizes.astype(np.float64)), initial=1.0))


def _constant_of_shape(_: Node, operands: list[Array]) -> float:
    return _product(operands[0])


def _expand(_: Node, operands: list[Array]) -> float:
    data, target = operands
    return float(prod(np.broadcast_shapes(data.shape, tuple(int(size) for size in target))))


def _tile(_: Node, operands: list[Array]) -> float:
    return operands[0].size * _product(operands[1])


def _range(_: Node, operands: list[Array]) -> float:
    start, limit, step = (float(value) for value in operands)
    return max(0.0, (limit - start) / step) * _STEP


def _pad(node: Node, operands: list[Array]) -> float:
    dims = np.asarray(operands[0].shape, dtype=np.float64)
    given = operands[1] if len(node.inputs) > 1 else node.attribute("pads")
    amounts = np.abs(np.asarray(given, dtype=np.float64))
    # Amounts for some axes may be for any.
    added = amounts.reshape(2, -1).sum(axis=0) if amounts.size == 2 * dims.size else amounts.sum()
    return float(np.prod(dims + added))


def _one_hot(_: Node, operands: list[Array]) -> float:
    return operands[0].size * float(np.ravel(operands[1])[0]) * _STEP


def _gather(node: Node, operands: list[Array]) -> float:
    data, index = operands
    return float(data.size / max(data.shape[node.attribute("axis", 0)], 1) * index.size)


def _gather_nd(_: Node, operands: list[Array]) -> float:
    data, index = operands
    depth = index.shape[-1]
    return float(prod(data.shape[depth:])) * index.size + _STEP * index.size


def _matmul(node: Node, operands: list[Array]) -> float:
    first, second = operands[:2]
    inner = first.shape[0 if node.attribute("transA", 0) else -1]
    return float(first.size * second.size / max(inner, 1))


def _einsum(node: Node, operands: list[Array]) -> float:
    """Every combination of indices, once; dimensions without a letter are not counted here."""
    terms = node.attribute("equation").replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, value in zip(terms, operands, strict=True):
        for letter, size in zip(term, value.shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 0))
    return float("inf") if "." in sizes else float(prod(sizes.values()))


def _eye(_: Node, operands: list[Array]) -> float:
    return float(operands[0].size)


_ELEMENTWISE = """
Abs Add And BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Clip DequantizeLinear Div
DynamicQuantizeLinear Equal Floor Greater GreaterOrEqual HardSigmoid HardSwish IsInf IsNaN LeakyRelu Less LessOrEqual
Max Mean Min Mod Mul Neg Not Or PRelu QuantizeLinear Reciprocal Relu Round Sign Softsign Sqrt Sub Sum ThresholdedRelu
Where Xor
"""
_SLOW = """
Acos Acosh Asin Asinh Atan Atanh Celu Cos Cosh Elu Exp Log Mish Pow Selu Sigmoid Sin Sinh Softplus Swish Tan Tanh
"""
_NO_LARGER = """
ArgMax ArgMin BatchNormalization Compress Concat Constant CumSum DepthToSpace Flatten Identity InstanceNormalization
LayerNormalization LogSoftmax LpNormalization NonZero RMSNormalization ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Reshape Shape Size Slice Softmax SpaceToDepth
Split Squeeze Transpose Trilu Unsqueeze
"""
_BY_STEPS = "Erf GatherElements Gelu Hardmax ReverseSequence ScatterElements ScatterND TopK Unique"

_COUNTS: Final[Mapping[str, _Count]] = {
    **dict.fromkeys(_ELEMENTWISE.split(), _broadcast),
    **dict.fromkeys(_SLOW.split(), _slowly),
    **dict.fromkeys(_NO_LARGER.split(), _same),
    **dict.fromkeys(_BY_STEPS.split(), _per_step),
    "ConstantOfShape": _constant_of_shape,
    "Einsum": _einsum,
    "Expand": _expand,
    "EyeLike": _eye,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Gemm": _matmul,
    "MatMul": _matmul,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Range": _range,
    "Tile": _tile,
}
"""For each operator that is computed here, what it makes at most, in elements."""
