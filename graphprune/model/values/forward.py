# SPDX-License-Identifier: Apache-2.0
"""One pass over the nodes of a graph, which finds the shapes that inference of the whole graph leaves open.

Integer values that graphs compute from shapes are evaluated node by node on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import onnx
from onnx import TensorProto, TypeProto, helper, numpy_helper, shape_inference

from graphprune.array_types import Array
from graphprune.model.evaluation.arithmetic import evaluate, work
from graphprune.model.graph import Graph, Node, subgraphs
from graphprune.model.inference.contributed import infer_contributed
from graphprune.model.inference.known import Shapes
from graphprune.model.inference.whole_inference import INFERENCE_ERRORS, is_negative
from graphprune.model.tensors import FLOATS
from graphprune.model.values.bodies import DOMAIN, ENTRIES
from graphprune.model.values.filling import MOVING, fills
from graphprune.model.values.iterations import LoopNode
from graphprune.model.values.layers import is_layer
from graphprune.model.values.random_draws import draws

__all__ = ["LARGEST_VALUE", "Forward", "Loops", "is_small", "record", "shape_value"]

LARGEST_VALUE = 1 << 16
"""Values with more elements are never evaluated here: they are weights or masks, not sizes."""

_ALL_WORK = 1 << 26
"""Elements that all values evaluated here may read and make together; they are held in memory."""


def is_small(dims: Sequence[int]) -> bool:
    """Whether a value of this shape is evaluated if it can be."""
    return int(np.prod(dims, dtype=np.float64)) <= LARGEST_VALUE


def record(result: Shapes, name: str, type_proto: TypeProto | None) -> None:
    """Take over what a type says, where it is complete."""
    if type_proto is None or type_proto.WhichOneof("value") != "tensor_type":
        return
    tensor = type_proto.tensor_type
    if tensor.elem_type:
        result.dtypes[name] = tensor.elem_type
    if tensor.HasField("shape") and all(
        dim.WhichOneof("value") == "dim_value" and dim.dim_value >= 0 for dim in tensor.shape.dim
    ):
        result.dims.setdefault(name, tuple(dim.dim_value for dim in tensor.shape.dim))


Given = Callable[[Node, Shapes], Mapping[str, Array | tuple[int, ...]]]
"""Gives, for a node and what is known before it, values or shapes that it reads in the place of others, by name."""


class Loops:
    """The loops of a graph by their pseudo-operators, and the states whose shape is in doubt."""

    def __init__(self, laid_out: Sequence[LoopNode], doubtful: set[str]) -> None:
        self.of = {index: loop for loop in laid_out for index in (loop.entry.index, loop.exit.index)}
        self.doubtful = doubtful


class Forward:
    """One pass over the nodes: evaluate what is constant, infer what is still unknown."""

    def __init__(
        self,
        graph: Graph,
        result: Shapes,
        types: Mapping[str, TypeProto],
        observed: Shapes,
        loops: Loops,
        given: Given | None = None,
    ) -> None:
        self.observed = observed
        self.loops = loops
        self.graph = graph
        self.result = result
        self.types = types
        self.given = given
        self._work_left: float = _ALL_WORK

    def run(self) -> None:
        """Go through all nodes."""
        for node in self.graph.nodes:
            self._mark(node)
            if self.given is None:
                self._learn(node)
                continue
            with self._reading(self.given(node, self.result)):
                self._learn(node)

    def _learn(self, node: Node) -> None:
        """Find out what a node makes."""
        if node.outputs and node.outputs[0] in self.result.constant:
            self._value(node)
        self._shape(node)

    @contextmanager
    def _reading(self, given: Mapping[str, Array | tuple[int, ...]]) -> Iterator[None]:
        """Let a node read what it is given instead of what the graph says."""
        result = self.result
        values = {name: result.values[name] for name in given if name in result.values}
        dims = {name: result.dims[name] for name in given if name in result.dims}
        for name, read in given.items():
            result.dims[name] = read if isinstance(read, tuple) else read.shape
            result.values.pop(name, None)
            if not isinstance(read, tuple):
                result.values[name] = read
        yield
        for name in given:
            result.values.pop(name, None)
        result.values.update(values)
        result.dims.update(dims)

    def _mark(self, node: Node) -> None:
        """Decide whether the outputs depend on initializers and shapes only."""
        result = self.result
        names = [name for name in node.inputs if name]
        if (
            node.captured
            or node.domain == DOMAIN
            or draws(node, result.values)
            or any(True for _ in subgraphs(node.proto))
            # A layer over a map that is made from sizes runs for every sample, and has channels like any other.
            or (is_layer(node) and any(name in result.open for name in names))
        ):
            return
        if node.op_type in ("Shape", "Size") and not node.domain:
            if names and names[0] in result.dims:
                result.constant.update(node.outputs)
                result.derived.update(node.outputs)
                if names[0] not in result.constant or names[0] in result.open:
                    result.open.update(node.outputs)
        elif all(name in result.constant for name in (names[:1] if _only_casts(node) else names)):
            moves = self._moves_data(node)
            if (moves and any(name in result.open for name in names[1:])) or fills(self.graph, node, result.open):
                return  # as large as an activation: stored data that flows, like any other value
            made = {name for name in node.outputs if name}
            sources = {name for name in (names[:1] if moves else names) if name in result.constant}
            result.constant.update(made)
            if sources & result.derived and (sources & result.open or not any(map(self._is_data, sources))):
                result.derived.update(made)
            if sources & result.open:
                result.open.update(made)

    def _is_data(self, name: str) -> bool:
        """Whether a constant holds stored real numbers along some axis: times a size, they still are a weight."""
        result = self.result
        is_real = name not in result.derived and result.dtypes.get(name) in FLOATS
        return is_real and any(size != 1 for size in result.dims.get(name, ()))

    def _moves_data(self, node: Node) -> bool:
        """Whether a node only moves stored real numbers about: sizes and places are no part of what it gives."""
        data = node.inputs[0] if node.inputs else ""
        if node.op_type not in MOVING or node.domain or not data or data in self.result.derived:
            return False
        return self.result.dtypes.get(data) in FLOATS

    def _value(self, node: Node) -> None:
        """Evaluate a small constant node."""
        result = self.result
        if node.op_type in ("Shape", "Size") and not node.domain:
            result.values[node.outputs[0]] = shape_value(node, result.dims[node.inputs[0]])
            return
        if _only_casts(node) and node.inputs[0] in result.values and node.inputs[1] in result.dtypes:
            target = helper.tensor_dtype_to_np_dtype(result.dtypes[node.inputs[1]])
            result.values[node.outputs[0]] = result.values[node.inputs[0]].astype(target)
            return
        if any(name and name not in result.values for name in node.inputs):
            return
        if self._unfolds(node):
            return
        operands = [result.values[name] if name else None for name in node.inputs]
        cost = work(node, operands)
        if cost > self._work_left:
            return
        self._work_left -= cost
        try:
            outputs = evaluate(node, operands, self.graph.opsets)
        except Exception:  # any failure of the reference implementation means "value unknown"
            return
        for name, value in zip(node.outputs, outputs, strict=False):
            if name and value.size <= LARGEST_VALUE:
                result.values[name] = value

    def _unfolds(self, node: Node) -> bool:
        """Whether an output is known to be too large to be evaluated."""
        dims = self.result.dims
        for name in node.outputs:
            record(self.result, name, self.types.get(name))
        if any(name and name not in dims for name in node.outputs):
            self._infer_alone(node)
        return not all(is_small(dims[name]) for name in node.outputs if name in dims)

    def _shape(self, node: Node) -> None:
        """Record the output shapes: by value, by the whole-graph pass, or by inferring this node alone."""
        result = self.result
        for name in node.outputs:
            if name in result.values:
                value = result.values[name]
                result.dims[name] = value.shape
                result.dtypes[name] = helper.np_dtype_to_tensor_dtype(value.dtype)
            elif name:
                record(result, name, self.types.get(name))
        if node.op_type == "Constant" and isinstance(node.attribute("value"), TensorProto):
            result.dims[node.outputs[0]] = tuple(node.attribute("value").dims)
            result.dtypes[node.outputs[0]] = node.attribute("value").data_type
        if node.domain == DOMAIN:
            self._control(node)
        elif any(name and name not in result.dims for name in node.outputs):
            self._infer_alone(node)
        for name in node.outputs:
            if name not in result.dims and name in self.observed.dims:
                result.dims[name] = self.observed.dims[name]
                result.dtypes[name] = self.observed.dtypes.get(name, 0)

    def _control(self, node: Node) -> None:
        """Record the shapes of what a pseudo-operator makes."""
        loop = self.loops.of.get(node.index)
        if loop is None:
            self._join(node)
        elif node.op_type in ENTRIES:
            loop.set_entry(self.result, self.observed, self.loops.doubtful)
        else:
            loop.set_exit(self.graph, self.result)

    def _join(self, node: Node) -> None:
        """Record the shapes of an `If` where its condition is known, or its branches do not disagree."""
        count = len(node.outputs)
        dims = self.result.dims
        condition = self.result.values.get(node.inputs[0])
        for at, name in enumerate(node.outputs):
            branches = [node.inputs[1 + at], node.inputs[1 + count + at]]
            if condition is not None and condition.size == 1:
                branches = branches[:1] if condition.any() else branches[1:]
            # One branch may be impossible for inputs of this size; what the other gives holds then.
            known = [branch for branch in branches if branch in dims]
            if known and all(dims[branch] == dims[known[0]] for branch in known):
                dims[name] = dims[known[0]]
                self.result.dtypes[name] = self.result.dtypes[known[0]]

    def _infer_alone(self, node: Node) -> None:
        result = self.result
        infer_contributed(node, result, self.graph.opset)
        try:
            schema = onnx.defs.get_schema(node.op_type, self.graph.opsets.get(node.domain, 1), node.domain)
            types = {
                name: helper.make_tensor_type_proto(result.dtypes[name], result.dims[name])
                for name in node.inputs
                if name and name in result.dims and name in result.dtypes
            }
            data = {
                name: numpy_helper.from_array(np.array(result.values[name]), name)
                for name in node.inputs
                if name in result.values
            }
            imports = list(self.graph.proto.opset_import)
            if any(map(is_negative, types.values())):
                return  # inference is not made for such sizes
            outputs = shape_inference.infer_node_outputs(schema, node.proto, types, data, opset_imports=imports)
        except INFERENCE_ERRORS:
            return
        for name, type_proto in outputs.items():
            record(result, name, type_proto)


def _only_casts(node: Node) -> bool:
    """Whether the second input gives nothing but its type: exporters write zero biases as CastLike(0, x)."""
    return node.op_type == "CastLike" and not node.domain and len(node.inputs) == 2


def shape_value(node: Node, dims: tuple[int, ...]) -> Array:
    """Value of `Shape` or `Size` for an input of the given shape."""
    if node.op_type == "Size":
        return np.asarray(int(np.prod(dims, dtype=np.int64)), dtype=np.int64)
    start, end = node.attribute("start", 0), node.attribute("end", len(dims))
    return np.asarray(dims[start:end], dtype=np.int64)
