# SPDX-License-Identifier: Apache-2.0
"""Folding: write out the graph as the analysis sees it, with computed constants as initializers.

Only for looking and checking; pruned files are not made from it. Layout-only nodes between a
stored weight and its reader stay, because plans name the stored weight. Values computed from
shapes stay computed, so that dynamic dimensions stay dynamic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, numpy_helper

if TYPE_CHECKING:
    from onnx import TensorProto

    from graphprune.analysis import Analysis

__all__ = ["fold"]


def fold(analysis: Analysis) -> ModelProto:
    """Return the analysed graph without local functions, computed constants and dead nodes.

    A weight that a plan names and that the original file does not hold is an initializer of
    this name in the result.
    """
    walk = _Walk(analysis)
    walk.run()
    source = analysis.graph.proto
    result = ModelProto()
    result.CopyFrom(source)
    graph = result.graph
    del graph.node[:]
    graph.node.extend(node.proto for node in analysis.graph.nodes if node.index in walk.nodes)
    kept = [tensor for tensor in source.graph.initializer if tensor.name in walk.stored]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *walk.folded])
    return result


class _Walk:
    """Goes back from the graph's outputs and notes what is needed."""

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self.nodes: set[int] = set()
        self.stored: set[str] = set()
        self.folded: list[TensorProto] = []

    def run(self) -> None:
        """Note nodes, stored tensors and new tensors."""
        graph = self._analysis.graph
        pending = [*graph.outputs, *(name for node in graph.nodes for name in node.captured)]
        declared = set(graph.inputs)
        seen: set[str] = set()
        while pending:
            name = pending.pop()
            if not name or name in seen:
                continue
            seen.add(name)
            node = graph.producer.get(name)
            if node is None:
                self.stored.add(name)
            elif not self._fold(name):
                self.nodes.add(node.index)
                pending.extend((*node.inputs, *node.captured))
        self.stored |= declared

    def _fold(self, name: str) -> bool:
        """Turn a computed constant into a tensor, if it is one that plans know by its own name."""
        analysis = self._analysis
        constants, node = analysis.constants, analysis.graph.producer[name]
        is_computed = name in constants and constants.stored(name) is None and name not in analysis.shapes.derived
        if not is_computed or constants.layout(node) is not None:
            return False
        try:
            value = constants.array(name)
        except KeyError:
            return False  # the reference implementation cannot compute it
        self.folded.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return True
