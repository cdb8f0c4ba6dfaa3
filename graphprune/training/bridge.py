# SPDX-License-Identifier: Apache-2.0
"""The bridge: an ONNX model as a trainable torch module, and the trained weights back into the ONNX file.

::

    net = bridge.to_torch(graphprune.load("model.pruned.onnx"))
    optimizer = torch.optim.SGD(net.module.parameters(), lr=0.01, momentum=0.9)
    for images, labels in loader:
        loss = cross_entropy(net.module(images), labels)
        ...
    graphprune.save(bridge.to_onnx(net), "model.finetuned.onnx")

Parameters have the names of the tensors in the file. Writing back replaces the values of those that changed
and touches nothing else, so whatever the file says beside its weights it still says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from onnx import ModelProto, TensorProto, helper
from torch import Tensor, fx, nn

from graphprune.errors import UnsupportedModelError, quote
from graphprune.model.graph import Graph
from graphprune.model.load import Model
from graphprune.model.normalize import inline_functions
from graphprune.model.tensors import DATA_FIELDS
from graphprune.training.builder import Builder, from_numpy
from graphprune.training.naming import module_paths, renamed
from graphprune.training.trainable_weights import Weights, find_weights, stored_tensor
from graphprune.training.unfolded import Unfolded

__all__ = ["Trainable", "named", "to_onnx", "to_torch", "value_in", "weights_now", "with_values"]


@dataclass(frozen=True, eq=False)
class Trainable:
    """A model as a torch module.

    Attributes
    ----------
    module : fx.GraphModule
        Takes the inputs in their order, gives the output, or a tuple of outputs.
    model : Model
        The file it came from.
    graph : Graph
        Its graph, local functions inlined.
    inputs, outputs : tuple of str
        Names in the file.
    paths : dict of str to str
        Where the module keeps what training changes (parameters and running statistics), by the name of the
        tensor in the file.
    values : dict of str to fx.Node
        What each value of the file became, by its name there.
    made : list of list of fx.Node
        What each node of the file became, by node index.
    unfolded : dict of int to Unfolded
        BatchNormalizations that were put behind convolutions, by node index.
    """

    module: fx.GraphModule
    model: Model
    graph: Graph
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    paths: dict[str, str]
    values: dict[str, fx.Node] = field(repr=False)
    made: list[list[fx.Node]] = field(repr=False)
    unfolded: dict[int, Unfolded] = field(repr=False)

    @property
    def stored(self) -> dict[str, Tensor]:
        """Parameters and running statistics, by the name of the tensor in the file."""
        held = dict(self.module.named_parameters()) | dict(self.module.named_buffers())
        return {name: held[path] for name, path in self.paths.items()}

    @property
    def written(self) -> tuple[str, ...]:
        """Names of the stored tensors that training changes in the file."""
        biases = (self.graph.nodes[index].inputs[2] for index in self.unfolded)
        return tuple(dict.fromkeys((*self.paths, *biases)))

    @property
    def changing(self) -> dict[str, Tensor]:
        """All that training changes, by its path in the module; what was unfolded included."""
        held = dict(self.module.named_parameters()) | dict(self.module.named_buffers())
        own = set(self.paths.values())
        inner = {
            f"{path}.{name}"
            for path, module in self.module.named_modules()
            if isinstance(module, Unfolded)
            for name in ("weight", "bias", "running_mean", "running_var")
        }
        return {path: value for path, value in held.items() if path in own or path in inner}

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return all outputs by name, given all inputs by name."""
        return named(self, self.module(*(feeds[name] for name in self.inputs)))


def named(net: Trainable, result: Tensor | tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Return what the module gave by the names of the outputs."""
    values = result if isinstance(result, tuple) else (result,)
    return dict(zip(net.outputs, values, strict=True))


def to_torch(model: Model, *, unfold: bool = False) -> Trainable:
    """Convert a model for training.

    Parameters
    ----------
    model : Model
        Not changed.
    unfold : bool
        Put a BatchNormalization behind each convolution with a bias, as far as that can be undone. It only adds
        the bias until `unfold.measure` has seen data.

    Returns
    -------
    Trainable
        In evaluation mode.

    Raises
    ------
    UnsupportedModelError
        If an operator or a type cannot be converted, with the name of the node; or if there is nothing to train.
    """
    graph = Graph(inline_functions(model.proto))
    weights = find_weights(graph)
    proto, names = renamed(graph.proto)
    chosen = foldable(graph) if unfold else frozenset()
    builder = Builder(proto, graph, names, model.tensors, chosen)
    made, root = builder.build_module()
    paths = _promote(made, root, weights, names, _stored_types(graph, weights))
    module = fx.GraphModule(root, made)
    module.eval()
    return Trainable(
        module,
        model,
        graph,
        tuple(graph.inputs),
        graph.outputs,
        paths,
        {name: builder.env[new] for name, new in names.items() if new in builder.env},
        builder.made,
        {index: module.get_submodule(name) for index, name in builder.unfolded.items()},  # type: ignore[misc]
    )


def foldable(graph: Graph) -> frozenset[int]:
    """Return the convolutions, by node index, whose BatchNormalization may have been folded.

    Weight and bias must be stored in the file as they are read and be read by nobody else, so that folding
    them again is possible; and a layer must follow, since the last one never had a normalisation.
    """
    followed: set[str] = set()
    for node in reversed(graph.nodes):
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") or any(
            name in followed for name in node.outputs
        ):
            followed.update(name for name in (*node.inputs, *node.captured) if name)
    foldable = set()
    for node in graph.nodes:
        if node.op_type != "Conv" or node.domain or len(node.inputs) < 3 or not node.inputs[2]:
            continue
        readers = graph.consumers.get(node.outputs[0], [])
        normalised = any(reader.op_type == "BatchNormalization" for reader, _ in readers)
        alone = all(name in graph.initializers and len(graph.consumers[name]) == 1 for name in node.inputs[1:3])
        if alone and not normalised and node.outputs[0] in followed and graph.captured.isdisjoint(node.inputs[1:3]):
            foldable.add(node.index)
    return frozenset(foldable)


def _stored_types(graph: Graph, weights: Weights) -> dict[str, int]:
    types: dict[str, int] = {}
    for name in (*weights.trained, *weights.statistics):
        tensor = stored_tensor(graph, name)
        if tensor is not None:
            types[name] = tensor.data_type
    return types


def _promote(
    graph: fx.Graph, root: nn.Module, weights: Weights, names: Mapping[str, str], types: Mapping[str, int]
) -> dict[str, str]:
    """Turn weights into parameters under their own names; drop what nothing reads; return the path of each.

    Parameters are float32, whatever the file stores; where it stores less they are rounded when they are read.
    """
    reads = {node.target: node for node in list(graph.nodes) if node.op == "get_attr"}
    for target in [target for target, node in reads.items() if not node.users]:
        graph.erase_node(reads.pop(target))
        delattr(root, str(target))
    present = [name for name in (*weights.trained, *weights.statistics) if names[name] in reads]
    paths = module_paths(present)
    for name, path in paths.items():
        node = reads[names[name]]
        value: Tensor = getattr(root, names[name])
        delattr(root, names[name])
        owner, _, leaf = path.rpartition(".")
        home = _submodule(root, owner)
        if name in weights.statistics:
            home.register_buffer(leaf, value)
        else:
            home.register_parameter(leaf, nn.Parameter(value.float() if types[name] in _NARROW else value))
        node.target = path
        if name not in weights.statistics and types[name] in _NARROW:
            _narrow(graph, node, value.dtype)
    return paths


_NARROW = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})


def _narrow(graph: fx.Graph, node: fx.Node, dtype: torch.dtype) -> None:
    with graph.inserting_after(node):
        cast = graph.call_method("to", (node, dtype))
    node.replace_all_uses_with(cast, lambda user: user is not cast)


def _submodule(root: nn.Module, path: str) -> nn.Module:
    for part in path.split(".") if path else []:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    return root


def to_onnx(net: Trainable) -> Model:
    """Return the model with the weights that training left in the module.

    Raises
    ------
    UnsupportedModelError
        If a weight is no longer finite.
    """
    return with_values(net.model, net.graph, weights_now(net))


def weights_now(net: Trainable) -> dict[str, Tensor]:
    """Return what the file would store, by name; what was unfolded is folded in."""
    now = {name: value.detach() for name, value in net.stored.items()}
    for index, norm in net.unfolded.items():
        _, weight, bias = net.graph.nodes[index].inputs[:3]
        now[weight], now[bias] = (value.detach() for value in norm.folded(now[weight]))
    return now


def value_in(model: Model, graph: Graph, name: str) -> Tensor | None:
    """Return a stored tensor of a model; None if there is none of this name."""
    tensor = stored_tensor(graph, name)
    return None if tensor is None else from_numpy(model.tensors.array(tensor))


def with_values(model: Model, graph: Graph, values: Mapping[str, Tensor]) -> Model:
    """Return a model with other values in stored tensors, by name; the same model where none differs.

    Raises
    ------
    UnsupportedModelError
        If a value is not finite.
    """
    changed: dict[str, bytes] = {}
    for name, value in values.items():
        tensor, before = stored_tensor(graph, name), value_in(model, graph, name)
        if tensor is None or before is None:
            continue
        after = value.cpu().to(before.dtype)
        if not bool(torch.isfinite(after).all()):
            raise UnsupportedModelError(f"the trained tensor {quote(name)} has values that are not finite")
        if not torch.equal(before, after):
            changed[name] = _raw(after, tensor)
    if not changed:
        return model
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    _replace(proto, changed)
    return model.replaced(proto)


def _raw(value: Tensor, tensor: TensorProto) -> bytes:
    """Return the little-endian bytes of a tensor in the type that the file stores."""
    if value.dtype == torch.bfloat16:
        return value.contiguous().view(torch.int16).numpy().astype("<i2").tobytes()
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).newbyteorder("<")
    return value.contiguous().numpy().astype(dtype).tobytes()


def constant_tensors(proto: ModelProto) -> dict[str, TensorProto]:
    """Return the messages of all stored tensors of a model by name."""
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant" and len(node.attribute) == 1 and node.attribute[0].HasField("t"):
            tensors[node.output[0]] = node.attribute[0].t
    return tensors


def _replace(proto: ModelProto, values: Mapping[str, bytes]) -> None:
    """Replace the values of stored tensors, and nothing else."""
    tensors = constant_tensors(proto)
    missing = sorted(set(values) - set(tensors))
    if missing:
        raise UnsupportedModelError(
            f"the weight {quote(missing[0])} is stored in a local function, where it cannot be replaced",
            hint="write the model without functions first: graphprune normalize",
        )
    for name, raw in values.items():
        for entry in DATA_FIELDS:
            tensors[name].ClearField(entry)
        tensors[name].raw_data = raw
