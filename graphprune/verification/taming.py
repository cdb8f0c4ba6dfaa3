# SPDX-License-Identifier: Apache-2.0
"""Taming: copies in which infinities and what is no number become zero where they arise, so that what follows shows.

Random inputs leave the domain of operators such as `Log`; then all that follows is no number, in both models alike,
and equality proves nothing of it. What the operators themselves give is still compared, each place where it is finite,
and both copies go on from the same values.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from graphprune.analysis.analysis import Analysis

__all__ = ["tame", "wild_values"]

_WILD = frozenset(
    {"Acos", "Acosh", "Asin", "Atanh", "Div", "Exp", "Log", "Mod", "Pow", "Reciprocal", "Sqrt", "Sinh", "Cosh", "Tan"}
)
_TYPES = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE})
_SELECTS = 9
"""First operator set with `Where`."""
_RAW = ".graphprune.raw"
_LARGEST = 3e38


def wild_values(analysis: Analysis, names: Collection[str]) -> list[str]:
    """Return those of some values of the main graph that may not be finite although their node reads finite numbers."""
    if analysis.graph.opset < _SELECTS:
        return []
    wanted = set(names)
    return [
        name
        for node in analysis.graph.nodes
        if node.op_type in _WILD and not node.domain
        for name in node.outputs
        if name in wanted and name not in analysis.flat.home and analysis.shapes.dtypes.get(name) in _TYPES
    ]


def tame(model: ModelProto, names: Collection[str], types: dict[str, int]) -> None:
    """Replace what is not finite in some values by zero, in place."""
    if not names:
        return
    wanted = set(names)
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        own = [name for name in node.output if name in wanted]
        for slot, name in enumerate(node.output):
            if name in wanted:
                node.output[slot] = name + _RAW
        nodes.append(node)
        for name in own:
            size, largest, zero, small = (f"{name}{_RAW}.{part}" for part in ("size", "largest", "zero", "small"))
            dtype = helper.tensor_dtype_to_np_dtype(types[name])
            for constant, value in ((largest, _LARGEST), (zero, 0.0)):
                model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), constant))
            nodes.append(helper.make_node("Abs", [name + _RAW], [size]))
            nodes.append(helper.make_node("Less", [size, largest], [small]))  # false for what is no number
            nodes.append(helper.make_node("Where", [small, name + _RAW, zero], [name]))
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    model.graph.ClearField("node")
    model.graph.node.extend(copies)
