# SPDX-License-Identifier: Apache-2.0
"""Effort: about how long a node keeps the kernels of onnxruntime busy, by the shapes of what it reads and makes.

A step is what an elementwise operator does to one element, about a nanosecond. Eight multiply-adds of a convolution or
of a matrix product are one. What has no shape, such as texts, counts as nothing: a limited child process runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log2, prod
from typing import Final

from graphprune.model.graph import Node

__all__ = ["effort"]

Dims = Mapping[str, tuple[int, ...]]
_Rule = Callable[[Node, Dims], float]

_PER_STEP: Final = 8
"""Multiply-adds of vectorised kernels in a step."""
_SAMPLES: Final = 16
"""Elements that a point between others is made of."""


def effort(node: Node, dims: Dims) -> float:
    """Return the steps that a node takes once.

    Parameters
    ----------
    dims : mapping of str to tuple of int
        The shapes that are known.

    Complexity: O(inputs and outputs).
    """
    moved = sum(_elements(dims, name) for name in (*node.inputs, *node.outputs))
    rule = None if node.domain else _RULES.get(node.op_type)
    try:
        return moved + (rule(node, dims) if rule is not None else 0.0)
    except (IndexError, KeyError, TypeError, ValueError):
        return moved  # inputs or attributes that the operator cannot have


def _elements(dims: Dims, name: str) -> float:
    return float(prod(dims[name])) if name and name in dims else 0.0


def _convolution(weight: int) -> _Rule:
    def steps(node: Node, dims: Dims) -> float:
        return _elements(dims, node.outputs[0]) * prod(dims[node.inputs[weight]][1:]) / _PER_STEP

    return steps


def _transposed(node: Node, dims: Dims) -> float:
    return _elements(dims, node.inputs[0]) * prod(dims[node.inputs[1]][1:]) / _PER_STEP


def _deformable(node: Node, dims: Dims) -> float:
    return _SAMPLES * _elements(dims, node.outputs[0]) * prod(dims[node.inputs[1]][1:]) / _PER_STEP


def _windows(node: Node, dims: Dims) -> float:
    return _elements(dims, node.outputs[0]) * float(prod(node.attribute("kernel_shape")))


def _neighbours(node: Node, dims: Dims) -> float:
    return _elements(dims, node.outputs[0]) * float(node.attribute("size", 1))


def _product(node: Node, dims: Dims) -> float:
    inner = dims[node.inputs[0]][-2 if node.attribute("transA", 0) else -1]
    return _elements(dims, node.outputs[0]) * inner / _PER_STEP


def _einsum(node: Node, dims: Dims) -> float:
    """Operands are multiplied one after the other; letters that nobody needs any more are summed up at once."""
    terms, _, result = node.attribute("equation").replace(" ", "").partition("->")
    letters = terms.split(",")
    sizes = {
        letter: float(size)
        for term, name in zip(letters, node.inputs, strict=True)
        for letter, size in zip(term, dims[name], strict=True)
    }
    present, steps = set(letters[0]), 0.0
    for number, term in enumerate(letters[1:], start=1):
        later = {letter for further in (*letters[number + 1 :], result) for letter in further}
        shared = present & set(term)
        joined = (present & (later | shared)) | (set(term) & (later | shared))
        steps += prod(sizes[letter] for letter in joined)
        present = joined & later
    return steps / _PER_STEP


def _recurrent(node: Node, dims: Dims) -> float:
    steps, batch = dims[node.inputs[0]][:2]
    return steps * batch * sum(_elements(dims, name) for name in node.inputs[1:3]) / _PER_STEP


def _attention(node: Node, dims: Dims) -> float:
    """Multiply queries by keys, and what these say by values."""
    queries, keys = node.inputs[:2]
    return _elements(dims, queries) * prod(dims[keys][-2:-1]) * 2 / _PER_STEP


def _sorted(node: Node, dims: Dims) -> float:
    count = _elements(dims, node.inputs[0])
    return count * log2(count + 2)


def _pairwise(node: Node, dims: Dims) -> float:
    return _elements(dims, node.inputs[1]) * dims[node.inputs[0]][1]


def _boxes(node: Node, dims: Dims) -> float:
    samples = node.attribute("sampling_ratio", 0) or 2
    return _elements(dims, node.outputs[0]) * float(samples) ** 2 * _PER_STEP


def _points(node: Node, dims: Dims) -> float:
    return _SAMPLES * _elements(dims, node.outputs[0])


def _transform(node: Node, dims: Dims) -> float:
    return _points(node, dims) * log2(_elements(dims, node.outputs[0]) + 2)


def _determinant(node: Node, dims: Dims) -> float:
    return _elements(dims, node.inputs[0]) * dims[node.inputs[0]][-1]


def _grams(node: Node, dims: Dims) -> float:
    skips, longest = node.attribute("max_skip_count"), node.attribute("max_gram_length")
    return _elements(dims, node.inputs[0]) * float((1 + skips) * longest)


_RULES: Final[Mapping[str, _Rule]] = {
    **dict.fromkeys(("Conv", "ConvInteger"), _convolution(1)),
    **dict.fromkeys(("AveragePool", "LpPool", "MaxPool"), _windows),
    **dict.fromkeys(("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"), _product),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _recurrent),
    **dict.fromkeys(("TopK", "Unique"), _sorted),
    **dict.fromkeys(("AffineGrid", "GridSample", "MelWeightMatrix", "Resize", "Upsample"), _points),
    **dict.fromkeys(("DFT", "STFT"), _transform),
    "Attention": _attention,
    "ConvTranspose": _transposed,
    "DeformConv": _deformable,
    "Det": _determinant,
    "Einsum": _einsum,
    "LRN": _neighbours,
    "NonMaxSuppression": _pairwise,
    "QLinearConv": _convolution(3),
    "RoiAlign": _boxes,
    "TfIdfVectorizer": _grams,
}
"""What operators do beyond reading and writing each element once."""
