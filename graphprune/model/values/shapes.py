# SPDX-License-Identifier: Apache-2.0
"""Static shapes of every value for one concrete set of input shapes.

Inference runs on a copy of the graph *without its weights*, so its time does not depend on
the size of the model. Integer values that graphs compute from shapes (`Reshape` targets,
`Pad` amounts) are evaluated node by node with the reference implementation that ships with
onnx; where the whole-graph pass stopped, the pass here continues one node at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, TypeProto, ValueInfoProto, helper, numpy_helper, shape_inference

from graphprune.array_types import Array
from graphprune.model.evaluation.arithmetic import evaluate, work
from graphprune.model.graph import Graph, Node, subgraphs
from graphprune.model.inference.contributed import infer_contributed
from graphprune.model.inference.known import Shapes
from graphprune.model.inference.whole_inference import INFERENCE_ERRORS, infer_whole, is_negative, without
from graphprune.model.tensors import FLOATS
from graphprune.model.values.bodies import DOMAIN, ENTRIES
from graphprune.model.values.filling import MOVING, fills
from graphprune.model.values.iterations import LoopNode, loops, unsettled
from graphprune.model.values.layers import is_layer
from graphprune.model.values.random_draws import draws

__all__ = ["LARGEST_VALUE", "Shapes", "fixed_sizes", "infer", "objection_without", "shape_value"]

Read = Callable[[TensorProto], Array]

LARGEST_VALUE = 1 << 16
"""Values with more elements are never evaluated here: they are weights or masks, not sizes."""

_ALL_WORK = 1 << 26
"""Elements that all values evaluated here may read and make together; they are held in memory."""

_ROUNDS = 4
"""Passes in which states of loops are doubted one by one."""


def infer(graph: Graph, read: Read, inputs: Mapping[str, Sequence[int]], observed: Shapes | None = None) -> Shapes:
    """Find the shapes of all values, and the small values that depend on shapes only.

    Parameters
    ----------
    read : callable
        Gives the array of an initializer.
    inputs : mapping of str to sequence of int
        Concrete shapes of the graph inputs.
    observed : Shapes, optional
        Shapes and types that are known from a run; they are believed where inference stops.

    Complexity: O(nodes); weights are not touched. Loops whose states change their shape take some more passes.
    """
    whole, refusal = infer_whole(_bare(graph, read, inputs))
    # What is an input and an output at once has its type among the inputs.
    types = {value.name: value.type for value in (*whole.graph.output, *whole.graph.value_info, *whole.graph.input)}
    believed, laid_out = _believed(graph, inputs, observed), loops(graph)
    doubtful: set[str] = set()
    for rounds in itertools.count():
        result = _start(graph, read, types)
        _Forward(graph, result, types, believed, _Loops(laid_out, doubtful)).run()
        more = unsettled(laid_out, result, doubtful, rounds=_ROUNDS - rounds)
        if not more:
            break
        doubtful |= more
    result.refusal = refusal
    return result


def objection_without(graph: Graph, read: Read, inputs: Mapping[str, Sequence[int]], nodes: Collection[int]) -> str:
    """Return what inference objects to in a graph that is taken to be without some nodes; empty where to nothing."""
    bare = _bare(graph, read, inputs)
    made = {name for index in nodes for name in graph.nodes[index].outputs if name}
    left_out = [at for at, node in enumerate(bare.graph.node) if not made.isdisjoint(node.output)]
    return infer_whole(without(bare, left_out))[1]


def _start(graph: Graph, read: Read, types: Mapping[str, TypeProto]) -> Shapes:
    """Return what is known of initializers and inputs."""
    result = Shapes()
    for name, tensor in graph.initializers.items():
        result.dims[name] = tuple(tensor.dims)
        result.dtypes[name] = tensor.data_type
        result.constant.add(name)
        if _small(tensor.dims):
            result.values[name] = read(tensor)
    for name in graph.inputs:
        _record(result, name, types.get(name))
    return result


def fixed_sizes(graph: Graph, read: Read) -> dict[str, tuple[int, ...]]:
    """Return the sizes that hold whatever the dynamic input dimensions are: shapes with -1 where nothing is certain."""
    whole, _ = infer_whole(_bare(graph, read, {}))
    return {
        value.name: tuple(
            dim.dim_value if dim.WhichOneof("value") == "dim_value" and dim.dim_value > 0 else -1
            for dim in value.type.tensor_type.shape.dim
        )
        for value in (*whole.graph.output, *whole.graph.value_info, *whole.graph.input)
        if value.type.WhichOneof("value") == "tensor_type" and value.type.tensor_type.HasField("shape")
    }


def _small(dims: Sequence[int]) -> bool:
    return int(np.prod(dims, dtype=np.float64)) <= LARGEST_VALUE


def _record(result: Shapes, name: str, type_proto: TypeProto | None) -> None:
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


def _believed(graph: Graph, inputs: Mapping[str, Sequence[int]], observed: Shapes | None) -> Shapes:
    """Return shapes for where inference stops: those observed in a run, else those that the file declares."""
    sizes = {
        dim.dim_param: int(size)
        for name, dims in inputs.items()
        for dim, size in zip(graph.inputs[name].tensor_type.shape.dim, dims, strict=False)
    }
    believed = Shapes()
    for value in graph.proto.graph.value_info:
        tensor = value.type.tensor_type
        dims = [dim.dim_value if dim.dim_value > 0 else sizes.get(dim.dim_param or " ") for dim in tensor.shape.dim]
        if tensor.HasField("shape") and None not in dims:
            believed.dims[value.name] = tuple(size for size in dims if size is not None)
            believed.dtypes[value.name] = tensor.elem_type
    if observed is not None:
        believed.dims.update(observed.dims)
        believed.dtypes.update(observed.dtypes)
    return believed


def _bare(graph: Graph, read: Read, inputs: Mapping[str, Sequence[int]]) -> ModelProto:
    """Return the graph with concrete inputs and without weights."""
    bare = ModelProto(ir_version=graph.proto.ir_version)
    bare.opset_import.extend(graph.proto.opset_import)
    bare.graph.name = "shapes"
    for name, type_proto in graph.inputs.items():
        value = bare.graph.input.add(name=name)
        value.type.CopyFrom(type_proto)
        if name in inputs:
            value.CopyFrom(helper.make_tensor_value_info(name, type_proto.tensor_type.elem_type, list(inputs[name])))
        elif type_proto.WhichOneof("value") == "tensor_type":
            for dim in value.type.tensor_type.shape.dim:
                if dim.WhichOneof("value") == "dim_value" and dim.dim_value <= 0:
                    dim.ClearField("dim_value")
    for name, tensor in graph.initializers.items():
        if tensor.data_type in (TensorProto.INT64, TensorProto.INT32) and _small(tensor.dims):
            bare.graph.initializer.append(numpy_helper.from_array(np.array(read(tensor)), name))
        else:
            bare.graph.input.append(helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims)))
    for node in graph.nodes:
        _copy_light(node, bare)
    for name in graph.outputs:
        bare.graph.output.append(ValueInfoProto(name=name))
    return bare


def _copy_light(node: Node, bare: ModelProto) -> None:
    """Copy a node; a large `Constant` becomes an input of the same shape."""
    if node.op_type == "Constant" and not node.domain:
        tensor = node.attribute("value")
        if isinstance(tensor, TensorProto) and not _small(tensor.dims):
            bare.graph.input.append(helper.make_tensor_value_info(node.outputs[0], tensor.data_type, list(tensor.dims)))
            return
    bare.graph.node.append(node.proto)
    bare.graph.node[-1].name = node.label  # for messages


class _Loops:
    """The loops of a graph by their pseudo-operators, and the states whose shape is in doubt."""

    def __init__(self, laid_out: Sequence[LoopNode], doubtful: set[str]) -> None:
        self.of = {index: loop for loop in laid_out for index in (loop.entry.index, loop.exit.index)}
        self.doubtful = doubtful


class _Forward:
    """One pass over the nodes: evaluate what is constant, infer what is still unknown."""

    def __init__(
        self, graph: Graph, result: Shapes, types: dict[str, TypeProto], observed: Shapes, loops: _Loops
    ) -> None:
        self.observed = observed
        self.loops = loops
        self.graph = graph
        self.result = result
        self.types = types
        self._work_left: float = _ALL_WORK

    def run(self) -> None:
        for node in self.graph.nodes:
            self._mark(node)
            if node.outputs and node.outputs[0] in self.result.constant:
                self._value(node)
            self._shape(node)

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
            _record(self.result, name, self.types.get(name))
        if any(name and name not in dims for name in node.outputs):
            self._infer_alone(node)
        return not all(_small(dims[name]) for name in node.outputs if name in dims)

    def _shape(self, node: Node) -> None:
        """Record the output shapes: by value, by the whole-graph pass, or by inferring this node alone."""
        result = self.result
        for name in node.outputs:
            if name in result.values:
                value = result.values[name]
                result.dims[name] = value.shape
                result.dtypes[name] = helper.np_dtype_to_tensor_dtype(value.dtype)
            elif name:
                _record(result, name, self.types.get(name))
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
            _record(result, name, type_proto)


def _only_casts(node: Node) -> bool:
    """Whether the second input gives nothing but its type: exporters write zero biases as CastLike(0, x)."""
    return node.op_type == "CastLike" and not node.domain and len(node.inputs) == 2


def shape_value(node: Node, dims: tuple[int, ...]) -> Array:
    """Value of `Shape` or `Size` for an input of the given shape."""
    if node.op_type == "Size":
        return np.asarray(int(np.prod(dims, dtype=np.int64)), dtype=np.int64)
    start, end = node.attribute("start", 0), node.attribute("end", len(dims))
    return np.asarray(dims[start:end], dtype=np.int64)
