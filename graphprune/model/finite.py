# SPDX-License-Identifier: Apache-2.0
"""Finiteness: NaN or infinity in a weight makes every score and every comparison meaningless."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import numpy as np
import onnx

from graphprune.errors import UnsupportedModelError, quote
from graphprune.model.load import Model

__all__ = ["check_finite"]

# Operators whose inputs after the first are weights. Elsewhere infinity may be meant, as in attention masks.
_WEIGHTED: Final = frozenset(
    {"BatchNormalization", "Conv", "ConvTranspose", "Gemm", "GRU", "LSTM", "MatMul", "PRelu", "RNN"}
    | {"GroupNormalization", "InstanceNormalization", "LayerNormalization", "RMSNormalization"}
)

# What carries a mask to where it is added: minus infinity there takes a place out of a sum of weights.
_MASKING: Final = frozenset(
    {"Add", "Attention", "Cast", "CastLike", "Concat", "Expand", "Gather", "GroupQueryAttention", "Identity", "Max"}
    | {"MultiHeadAttention", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"}
)

_PIECE: Final = 1 << 22  # values looked at in one go where that takes a mask


def check_finite(model: Model, names: Collection[str] | None = None) -> None:
    """Raise if a weight of the main graph holds NaN or infinity.

    Parameters
    ----------
    model : Model
    names : Collection[str], optional
        The initializers and Constant outputs to look at. By default those that convolutions, matrix products,
        normalisations and recurrent operators read as weights.

    Raises
    ------
    UnsupportedModelError
        Naming the tensor, the value and its position. Minus infinity is none in what is added only, as masks are.
    """
    graph = model.proto.graph
    wanted = _weights(graph) if names is None else set(names)
    stored = [(tensor.name, tensor) for tensor in graph.initializer]
    constants = [
        (node.output[0], attribute.t)
        for node in graph.node
        if node.op_type == "Constant" and node.output
        for attribute in node.attribute
        if attribute.name == "value"
    ]
    for name, tensor in stored + constants:
        if name in wanted:
            values = model.tensors.array(tensor)
            if not (_all_finite(values) or _is_mask(graph, name, values)):
                raise _not_finite(name, values)


def _weights(graph: onnx.GraphProto) -> set[str]:
    return {name for node in graph.node if node.op_type in _WEIGHTED for name in list(node.input)[1:]}


def _is_mask(graph: onnx.GraphProto, name: str, values: np.ndarray[Any, Any]) -> bool:
    """Return whether all that is not finite is minus infinity, and read by what adds it or hands it on."""
    readers = {node.op_type for node in graph.node if name in node.input}
    return readers <= _MASKING and bool((np.isfinite(values) | np.isneginf(values)).all())


def _is_float(values: np.ndarray[Any, Any]) -> bool:
    """Return whether the values can be NaN at all; the small types of `ml_dtypes` have kind "V" or "f"."""
    return values.size > 0 and values.dtype.kind in "fcV"


def _all_finite(values: np.ndarray[Any, Any]) -> bool:
    """Return whether there is neither NaN nor infinity.

    The extremes of float32 and float64 tell, since NaN wins both comparisons: a third of the time of a mask.
    """
    if not _is_float(values):
        return True
    if values.dtype in (np.float32, np.float64):
        return bool(np.isfinite(values.min()) and np.isfinite(values.max()))
    flat = values.reshape(-1)
    return all(bool(np.isfinite(flat[start : start + _PIECE]).all()) for start in range(0, flat.size, _PIECE))


def _not_finite(name: str, values: np.ndarray[Any, Any]) -> UnsupportedModelError:
    position = tuple(int(axis[0]) for axis in np.nonzero(~np.isfinite(values)))
    return UnsupportedModelError(
        f"weight {quote(name)} holds {values[position]} at position {list(position)}",
        hint="the model is damaged or its training diverged; export it again from a good checkpoint",
    )
