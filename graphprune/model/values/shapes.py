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
from onnx import ModelProto, TensorProto, TypeProto, ValueInfoProto, helper, numpy_helper

from graphprune.array_types import Array
from graphprune.model.graph import Graph, Node
from graphprune.model.inference.known import Shapes
from graphprune.model.inference.whole_inference import infer_whole, without
from graphprune.model.values.forward import LARGEST_VALUE, Forward, Given, Loops, is_small, record, shape_value
from graphprune.model.values.iterations import loops, unsettled

__all__ = ["LARGEST_VALUE", "Shapes", "fixed_sizes", "infer", "infer_given", "objection_without"]
__all__ += ["shape_value"]

Read = Callable[[TensorProto], Array]

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
        Forward(graph, result, types, believed, Loops(laid_out, doubtful)).run()
        more = unsettled(laid_out, result, doubtful, rounds=_ROUNDS - rounds)
        if not more:
            break
        doubtful |= more
    result.refusal = refusal
    return result


def infer_given(graph: Graph, read: Read, inputs: Mapping[str, Sequence[int]], given: Given) -> Shapes:
    """Find the shapes of all values of a graph without bodies, whose nodes read other sizes than it stores.

    Parameters
    ----------
    given : callable
        Says what a node reads instead of stored values (:data:`graphprune.model.values.forward.Given`).

    Complexity: O(nodes), each of which is inferred alone.
    """
    types = {
        name: helper.make_tensor_type_proto(graph.inputs[name].tensor_type.elem_type, list(dims))
        for name, dims in inputs.items()
    }
    result = _start(graph, read, types)
    Forward(graph, result, types, Shapes(), Loops((), set()), given).run()
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
        if is_small(tensor.dims):
            result.values[name] = read(tensor)
    for name in graph.inputs:
        record(result, name, types.get(name))
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
        if tensor.data_type in (TensorProto.INT64, TensorProto.INT32) and is_small(tensor.dims):
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
        if isinstance(tensor, TensorProto) and not is_small(tensor.dims):
            bare.graph.input.append(helper.make_tensor_value_info(node.outputs[0], tensor.data_type, list(tensor.dims)))
            return
    bare.graph.node.append(node.proto)
    bare.graph.node[-1].name = node.label  # for messages
