# SPDX-License-Identifier: Apache-2.0
"""The only place that knows onnx2fx: it builds the torch graph node by node, with what training needs in addition.

BatchNormalization becomes trainable, a convolution may get one put behind it, shapes are made on the device
of their tensor, and whatever cannot be converted is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx2fx.graph_builder import GraphBuilder
from onnx2fx.ops.control_flow import LoopModule, ScanModule, ScanModuleV8
from onnx2fx.utils.attributes import get_attribute
from torch import Tensor, fx, nn
from torch.nn import functional

from graphprune.errors import UnsupportedModelError, quote
from graphprune.model.graph import Graph, Node
from graphprune.model.tensors import TensorStore
from graphprune.model.validity.survey import nodes_below
from graphprune.training.batch_norm import BatchNorm
from graphprune.training.unfolded import Unfolded

__all__ = ["Builder", "from_numpy"]

_LATEST = 1 << 30


def from_numpy(array: npt.NDArray[Any]) -> Tensor:
    """Return a copy of an array as a tensor; bfloat16, which numpy lacks, included."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(np.array(array.view(np.uint16))).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


class Builder(GraphBuilder):
    """Convert a renamed copy of a model.

    Parameters
    ----------
    proto : ModelProto
        With harmless names (`naming.renamed`); changed.
    graph : Graph
        The model with its own names; its nodes are those of `proto`, in the same order.
    names : mapping of str to str
        Name in `proto` of each value.
    tensors : TensorStore
        Reads the stored values.
    unfold : frozenset of int
        Convolutions, by node index, that get a BatchNormalization in place of their bias.

    Attributes
    ----------
    made : list of list of fx.Node
        What each ONNX node became.
    unfolded : dict of int to str
        Submodule of each unfolded convolution.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        graph: Graph,
        names: Mapping[str, str],
        tensors: TensorStore,
        unfold: frozenset[int] = frozenset(),
    ) -> None:
        self._graph = graph
        self._names = names
        self._tensors = tensors
        self._unfold = unfold
        self.made: list[list[fx.Node]] = []
        self.unfolded: dict[int, str] = {}
        _pass_only_parts_on(proto)
        super().__init__(proto)

    def _create_initializer_map(self) -> dict[str, Tensor]:
        return {self._names[name]: self.load_tensor(tensor) for name, tensor in self._graph.initializers.items()}

    def load_tensor(self, tensor: onnx.TensorProto) -> Tensor:
        """Return a stored tensor; one that torch has no type for is refused."""
        try:
            return from_numpy(self._tensors.array(tensor))
        except TypeError as error:
            kind = onnx.TensorProto.DataType.Name(tensor.data_type)
            raise UnsupportedModelError(f"tensor {quote(tensor.name)} is of type {kind}, which torch lacks") from error

    def _convert_nodes(self) -> None:
        for node, proto in zip(self._graph.nodes, self.model.graph.node, strict=True):
            last = next(iter(reversed(self.graph.nodes)), None)
            try:
                self._convert(node, proto)
            except UnsupportedModelError:
                raise
            except Exception as error:  # handlers of the converter raise whatever they like
                raise UnsupportedModelError(
                    f"node {quote(node.label)} ({node.op_type}) cannot be converted for training: {quote(str(error))}",
                    hint="this model can be pruned, but not be finetuned by graphprune",
                ) from error
            self.made.append(self._since(last))

    def _since(self, last: fx.Node | None) -> list[fx.Node]:
        """Return the nodes that were added to the graph after `last`."""
        added: list[fx.Node] = []
        for item in reversed(self.graph.nodes):
            if item is last:
                break
            added.append(item)
        return added[::-1]

    def _convert(self, node: Node, proto: onnx.NodeProto) -> None:
        if node.op_type == "BatchNormalization" and not node.domain:
            self.env[proto.output[0]] = self._batch_norm(proto)
        elif node.op_type == "Shape" and not node.domain:
            first, end = get_attribute(proto, "start", 0), get_attribute(proto, "end", _LATEST)
            self.env[proto.output[0]] = self.call_function(_shape, (self.get_value(proto.input[0]), first, end))
        elif node.index in self._unfold:
            self.env[proto.output[0]] = self._unfolded(node, proto)
        else:
            handler, domain, _ = self._resolve_handler(proto)
            made = handler(self, proto)
            self._tag_operator_node(proto, made, domain)
            self._register_outputs(proto, made, domain)

    def _batch_norm(self, proto: onnx.NodeProto) -> fx.Node:
        """Convert a BatchNormalization; one in training mode has no running statistics (it standardises weights)."""
        if get_attribute(proto, "training_mode", 0):
            x, scale, bias = (self.get_value(item) for item in proto.input[:3])
            return self.call_function(_standardise, (x, scale, bias, get_attribute(proto, "epsilon", 1e-5)))
        module = BatchNorm(get_attribute(proto, "epsilon", 1e-5), 1.0 - get_attribute(proto, "momentum", 0.9))
        name = self.register_submodule("norm", module)
        return self.call_module(name, [self.get_value(item) for item in proto.input])

    def _unfolded(self, node: Node, proto: onnx.NodeProto) -> fx.Node:
        """Convert a convolution without its bias, and put a BatchNormalization behind it that adds the bias."""
        bare = onnx.NodeProto()
        bare.CopyFrom(proto)
        del bare.input[2:]
        handler, _, _ = self._resolve_handler(proto)
        name = self.register_submodule("unfolded", Unfolded(self.initializer_map[proto.input[2]]))
        self.unfolded[node.index] = name
        return self.call_module(name, [handler(self, bare)])

    def build_module(self) -> tuple[fx.Graph, nn.Module]:
        """Return the graph, and a module that holds all constants under their names in the copy."""
        self._load_initializers()
        self._create_placeholders()
        self._convert_nodes()
        self._create_outputs()
        root = nn.Module()
        for name, tensor in self._constants.items():
            root.register_buffer(name, tensor)
        for name, module in self._submodules.items():
            root.add_module(name, module)
        _unpack_only_outputs(root)
        return self.graph, root


def _pass_only_parts_on(proto: onnx.ModelProto) -> None:
    """Let every Split into one part be the identity that it is: the converter gives a tuple of one, in bodies too."""
    for node in nodes_below(proto.graph):
        if node.op_type == "Split" and not node.domain and len(node.output) == 1:
            node.op_type = "Identity"
            del node.input[1:], node.attribute[:]


class _OnlyOutput(nn.Module):
    """A loop with one output, given as it is: the converter's loops give a tuple of one, which nothing can read."""

    def __init__(self, loop: nn.Module) -> None:
        super().__init__()
        self.loop = loop

    def forward(self, *args: object) -> object:
        """Return the output."""
        return self.loop(*args)[0]


def _unpack_only_outputs(root: nn.Module) -> None:
    """Let every loop with one output give it as it is, those inside of branches and loops included."""
    for parent in list(root.modules()):
        for name, loop in parent.named_children():
            if _outputs(loop) == 1:
                setattr(parent, name, _OnlyOutput(loop))


def _outputs(module: nn.Module) -> int:
    """Return how many outputs a loop has; 0 for what is no loop."""
    if isinstance(module, LoopModule):
        return int(module.n_loop_carried + module.n_scan_outputs)
    if isinstance(module, ScanModule | ScanModuleV8):
        return int(module.n_state_vars + module.n_scan_outputs)
    return 0


def _standardise(x: Tensor, scale: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    return functional.batch_norm(x, None, None, scale, bias, True, 0.0, epsilon)


def _shape(value: Tensor, first: int, end: int) -> Tensor:
    """Return the shape of a value, on its device, so that it may meet other values there."""
    return torch.tensor(value.shape[first:end], dtype=torch.int64, device=value.device)
