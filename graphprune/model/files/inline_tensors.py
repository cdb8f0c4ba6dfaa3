# SPDX-License-Identifier: Apache-2.0
"""Tensors stored as `Constant` nodes, where an initializer would have to be a graph input too.

Before IR version 4 every initializer must be a graph input, so a new tensor cannot be one
without changing what the model takes. Before operator set 9 a `Constant` node holds only
floating-point numbers; integers and booleans are then a cast of doubles, exact up to 2**53.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from graphprune.errors import UnsupportedModelError, quote

__all__ = ["FREE_INITIALIZERS", "as_nodes", "from_nodes"]

FREE_INITIALIZERS = 4
"""IR version from which on an initializer need not be a graph input."""

_ANY_TYPE = 9
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16})
_EXACT = 2**53


def as_nodes(tensor: TensorProto, opset: int) -> list[NodeProto]:
    """Return the nodes that make a tensor under its own name.

    Raises
    ------
    UnsupportedModelError
        If the operator set cannot store these integers.
    """
    if opset >= _ANY_TYPE or tensor.data_type in _FLOATS:
        return [helper.make_node("Constant", [], [tensor.name], value=tensor)]
    values = numpy_helper.to_array(tensor)
    if values.size and np.abs(values.astype(np.float64)).max() > _EXACT:
        raise UnsupportedModelError(
            f"operator set {opset} cannot store the integers of {quote(tensor.name)}",
            hint="convert the model to operator set 9 or later with onnx.version_converter",
        )
    double = numpy_helper.from_array(values.astype(np.float64), f"{tensor.name}.double")
    return [
        helper.make_node("Constant", [], [double.name], value=double),
        helper.make_node("Cast", [double.name], [tensor.name], to=tensor.data_type),
    ]


def from_nodes(nodes: Sequence[NodeProto]) -> tuple[TensorProto, int] | None:
    """Return the tensor that `as_nodes` stored at the start of these nodes, and how many it took; else None."""
    if not nodes or nodes[0].op_type != "Constant" or len(nodes[0].attribute) != 1:
        return None
    stored = nodes[0].attribute[0].t
    if len(nodes) > 1 and list(nodes[1].input) == [stored.name] and nodes[1].op_type == "Cast":
        data_type = nodes[1].attribute[0].i if len(nodes[1].attribute) == 1 else TensorProto.UNDEFINED
        if data_type and data_type not in _FLOATS and len(nodes[1].output) == 1:
            dtype = helper.tensor_dtype_to_np_dtype(data_type)
            tensor = numpy_helper.from_array(numpy_helper.to_array(stored).astype(dtype), nodes[1].output[0])
            if list(nodes[:2]) == as_nodes(tensor, 1):
                return tensor, 2
    return (stored, 1) if nodes[0] == helper.make_node("Constant", [], [stored.name], value=stored) else None
