# SPDX-License-Identifier: Apache-2.0
"""The masked original: the analysed graph with a mask at every place that consumes removed channels.

The masks are extra graph inputs, so one model serves as the original (all ones) and as the
masked original. Masks are inserted into the protobuf message directly: an import and export
through a graph library would lose values that must be compared (8-bit floats, shadowed names).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from graphprune.analysis.analysis import Analysis
from graphprune.array_types import Mask
from graphprune.labels.space import Contraction, Renormalisation
from graphprune.labels.vector import Labels
from graphprune.model.files.messages import copy_but
from graphprune.surgery.declared_shapes import forget_false_shapes

__all__ = ["Oracle", "bare_oracle", "build_oracle", "without_weights"]

_ZERO = "graphprune.zero"

_NORMALISED: dict[str, tuple[tuple[int, ...], int, int | None]] = {
    "SkipLayerNormalization": ((1, 4), 2, 3),
    "SkipSimplifiedLayerNormalization": ((1, 3), 2, None),
}
"""Normalisations that add something first: inputs that are added (their sum is output 3), scale and shift."""

Resized = Callable[[str, int, Labels], Labels]

_SELECTS = 9
"""First operator set with `Where`."""

_QUANTISED = frozenset({TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16})
"""Integers that stand for real numbers: their zero is the zero point, and float32 holds them exactly."""


@dataclass
class Oracle:
    """A model with masks as inputs.

    Attributes
    ----------
    light : ModelProto
        Without the weights of the original, which are large.
    weights : sequence of TensorProto
        These: stored tensors of the main graph, as they are.
    masks : dict of str to ndarray
        Value of each mask input: booleans, or floats that multiply what stands for integers.
    types : dict of str to int
        Element type of each value that is masked.
    """

    light: ModelProto
    weights: Sequence[TensorProto]
    masks: dict[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)

    @property
    def model(self) -> ModelProto:
        """The model with its weights: a copy, for whoever runs it in this process."""
        model = ModelProto()
        model.CopyFrom(self.light)
        own = list(model.graph.initializer)
        del model.graph.initializer[:]
        model.graph.initializer.extend((*self.weights, *own))
        return model


def bare_oracle(analysis: Analysis) -> Oracle:
    """Return the original without any mask."""
    light, weights = without_weights(analysis.graph.proto, inside=analysis.flat.home)
    return Oracle(analysis.flat.restore(light), weights)


def without_weights(model: ModelProto, inside: Collection[str] = ()) -> tuple[ModelProto, list[TensorProto]]:
    """Return a copy of a model without the stored tensors of its main graph, and these as they are.

    Parameters
    ----------
    inside : collection of str
        Tensors that stay: they belong to bodies of the graph.
    """
    light = ModelProto()
    copy_but(model, light, "graph")
    copy_but(model.graph, light.graph, "initializer")
    light.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in inside)
    return light, [tensor for tensor in model.graph.initializer if tensor.name not in inside]


def build_oracle(analysis: Analysis, mask: Callable[[Labels], Mask], resized: Resized | None = None) -> Oracle:
    """Insert a mask before every contraction over removed slices.

    Statistics under the contract *renormalised* run over the kept slices: a mean of masked values
    is scaled by total / kept, and a normalisation operator is spelt out.

    Parameters
    ----------
    mask : callable
        Gives the kept slices of a label vector.
    resized : callable, optional
        Gives the labels of an axis of a value where its size is not that which was analysed, for those that it had.
    """
    builder = _Builder(analysis, mask, resized or (lambda _name, _axis, labels: labels))
    for contraction in analysis.scope.space.contractions:
        builder.mask_contraction(contraction)
    for renormalisation in analysis.scope.space.renormalised:
        builder.spell_out(renormalisation)
    return builder.finish()


class _Builder:
    """Collects the nodes to insert and to replace."""

    def __init__(self, analysis: Analysis, mask: Callable[[Labels], Mask], resized: Resized) -> None:
        self.analysis = analysis
        self.mask = mask
        self.resized = resized
        self.oracle = Oracle(*without_weights(analysis.graph.proto, inside=analysis.flat.home))
        self.nodes = list(self.oracle.light.graph.node)
        self.before: dict[int, list[NodeProto]] = {}
        self.instead: dict[int, list[NodeProto]] = {}
        self.scaled: dict[int, float] = {}
        self.made: dict[tuple[str, int, bytes, str], str] = {}
        # A product would make what is no number of masked infinities; older operator sets have nothing else.
        self.selects = analysis.graph.opset >= _SELECTS

    def mask_contraction(self, contraction: Contraction) -> None:
        """Set removed slices of what a node sums over to zero."""
        value = contraction.node.inputs[contraction.slot]
        kept = self.mask(self.resized(value, contraction.axis, contraction.labels))
        if kept.all():
            return
        index = contraction.node.index
        self.nodes[index].input[contraction.slot] = self.masked(
            self.nodes[index].input[contraction.slot], contraction, kept
        )
        if contraction.mean == "kept":
            self.scaled[index] = self.scaled.get(index, 1.0) * len(kept) / float(kept.sum())

    def masked(self, source: str, contraction: Contraction, kept: Mask) -> str:
        """Return the name of `source` (a form of what is contracted) with one axis masked, ready before the node."""
        value, axis, index = contraction.node.inputs[contraction.slot], contraction.axis, contraction.node.index
        key = (source, axis, kept.tobytes(), contraction.zero_point)
        if key not in self.made:
            self.made[key] = self._add_mask(value, axis, kept)
            product = f"{self.made[key]}.product"
            elem_type = self.analysis.shapes.dtypes.get(value, TensorProto.FLOAT)
            self.oracle.types[product] = elem_type
            if elem_type in _QUANTISED:
                nodes = _mask_integers(source, self.made[key], contraction.zero_point, product, elem_type)
            elif self.selects:
                nodes = [helper.make_node("Where", [self.made[key], source, self._zero(elem_type)], [product])]
            else:
                nodes = [helper.make_node("Mul", [source, self.made[key]], [product])]
            self.before.setdefault(index, []).extend(nodes)
        return f"{self.made[key]}.product"

    def spell_out(self, norm: Renormalisation) -> None:
        """Replace a normalisation by one whose statistics run over the kept slices."""
        labels = {axis: norm.labels[axis] for axis in range(norm.first, len(norm.labels))}
        kept = {axis: self.mask(self.resized(norm.node.inputs[0], axis, each)) for axis, each in labels.items()}
        if all(mask.all() for mask in kept.values()):
            return
        node, index = self.nodes[norm.node.index], norm.node.index
        value = norm.node.inputs[0]
        count = float(np.prod([mask.sum() for mask in kept.values()]))
        elem_type = self.analysis.shapes.dtypes.get(value, TensorProto.FLOAT)
        parts = _Parts(f"graphprune.norm.{index}", elem_type, self._zero(elem_type) if self.selects else "")
        axes = parts.constant("axes", np.asarray(list(kept), dtype=np.int64))
        masks = [self._add_mask(value, axis, mask) for axis, mask in kept.items() if not mask.all()]
        centred = node.input[0]
        addends, scale, shift = _NORMALISED.get(node.op_type, ((), 1, 2))
        for slot in addends:
            if slot < len(node.input) and node.input[slot]:
                centred = parts.add("Add", centred, node.input[slot])
        ends = {3: centred} if addends else {}
        if node.op_type in ("LayerNormalization", "SkipLayerNormalization"):
            total = parts.add("ReduceSum", parts.masked(centred, masks), axes)
            mean = parts.add("Div", total, parts.number("count", count))
            centred = parts.add("Sub", centred, mean)
        square = parts.add("Mul", centred, centred)
        power = parts.add("ReduceSum", parts.masked(square, masks), axes)
        variance = parts.add("Div", power, parts.number("total", count))
        epsilon = parts.number("epsilon", norm.node.attribute("epsilon", 1e-12 if addends else 1e-5))
        result = parts.add("Div", centred, parts.add("Sqrt", parts.add("Add", variance, epsilon)))
        for factor, op_type in ((scale, "Mul"), (shift, "Add")):
            if factor is not None and factor < len(node.input) and node.input[factor]:
                result = parts.add(op_type, result, node.input[factor])
        ends[0] = result
        made = [(end, node.output[at]) for at, end in ends.items() if at < len(node.output) and node.output[at]]
        self.instead[index] = [*parts.nodes, *(helper.make_node("Identity", [end], [name]) for end, name in made)]
        self.oracle.light.graph.initializer.extend(parts.constants)

    def finish(self) -> Oracle:
        """Put the nodes in order."""
        for index, factor in self.scaled.items():
            self._scale(index, factor)
        nodes = [
            item
            for index, node in enumerate(self.nodes)
            for item in (*self.before.get(index, ()), *self.instead.get(index, (node,)))
        ]
        copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self.oracle.light.graph.node[:]
        self.oracle.light.graph.node.extend(copies)
        forget_false_shapes(self.oracle.light.graph.value_info, self.analysis.shapes.dims)
        self.oracle.light = self.analysis.flat.restore(self.oracle.light)
        return self.oracle

    def _scale(self, index: int, factor: float) -> None:
        """Multiply the output of a node."""
        name = self.nodes[index].output[0]
        parts = _Parts(f"graphprune.mean.{index}", self.analysis.shapes.dtypes.get(name, TensorProto.FLOAT))
        product = helper.make_node("Mul", [f"{name}.masked", parts.number("factor", factor)], [name])
        self.nodes[index].output[0] = f"{name}.masked"
        self.instead[index] = [self.nodes[index], product]
        self.oracle.light.graph.initializer.extend(parts.constants)

    def _zero(self, elem_type: int) -> str:
        """Return the name of a zero of some type."""
        name = f"{_ZERO}.{elem_type}"
        if all(tensor.name != name for tensor in self.oracle.light.graph.initializer):
            dtype = helper.tensor_dtype_to_np_dtype(elem_type)
            self.oracle.light.graph.initializer.append(numpy_helper.from_array(np.zeros((), dtype), name))
        return name

    def _add_mask(self, value: str, axis: int, kept: Mask) -> str:
        """Add a mask input for one axis of a value and return its name."""
        elem_type = self.analysis.shapes.dtypes.get(value, TensorProto.FLOAT)
        if elem_type in _QUANTISED:
            elem_type = TensorProto.FLOAT
        elif self.selects:
            elem_type = TensorProto.BOOL
        shape = [1] * len(self.analysis.shapes.dims[value])
        shape[axis] = len(kept)
        name = f"graphprune.mask.{len(self.oracle.masks)}"
        dtype = helper.tensor_dtype_to_np_dtype(elem_type)
        self.oracle.masks[name] = kept.astype(np.float32).reshape(shape).astype(dtype)
        self.oracle.light.graph.input.append(helper.make_tensor_value_info(name, elem_type, shape))
        return name


def _mask_integers(source: str, mask: str, zero_point: str, product: str, elem_type: int) -> list[NodeProto]:
    """Nodes that set masked slices to the zero point: ``(source - zero_point) * mask + zero_point``."""
    stages = [helper.make_node("Cast", [source], [f"{product}.float"], to=TensorProto.FLOAT)]
    value = stages[-1].output[0]
    if zero_point:
        stages.append(helper.make_node("Cast", [zero_point], [f"{product}.zero"], to=TensorProto.FLOAT))
        stages.append(helper.make_node("Sub", [value, f"{product}.zero"], [f"{product}.centred"]))
        value = stages[-1].output[0]
    stages.append(helper.make_node("Mul", [value, mask], [f"{product}.masked"]))
    value = stages[-1].output[0]
    if zero_point:
        stages.append(helper.make_node("Add", [value, f"{product}.zero"], [f"{product}.moved"]))
        value = stages[-1].output[0]
    return [*stages, helper.make_node("Cast", [value], [product], to=elem_type)]


class _Parts:
    """Nodes and constants of a small expression, with names under one prefix."""

    def __init__(self, prefix: str, elem_type: int, zero: str = "") -> None:
        self.prefix = prefix
        self.zero = zero
        self.dtype = helper.tensor_dtype_to_np_dtype(elem_type)
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def add(self, op_type: str, *inputs: str) -> str:
        """Append a node and return the name of its result."""
        name = f"{self.prefix}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name]))
        return name

    def masked(self, value: str, masks: list[str]) -> str:
        """Set what any of several masks leaves out to zero."""
        for mask in masks:
            value = self.add("Where", mask, value, self.zero) if self.zero else self.add("Mul", value, mask)
        return value

    def number(self, name: str, value: float) -> str:
        """Add a scalar of the expression's type."""
        return self.constant(name, np.asarray(value, dtype=self.dtype))

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        """Add a constant."""
        self.constants.append(numpy_helper.from_array(value, f"{self.prefix}.{name}"))
        return f"{self.prefix}.{name}"
