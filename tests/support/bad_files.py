# SPDX-License-Identifier: Apache-2.0
"""Makers of small models, and of what is wrong with files: every test builds its bad file itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser

from graphprune.errors import GraphPruneError

IR_VERSION = 10
OPSET = 17


@dataclass(frozen=True)
class Edit:
    """A change to a good model, and the error that must follow."""

    id: str
    change: Callable[[onnx.ModelProto], object]
    error: type[GraphPruneError]
    gist: str

    def __str__(self) -> str:
        return self.id


def small_model(seed: int = 0) -> onnx.ModelProto:
    """Return conv -> relu -> conv on 8 pixels square, with weights in raw_data: about 2 KB."""
    model = parser.parse_model(
        f"""<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}]>
        small (float[1,3,8,8] x) => (float[1,4,8,8] y) {{
            a = Conv<pads=[1,1,1,1], kernel_shape=[3,3]>(x, w1, b1)
            r = Relu(a)
            y = Conv(r, w2)
        }}"""
    )
    random = np.random.default_rng(seed)
    for name, shape in {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (4, 8, 1, 1)}.items():
        values = random.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def weight(model: onnx.ModelProto, name: str = "w1") -> TensorProto:
    """Return an initializer by name."""
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def set_attribute(model: onnx.ModelProto, node: int, **values: object) -> None:
    """Give a node an attribute, replacing one of that name."""
    for name, value in values.items():
        kept = [attribute for attribute in model.graph.node[node].attribute if attribute.name != name]
        del model.graph.node[node].attribute[:]
        model.graph.node[node].attribute.extend([*kept, helper.make_attribute(name, value)])


def nested_ifs(depth: int) -> onnx.ModelProto:
    """Return a model of `depth` graphs, each but the innermost holding an If with the next."""
    true = numpy_helper.from_array(np.array(True), "yes")
    body = helper.make_graph([helper.make_node("Identity", ["x"], ["v0"])], "g0", [], [_value("v0")])
    for level in range(1, depth - 1):
        node = helper.make_node("If", ["yes"], [f"v{level}"], then_branch=body, else_branch=_plain_branch(level))
        body = helper.make_graph([node], f"g{level}", [], [_value(f"v{level}")])
    last = helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=_plain_branch(depth))
    graph = helper.make_graph([last], "main", [_value("x")], [_value("y")], [true])
    return _model(graph)


def _plain_branch(level: int) -> onnx.GraphProto:
    name = f"e{level}"
    return helper.make_graph([helper.make_node("Identity", ["x"], [name])], name, [], [_value(name)])


def function_bomb(levels: int) -> onnx.ModelProto:
    """Return a model whose functions, each calling the next twice, expand to 2**levels nodes."""
    functions = []
    for level in range(levels):
        inner = ("Relu", "") if level == levels - 1 else (f"f{level + 1}", "bomb")
        nodes = [
            helper.make_node(inner[0], ["a"], ["b"], domain=inner[1]),
            helper.make_node(inner[0], ["b"], ["c"], domain=inner[1]),
        ]
        imports = [helper.make_opsetid("", OPSET), helper.make_opsetid("bomb", 1)]
        functions.append(helper.make_function("bomb", f"f{level}", ["a"], ["c"], nodes, imports))
    graph = helper.make_graph(
        [helper.make_node("f0", ["x"], ["y"], domain="bomb")], "main", [_value("x")], [_value("y")]
    )
    model = _model(graph)
    model.opset_import.append(helper.make_opsetid("bomb", 1))
    model.functions.extend(functions)
    return model


def _value(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)])


def make_external(tensor: TensorProto, **entries: str) -> bytes:
    """Move a tensor's bytes out of it; return them. `entries` are the external_data keys."""
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return data
