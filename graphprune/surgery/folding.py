# SPDX-License-Identifier: Apache-2.0
"""Folding: write out the graph as the analysis sees it, with computed constants as initializers.

Only for looking and checking; pruned files are not made from it. Layout-only nodes between a
stored weight and its reader stay, because plans name the stored weight. What is computed from
shapes is folded where it is the same for every size of the inputs, so that dynamic dimensions
stay dynamic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from graphprune.array_types import Mask
from graphprune.model.evaluation.arithmetic import evaluate
from graphprune.model.files.messages import copy_but
from graphprune.model.values.shapes import fixed_sizes

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.model.graph import Graph, Node

__all__ = ["fold"]


_FREE_INITIALIZERS = 4  # the IR version since which an initializer need not be a graph input
# Operators that only move the elements of their first input, or of all.
_MOVING = frozenset({"Cast", "Concat", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})


def fold(analysis: Analysis) -> ModelProto:
    """Return the analysed graph without local functions, computed constants and dead nodes.

    A weight that a plan names and that the original file does not hold is an initializer of
    this name in the result. Graph inputs and outputs are those of the original.

    Complexity: O(nodes + bytes of the model); weights are copied once.
    """
    walk = _Walk(analysis)
    walk.run()
    source = analysis.graph.proto
    result = ModelProto()
    copy_but(source, result, "graph")
    copy_but(source.graph, result.graph, "node", "initializer", "value_info")
    nodes = [node.proto for node in analysis.graph.nodes if node.index in walk.nodes]
    folded = list(walk.folded.values())
    if source.ir_version < _FREE_INITIALIZERS:
        nodes = [*(helper.make_node("Constant", [], [t.name], name=t.name, value=t) for t in folded), *nodes]
        folded = []
    made = {name for node in nodes for name in node.output}
    result.graph.node.extend(nodes)
    result.graph.initializer.extend(t for t in source.graph.initializer if t.name in walk.stored)
    result.graph.initializer.extend(folded)
    result.graph.value_info.extend(value for value in source.graph.value_info if value.name in made)
    return analysis.flat.restore(result)


class _Walk:
    """Goes back from the graph's outputs and notes what is needed.

    Attributes
    ----------
    nodes : set of int
        Indices of the nodes that stay.
    stored : set of str
        Initializers that stay.
    folded : dict of str to TensorProto
        Initializers that take the place of nodes.
    """

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self._fixed = _Fixed(analysis)
        self.nodes: set[int] = set()
        self.stored: set[str] = set()
        self.folded: dict[str, TensorProto] = {}
        self._deciding = _deciding(analysis.graph)

    def run(self) -> None:
        """Note nodes, stored tensors and new tensors."""
        graph = self._analysis.graph
        # An initializer that is a graph input belongs to the signature of the model.
        self.stored.update(value.name for value in graph.proto.graph.input)
        pending = list(graph.outputs)
        seen: set[str] = set()
        while pending:
            name = pending.pop()
            if not name or name in seen:
                continue
            seen.add(name)
            node = graph.producer.get(name)
            if node is None:
                self.stored.add(name)
            elif node.index not in self.nodes and not self._fold(node):
                self.nodes.add(node.index)
                pending.extend((*node.inputs, *node.captured))

    def _fold(self, node: Node) -> bool:
        """Turn all outputs of a node into tensors, where that is possible and wanted."""
        analysis = self._analysis
        names = [name for name in node.outputs if name]
        if any(name in self.folded for name in names):
            return True
        shapes = analysis.shapes
        if any(name not in shapes.constant or name in analysis.graph.outputs for name in names):
            return False
        if node.index in self._deciding:
            return False
        keeps = not any(name in shapes.derived for name in names) and analysis.constants.layout(node) is not None
        if keeps or not all(self._fixed.all(name) for name in names):
            return False
        try:
            tensors = {name: self._tensor(name) for name in names}
        except KeyError:
            return False  # the reference implementation cannot compute it
        self.folded.update(tensors)
        return True

    def _tensor(self, name: str) -> TensorProto:
        """Return the value of a constant as a tensor of this name."""
        stored = self._analysis.constants.stored(name)
        if stored is None:
            return numpy_helper.from_array(self._analysis.constants.array(name), name)
        tensor = TensorProto()
        tensor.CopyFrom(stored)
        tensor.name = name
        return tensor


def _deciding(graph: Graph) -> frozenset[int]:
    """Return the nodes that compute conditions of `If`.

    Where such a condition is stored, onnxruntime puts the branch into the graph around it when it opens a model, and
    then refuses shapes there that it would have run.
    """
    pending = [node.inputs[0] for node in graph.nodes if node.op_type == "If"]
    found: set[int] = set()
    while pending:
        node = graph.producer.get(pending.pop())
        if node is not None and node.index not in found:
            found.add(node.index)
            pending.extend(node.inputs)
    return frozenset(found)


class _Fixed:
    """Which elements of values computed from shapes are the same for every size of the inputs."""

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self._elements: dict[str, Mask] = {}
        self._sizes = fixed_sizes(analysis.graph, analysis.model.tensors.array)
        for node in analysis.graph.nodes:
            if any(name in analysis.shapes.derived for name in node.outputs):
                self._visit(node)

    def all(self, name: str) -> bool:
        """Whether a constant is the same for every size of the inputs."""
        return name not in self._analysis.shapes.derived or bool(self._elements[name].all())

    def _visit(self, node: Node) -> None:
        if node.op_type in ("Shape", "Size") and not node.domain:
            known = np.asarray(self._sizes.get(node.inputs[0], (-1,) * self._rank(node.inputs[0]))) > 0
            start, end = node.attribute("start", 0), node.attribute("end", len(known))
            masks = [known[start:end] if node.op_type == "Shape" else np.asarray(known.all())]
        else:
            masks = self._moved(node)
        self._elements.update(zip(node.outputs, masks, strict=True))

    def _moved(self, node: Node) -> list[Mask]:
        """Let an operator that only moves elements move the marks too; all others mix all elements."""
        values = self._analysis.shapes.values
        carried = range(len(node.inputs)) if node.op_type == "Concat" else range(1)
        fixed = [self.all(name) if name else True for name in node.inputs]
        moves = node.op_type in _MOVING and not node.domain and all(name in values for name in node.inputs if name)
        if all(fixed) or not moves or not all(fixed[slot] for slot in range(len(fixed)) if slot not in carried):
            return [np.asarray(all(fixed))] * len(node.outputs)
        inputs = [
            self._marks(name).astype(values[name].dtype) if slot in carried else values[name] if name else None
            for slot, name in enumerate(node.inputs)
        ]
        return [np.asarray(value).astype(np.bool_) for value in evaluate(node, inputs, self._analysis.graph.opsets)]

    def _marks(self, name: str) -> Mask:
        whole = np.ones(self._analysis.shapes.values[name].shape, dtype=np.bool_)
        return whole & self._elements[name] if name in self._elements else whole

    def _rank(self, name: str) -> int:
        return len(self._analysis.shapes.dims[name])
