# SPDX-License-Identifier: Apache-2.0
"""The masked original: the analysed graph with a mask at every place that consumes removed channels.

The masks are extra graph inputs, so one model serves as the original (all ones) and as the
masked original. Masks are inserted into the protobuf message directly: an import and export
through a graph library would lose values that must be compared (8-bit floats, shadowed names).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper

from graphprune.analysis import Analysis
from graphprune.labels.vector import Labels

__all__ = ["DISCRETE", "Oracle", "build_oracle", "discrete_names"]

Mask = npt.NDArray[np.bool_]

DISCRETE = frozenset({"ArgMax", "ArgMin", "Compress", "NonMaxSuppression", "NonZero", "TopK", "Unique"})
"""Operators whose result jumps when rounding reorders near-ties; nothing behind them is compared."""


@dataclass
class Oracle:
    """A model with masks as inputs.

    Attributes
    ----------
    model : ModelProto
    masks : dict of str to ndarray
        Value of each mask input, in the type of what it multiplies.
    """

    model: ModelProto
    masks: dict[str, npt.NDArray[np.generic]] = field(default_factory=dict)


def build_oracle(analysis: Analysis, mask: Callable[[Labels], Mask]) -> Oracle:
    """Insert a mask before every contraction over removed slices.

    Parameters
    ----------
    mask : callable
        Gives the kept slices of a label vector.
    """
    oracle = Oracle(ModelProto())
    oracle.model.CopyFrom(analysis.graph.proto)
    before: dict[int, list[NodeProto]] = {}
    made: dict[tuple[str, int, bytes], str] = {}
    for contraction in analysis.scope.space.contractions:
        kept = mask(contraction.labels)
        if kept.all():
            continue
        node = oracle.model.graph.node[contraction.node.index]
        source = node.input[contraction.slot]
        key = (source, contraction.axis, kept.tobytes())
        if key not in made:
            made[key] = _add_mask(analysis, oracle, contraction.node.inputs[contraction.slot], contraction.axis, kept)
            masked = f"{made[key]}.product"
            before.setdefault(contraction.node.index, []).append(helper.make_node("Mul", [source, made[key]], [masked]))
        node.input[contraction.slot] = f"{made[key]}.product"
    nodes = [item for at, node in enumerate(oracle.model.graph.node) for item in (*before.get(at, ()), node)]
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes] if before else []
    if copies:
        del oracle.model.graph.node[:]
        oracle.model.graph.node.extend(copies)
    return oracle


def _add_mask(analysis: Analysis, oracle: Oracle, value: str, axis: int, kept: Mask) -> str:
    """Add a mask input for one axis of a value and return its name."""
    rank = len(analysis.shapes.dims[value])
    elem_type = analysis.shapes.dtypes.get(value, TensorProto.FLOAT)
    shape = [1] * rank
    shape[axis] = len(kept)
    name = f"graphprune.mask.{len(oracle.masks)}"
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    oracle.masks[name] = kept.astype(np.float32).reshape(shape).astype(dtype)
    oracle.model.graph.input.append(helper.make_tensor_value_info(name, elem_type, shape))
    return name


def discrete_names(analysis: Analysis) -> set[str]:
    """Return all values that depend on the result of a discrete operator."""
    found: set[str] = set()
    for node in analysis.graph.nodes:
        if node.outputs and node.outputs[0] in analysis.shapes.constant:
            continue
        if node.op_type in DISCRETE or any(name in found for name in (*node.inputs, *node.captured)):
            found.update(name for name in node.outputs if name)
    return found
