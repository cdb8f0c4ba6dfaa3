# SPDX-License-Identifier: Apache-2.0
"""The masked original: the analysed graph with a mask at every place that consumes removed channels.

The masks are extra graph inputs, so one model serves as the original (all ones) and as the
masked original. Masks are inserted into the protobuf message directly: an import and export
through a graph library would lose values that must be compared (8-bit floats, shadowed names).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from graphprune.analysis.analysis import Analysis
from graphprune.array_types import Mask
from graphprune.labels.adapt import whole
from graphprune.labels.space import Contraction, Renormalisation
from graphprune.labels.vector import Labels
from graphprune.model.bodies import DOMAIN, flatten, owner_name
from graphprune.model.iterations import loops

__all__ = ["DISCRETE", "Oracle", "build_oracle", "discrete_names", "force_branches", "force_inputs", "pruned_branches"]

_ONE = "graphprune.one"

BranchPath = dict[str, bool]

DISCRETE = frozenset({"ArgMax", "ArgMin", "Compress", "NonMaxSuppression", "NonZero", "TopK", "Unique"})
"""Operators whose result jumps when rounding reorders near-ties; nothing behind them is compared."""


_QUANTISED = frozenset({TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16})
"""Integers that stand for real numbers: their zero is the zero point, and float32 holds them exactly."""


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

    Statistics under the contract *renormalised* run over the kept slices: a mean of masked values
    is scaled by total / kept, and a normalisation operator is spelt out.

    Parameters
    ----------
    mask : callable
        Gives the kept slices of a label vector.
    """
    builder = _Builder(analysis, mask)
    for contraction in analysis.scope.space.contractions:
        builder.mask_contraction(contraction)
    for renormalisation in analysis.scope.space.renormalised:
        builder.spell_out(renormalisation)
    return builder.finish()


class _Builder:
    """Collects the nodes to insert and to replace."""

    def __init__(self, analysis: Analysis, mask: Callable[[Labels], Mask]) -> None:
        self.analysis = analysis
        self.mask = mask
        self.oracle = Oracle(ModelProto())
        self.oracle.model.CopyFrom(analysis.graph.proto)
        self.nodes = list(self.oracle.model.graph.node)
        self.before: dict[int, list[NodeProto]] = {}
        self.instead: dict[int, list[NodeProto]] = {}
        self.scaled: dict[int, float] = {}
        self.made: dict[tuple[str, int, bytes, str], str] = {}

    def mask_contraction(self, contraction: Contraction) -> None:
        """Multiply what a node sums over by the mask of its axis."""
        kept = self.mask(contraction.labels)
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
            if elem_type in _QUANTISED:
                nodes = _mask_integers(source, self.made[key], contraction.zero_point, product, elem_type)
            else:
                nodes = [helper.make_node("Mul", [source, self.made[key]], [product])]
            self.before.setdefault(index, []).extend(nodes)
        return f"{self.made[key]}.product"

    def spell_out(self, found: Renormalisation) -> None:
        """Replace a normalisation by one whose statistics run over the kept slices."""
        kept = {axis: self.mask(found.labels[axis]) for axis in range(found.first, len(found.labels))}
        if all(mask.all() for mask in kept.values()):
            return
        node, index = self.nodes[found.node.index], found.node.index
        value = found.node.inputs[0]
        count = float(np.prod([mask.sum() for mask in kept.values()]))
        parts = _Parts(f"graphprune.norm.{index}", self.analysis.shapes.dtypes.get(value, TensorProto.FLOAT))
        axes = parts.constant("axes", np.asarray(list(kept), dtype=np.int64))
        masks = [self._add_mask(value, axis, mask) for axis, mask in kept.items() if not mask.all()]
        centred = node.input[0]
        if node.op_type == "LayerNormalization":
            total = parts.add("ReduceSum", parts.product(centred, masks), axes)
            mean = parts.add("Div", total, parts.number("count", count))
            centred = parts.add("Sub", centred, mean)
        square = parts.add("Mul", centred, centred)
        power = parts.add("ReduceSum", parts.product(square, masks), axes)
        variance = parts.add("Div", power, parts.number("total", count))
        epsilon = parts.number("epsilon", found.node.attribute("epsilon", 1e-5))
        result = parts.add("Div", centred, parts.add("Sqrt", parts.add("Add", variance, epsilon)))
        for slot, op_type in ((1, "Mul"), (2, "Add")):
            if slot < len(node.input) and node.input[slot]:
                result = parts.add(op_type, result, node.input[slot])
        self.instead[index] = [*parts.nodes, helper.make_node("Identity", [result], [node.output[0]])]
        self.oracle.model.graph.initializer.extend(parts.constants)

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
        del self.oracle.model.graph.node[:]
        self.oracle.model.graph.node.extend(copies)
        self.oracle.model = self.analysis.flat.restore(self.oracle.model)
        return self.oracle

    def _scale(self, index: int, factor: float) -> None:
        """Multiply the output of a node."""
        name = self.nodes[index].output[0]
        parts = _Parts(f"graphprune.mean.{index}", self.analysis.shapes.dtypes.get(name, TensorProto.FLOAT))
        product = helper.make_node("Mul", [f"{name}.masked", parts.number("factor", factor)], [name])
        self.nodes[index].output[0] = f"{name}.masked"
        self.instead[index] = [self.nodes[index], product]
        self.oracle.model.graph.initializer.extend(parts.constants)

    def _add_mask(self, value: str, axis: int, kept: Mask) -> str:
        """Add a mask input for one axis of a value and return its name."""
        elem_type = self.analysis.shapes.dtypes.get(value, TensorProto.FLOAT)
        elem_type = TensorProto.FLOAT if elem_type in _QUANTISED else elem_type
        shape = [1] * len(self.analysis.shapes.dims[value])
        shape[axis] = len(kept)
        name = f"graphprune.mask.{len(self.oracle.masks)}"
        dtype = helper.tensor_dtype_to_np_dtype(elem_type)
        self.oracle.masks[name] = kept.astype(np.float32).reshape(shape).astype(dtype)
        self.oracle.model.graph.input.append(helper.make_tensor_value_info(name, elem_type, shape))
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

    def __init__(self, prefix: str, elem_type: int) -> None:
        self.prefix = prefix
        self.dtype = helper.tensor_dtype_to_np_dtype(elem_type)
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def add(self, op_type: str, *inputs: str) -> str:
        """Append a node and return the name of its result."""
        name = f"{self.prefix}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name]))
        return name

    def product(self, value: str, factors: list[str]) -> str:
        """Multiply a value by several others."""
        for factor in factors:
            value = self.add("Mul", value, factor)
        return value

    def number(self, name: str, value: float) -> str:
        """Add a scalar of the expression's type."""
        return self.constant(name, np.asarray(value, dtype=self.dtype))

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        """Add a constant."""
        self.constants.append(numpy_helper.from_array(value, f"{self.prefix}.{name}"))
        return f"{self.prefix}.{name}"


def force_branches(model: ModelProto, paths: list[BranchPath]) -> ModelProto:
    """Let extra boolean inputs (`force_inputs`) decide which branch of some `If`s runs, so that each can be compared.

    The first of the two inputs of a `Loop` makes it take at least one iteration. Without them the conditions of the
    model decide, as before.
    """
    owners = {owner for path in paths for owner in path}
    if not owners:
        return model
    flat = flatten(model)
    nodes: list[NodeProto] = []
    for node in flat.proto.graph.node:
        owner = owner_name(node.output) if node.domain == DOMAIN else ""
        if owner in owners:
            nodes.extend(_steer_loop(node, owner) if node.op_type == "Loop" else _steer_if(node, owner))
        nodes.append(NodeProto.FromString(node.SerializeToString()))
    flat.proto.graph.ClearField("node")
    flat.proto.graph.node.extend(nodes)
    flat.proto.graph.initializer.append(numpy_helper.from_array(np.asarray(1, dtype=np.int64), _ONE))
    result = flat.restore(flat.proto)
    for name in sorted(name for owner in owners for name in force_inputs(owner)):
        result.graph.input.append(helper.make_tensor_value_info(name, TensorProto.BOOL, []))
    return result


def _steer_if(node: NodeProto, owner: str) -> list[NodeProto]:
    """Let the forcing inputs decide for one branch; returns the nodes that are needed in front."""
    to_then, to_else = force_inputs(owner)
    free, steered = f"{to_then}.free", f"{to_then}.steered"
    condition, node.input[0] = node.input[0], steered
    return [
        helper.make_node("Not", [to_else], [f"{to_else}.not"]),
        helper.make_node("And", [condition, f"{to_else}.not"], [free]),
        helper.make_node("Or", [free, to_then], [steered]),
    ]


def _steer_loop(node: NodeProto, owner: str) -> list[NodeProto]:
    """Let the first forcing input make a loop run once; returns the nodes that are needed in front."""
    forced, _ = force_inputs(owner)
    given = next(attribute.i for attribute in node.attribute if attribute.name == "given")
    nodes: list[NodeProto] = []
    if given > 0 and node.input[0]:
        nodes.append(helper.make_node("Less", [node.input[0], _ONE], [f"{forced}.none"]))
        nodes.append(helper.make_node("And", [f"{forced}.none", forced], [f"{forced}.one"]))
        nodes.append(helper.make_node("Where", [f"{forced}.one", _ONE, node.input[0]], [f"{forced}.limit"]))
        node.input[0] = f"{forced}.limit"
    if given > 1 and node.input[1]:
        nodes.append(helper.make_node("Or", [node.input[1], forced], [f"{forced}.begins"]))
        node.input[1] = f"{forced}.begins"
    return nodes


def force_inputs(owner: str) -> tuple[str, str]:
    """Return the names of the inputs that force the `If` with this first output to its then or else branch.

    The first one forces a `Loop` into its first iteration.
    """
    return f"graphprune.then.{owner}", f"graphprune.else.{owner}"


def pruned_branches(analysis: Analysis, mask: Callable[[Labels], Mask]) -> list[BranchPath]:
    """Return the ways into all bodies in which something is removed.

    A way says which branch to take at each `If`, and that a `Loop` runs where that is not certain.
    """
    touched: set[int] = set()
    for name, axes in analysis.scope.values.items():
        if name in analysis.flat.home and not all(whole(mask(labels)) for labels in axes):
            touched.add(analysis.flat.home[name])
    certain = {
        owner_name(loop.exit.outputs)
        for loop in loops(analysis.graph)
        if loop.exit.op_type == "Scan" or loop.iterations(analysis.graph, analysis.shapes)
    }
    paths: list[BranchPath] = []
    for number in sorted(touched):
        path: BranchPath = {}
        place = number
        while place:
            body = analysis.flat.bodies[place - 1]
            if body.owner not in certain:
                path[body.owner] = body.attribute.name in ("then_branch", "body")
            place = analysis.flat.around(place)
        if path not in paths:
            paths.append(path)
    return [path for path in paths if not any(path.items() < other.items() for other in paths)]


def discrete_names(analysis: Analysis) -> set[str]:
    """Return all values that depend on the result of a discrete operator."""
    found: set[str] = set()
    for node in analysis.graph.nodes:
        if node.outputs and node.outputs[0] in analysis.shapes.constant:
            continue
        if node.op_type in DISCRETE or any(name in found for name in (*node.inputs, *node.captured)):
            found.update(name for name in node.outputs if name)
    return found
