# SPDX-License-Identifier: Apache-2.0
"""Which stored tensors of a file may be trained: weights, not running statistics and not constants of the graph.

A tensor is a weight because of where it is read: as the weight or bias of a layer, as scale or shift of a
normalisation, as a table that is looked up. A vector that is added or multiplied is one only between two layers
or right behind a matrix product, so that what prepares an image or decodes boxes stays as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnx import TensorProto

from graphprune.errors import UnsupportedModelError, quote
from graphprune.model.graph import Graph, Node, subgraphs
from graphprune.model.tensors import FLOATS

__all__ = ["Weights", "find_weights", "stored_tensor"]


_LAYERS = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "DeformConv": (1, 3),
    "Gemm": (0, 1, 2),
    "MatMul": (0, 1),
    "Einsum": (0, 1, 2),
    "RNN": (1, 2, 3),
    "GRU": (1, 2, 3),
    "LSTM": (1, 2, 3, 7),
    "FusedMatMul": (0, 1),
    "FusedConv": (1, 2),
    "Attention": (1, 2),
}
"""Operators that sum over channels, and the inputs that are weights where they are constant."""

_SCALES = {
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "RMSNormalization": (1,),
    "SimplifiedLayerNormalization": (1,),
    "SkipLayerNormalization": (2, 3, 4),
    "SkipSimplifiedLayerNormalization": (2, 3),
    "PRelu": (1,),
    "Gather": (0,),
}
"""Operators whose constant inputs are trained, but that are no layers."""

_ELEMENTWISE = frozenset({"Add", "Mul", "Sub", "Div"})
_MOVES = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Cast"})
_QUANTISED = frozenset({"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QuantizeLinear"})


@dataclass(frozen=True)
class Weights:
    """Stored tensors by what training does to them.

    Attributes
    ----------
    trained : tuple of str
        Names of stored tensors (initializers, or outputs of `Constant` nodes) that become parameters.
    statistics : tuple of str
        Running means and variances, which training updates without a gradient.
    """

    trained: tuple[str, ...]
    statistics: tuple[str, ...]


def stored_tensor(graph: Graph, name: str) -> TensorProto | None:
    """Return the tensor message of an initializer or a `Constant` node, else None."""
    if name in graph.initializers:
        return graph.initializers[name]
    node = graph.producer.get(name)
    if node is not None and node.op_type == "Constant" and not node.domain:
        value = node.attribute("value")
        return value if isinstance(value, TensorProto) else None
    return None


def find_weights(graph: Graph) -> Weights:
    """Find what may be trained.

    Raises
    ------
    UnsupportedModelError
        If the layers have quantised weights, or there is nothing to train.
    """
    search = _Search(graph)
    trained: dict[str, None] = {}
    statistics: dict[str, None] = {}
    for node in graph.nodes:
        if node.op_type in _QUANTISED:
            _refuse_quantised(node)
        for slot in search.trained_slots(node):
            trained.update(dict.fromkeys(search.roots(node, slot)))
        if node.op_type == "BatchNormalization" and not node.domain:
            statistics.update(dict.fromkeys(root for slot in (3, 4) for root in search.roots(node, slot)))
    kept = tuple(name for name in trained if name not in statistics)
    if not kept:
        raise UnsupportedModelError("the model has no weights that could be trained", hint=_elsewhere(graph))
    return Weights(kept, tuple(statistics))


def _elsewhere(graph: Graph) -> str:
    """Say where layers are, if not in the graph itself."""
    pending = [body for node in graph.nodes for body in subgraphs(node.proto)]
    while pending:
        body = pending.pop()
        if any(node.op_type in _LAYERS for node in body.node):
            return (
                "its layers lie in bodies of If, Loop or Scan, which are pruned, but not trained; a file of only the "
                "branch that is taken could be"
            )
        pending.extend(inner for node in body.node for inner in subgraphs(node))
    return f"weights are what {', '.join(list(_LAYERS)[:4])} and the like read, stored in the file"


class _Search:
    """What is constant in a graph, and which values lie behind or before a layer."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.constant: set[str] = set(graph.initializers)
        self.behind: set[str] = set()
        self.before: set[str] = set()
        for node in graph.nodes:
            inputs = [name for name in (*node.inputs, *node.captured) if name]
            if all(name in self.constant for name in inputs) and not node.op_type.startswith("Random"):
                self.constant.update(node.outputs)
            elif self.is_layer(node) or any(name in self.behind for name in inputs):
                self.behind.update(node.outputs)
        for node in reversed(graph.nodes):
            if self.is_layer(node) or any(name in self.before for name in node.outputs):
                self.before.update(name for name in (*node.inputs, *node.captured) if name)

    def is_layer(self, node: Node) -> bool:
        """Whether a node sums over channels with weights of its own."""
        return any(self._is_constant(node, slot) for slot in _LAYERS.get(node.op_type, ()))

    def _is_constant(self, node: Node, slot: int) -> bool:
        return slot < len(node.inputs) and node.inputs[slot] in self.constant

    def trained_slots(self, node: Node) -> list[int]:
        """Return the inputs of a node that are weights."""
        if all(name in self.constant for name in node.outputs if name):
            return []
        slots = _LAYERS.get(node.op_type) or _SCALES.get(node.op_type, ())
        trained = [slot for slot in slots if self._is_constant(node, slot)]
        if node.op_type in _ELEMENTWISE and not node.domain and len(node.inputs) == 2:
            trained = [slot for slot in (0, 1) if self._is_constant(node, slot) and self._is_vector(node, slot)]
        return trained

    def _is_vector(self, node: Node, slot: int) -> bool:
        """Whether an operand is one value per channel, between layers or right behind a matrix product."""
        other = node.inputs[1 - slot]
        between = other in self.behind and node.outputs[0] in self.before
        if not (between or self._behind_product(other)):
            return False
        tensors = [stored_tensor(self.graph, root) for root in self.roots(node, slot)]
        return all(tensor is not None and 1 < math.prod(tensor.dims) == max(tensor.dims) for tensor in tensors)

    def _behind_product(self, name: str) -> bool:
        node = self.graph.producer.get(name)
        while node is not None and node.op_type in _MOVES:
            node = self.graph.producer.get(node.inputs[0])
        return node is not None and node.op_type in ("MatMul", "Einsum") and self.is_layer(node)

    def roots(self, node: Node, slot: int) -> list[str]:
        """Return the stored floating-point tensors that a constant input is made of."""
        stored: dict[str, None] = {}
        pending, seen = [node.inputs[slot]], set()
        while pending:
            name = pending.pop()
            if not name or name in seen or name not in self.constant:
                continue
            seen.add(name)
            tensor = stored_tensor(self.graph, name)
            if tensor is not None:
                if tensor.data_type in FLOATS:
                    stored[name] = None
                continue
            maker = self.graph.producer.get(name)
            if maker is not None:
                if maker.op_type == "DequantizeLinear":
                    _refuse_quantised(node)
                pending.extend(maker.inputs[:1] if maker.op_type in _MOVES else maker.inputs)
        return list(stored)


def _refuse_quantised(node: Node) -> None:
    raise UnsupportedModelError(
        f"node {quote(node.label)} ({node.op_type}) is quantised, and integers cannot be trained",
        hint="finetune the model before it is quantised",
    )
