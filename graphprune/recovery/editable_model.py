# SPDX-License-Identifier: Apache-2.0
"""A editable: a copy of a pruned model in which weights are replaced one by one, and what was changed."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from graphprune.array_types import Array
from graphprune.data.walk import constant_nodes
from graphprune.errors import InternalError, quote
from graphprune.model.graph import Graph, Node
from graphprune.model.normalize import inline_functions
from graphprune.model.tensors import FLOATS

if TYPE_CHECKING:
    from graphprune.model.load import Model

__all__ = ["EditableModel"]

_WRITABLE = FLOATS - {TensorProto.BFLOAT16}  # numpy has no such numbers


class EditableModel:
    """A model whose weights may be written.

    Parameters
    ----------
    model : Model
        What is copied; it does not change itself.

    Attributes
    ----------
    graph : Graph
        The main graph of the copy, local functions inlined.
    written : set of str
        Stored tensors with new values.
    biased : dict of str to str
        The new tensor of every node that had no bias, or shared one, by the node's first output.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        proto = ModelProto()
        proto.CopyFrom(inline_functions(model.proto))
        self.graph = Graph(proto)
        self.written: set[str] = set()
        self.biased: dict[str, str] = {}

    @cached_property
    def constant(self) -> frozenset[str]:
        """Values that depend on nothing that is fed: stored, or computed from stored ones."""
        nodes = constant_nodes(self.graph)
        made = (name for index in nodes for name in self.graph.nodes[index].outputs)
        return frozenset((*self.graph.initializers, *made))

    def stored(self, name: str) -> TensorProto | None:
        """Return the message of an initializer or of a `Constant` node, None for other values."""
        if name in self.graph.initializers:
            return self.graph.initializers[name]
        node = self.graph.producer.get(name)
        if node is not None and node.op_type == "Constant" and not node.domain:
            for attribute in node.proto.attribute:
                if attribute.name == "value":
                    return attribute.t
        return None

    def _tensor(self, name: str) -> TensorProto:
        tensor = self.stored(name)
        if tensor is None:
            raise InternalError(f"{quote(name)} is not stored in the model")
        return tensor

    def own(self, name: str) -> bool:
        """Whether a value is a stored tensor of floats that a single node reads, and may be replaced for that one."""
        tensor = self.stored(name)
        if tensor is None or tensor.data_type not in _WRITABLE:
            return False
        readers = self.graph.consumers.get(name, [])
        return len(readers) == 1 and name not in self.graph.captured and name not in self.graph.outputs

    def read(self, name: str) -> Array:
        """Return the present value of a stored tensor."""
        return self.model.tensors.array(self._tensor(name))

    def write(self, name: str, value: Array) -> None:
        """Replace the values of a stored tensor, in its own type and shape."""
        tensor = self._tensor(name)
        before = self.read(name)
        new = numpy_helper.from_array(np.ascontiguousarray(value.reshape(before.shape).astype(before.dtype)), name)
        for field in ("float_data", "int32_data", "double_data", "external_data", "data_location"):
            tensor.ClearField(field)
        tensor.raw_data = new.raw_data
        self.written.add(name)

    def set_bias(self, node: Node, value: Array, dtype: np.dtype[Any]) -> None:
        """Give a `Conv` or `Gemm` this bias: in its own tensor where it has one, else in a new one."""
        name = node.proto.input[2] if len(node.proto.input) > 2 else ""
        if name in self.biased.values() or (name and self.own(name) and self.read(name).size == value.size):
            self.write(name, value)
            return
        name = self.graph.unused(f"{node.outputs[0]}.bias")
        tensor = numpy_helper.from_array(np.ascontiguousarray(value.astype(dtype)), name)
        self.graph.proto.graph.initializer.append(tensor)
        self.graph.initializers[name] = self.graph.proto.graph.initializer[-1]
        if len(node.proto.input) > 2:
            node.proto.input[2] = name
        else:
            node.proto.input.append(name)
        self.biased[node.outputs[0]] = name

    def finished(self) -> Model:
        """Return the changed model."""
        proto = ModelProto()
        proto.CopyFrom(self.graph.proto)
        return self.model.replaced(proto)
