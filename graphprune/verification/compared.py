# SPDX-License-Identifier: Apache-2.0
"""What is compared: the values that two models share, and those at which it is seen how far masking moves them."""

from __future__ import annotations

from collections.abc import Collection

from graphprune.analysis.analysis import Analysis
from graphprune.model.tensors import FLOATS

__all__ = ["comparable", "ends"]


def comparable(analysis: Analysis, shared: Collection[str]) -> list[str]:
    """Return floating-point values that both models have; graph outputs also where their shape is not known."""
    outputs = {value.name: value.type.tensor_type.elem_type for value in analysis.graph.proto.graph.output}
    dims, dtypes = analysis.shapes.dims, {**outputs, **analysis.shapes.dtypes}
    return [
        name
        for node in analysis.graph.nodes
        for name in node.outputs
        if name in shared
        and name not in analysis.shapes.constant
        and dtypes.get(name) in FLOATS
        and (all(size > 0 for size in dims[name]) if name in dims else name in outputs)
    ]


def ends(analysis: Analysis, discrete: set[str]) -> set[str]:
    """Return tensors at which the effect of masking is measured: outputs, and what enters a discrete operator."""
    at_ends = {name for name in analysis.graph.outputs if name not in discrete}
    for node in analysis.graph.nodes:
        if any(name in discrete for name in node.outputs):
            at_ends.update(name for name in node.inputs if name and name not in discrete)
    return at_ends
