# SPDX-License-Identifier: Apache-2.0
"""Whether an exporter folds BatchNormalization into convolutions changes no group, no reach and no FLOPs ratio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from graphprune import api
from graphprune.analysis.analysis import Analysis
from graphprune.array_types import Floats32

SIDE = 8
EPSILON = 1e-5


class Net:
    """A network in the making; with `live`, BatchNormalization stays, else it is in weights and biases."""

    def __init__(self, *, live: bool) -> None:
        self.live = live
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []
        self.random = np.random.default_rng(0)  # both forms draw the same numbers

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op}_{len(self.tensors)}_{sum(node.op_type == op for node in self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def tensor(self, name: str, array: npt.NDArray[Any]) -> str:
        self.tensors.append(numpy_helper.from_array(array, name))
        return name

    def draw(self, *shape: int, low: float = -1.0) -> Floats32:
        return self.random.uniform(low, 1.0, shape).astype(np.float32)

    def conv(self, x: str, fan_in: int, width: int, kernel: int = 1, *, group: int = 1, relu: bool = True) -> str:
        """Append a convolution with BatchNormalization in either form, and an activation."""
        number = len({node.output[0] for node in self.nodes if node.op_type == "Conv"})
        weight, scale = self.draw(width, fan_in // group, kernel, kernel), self.draw(width, low=0.5)
        bias, mean, variance = self.draw(width), self.draw(width), self.draw(width, low=0.5)
        pads = {"pads": [kernel // 2] * 4, "group": group}
        if self.live:
            x = self.add("Conv", x, self.tensor(f"w{number}", weight), **pads)
            vectors = zip("sbmv", (scale, bias, mean, variance), strict=True)
            names = [self.tensor(f"{letter}{number}", vector) for letter, vector in vectors]
            x = self.add("BatchNormalization", x, *names, epsilon=EPSILON)
        else:
            factor = scale / np.sqrt(variance + np.float32(EPSILON))
            stored = self.tensor(f"w{number}", weight * factor[:, None, None, None])
            x = self.add("Conv", x, stored, self.tensor(f"b{number}", bias - mean * factor), **pads)
        return self.add("Relu", x) if relu else x

    def model(self, x: str, width: int) -> ModelProto:
        """Append a classifier and return the model."""
        pooled = self.add("Flatten", self.add("GlobalAveragePool", x))
        last = self.add("Gemm", pooled, self.tensor("head", self.draw(10, width)), transB=1)
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
            [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, 10])],
            self.tensors,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def residual(net: Net) -> ModelProto:
    x = net.conv("input", 3, 16, 3)
    y = net.conv(net.conv(x, 16, 16, 3), 16, 16, 3, relu=False)
    x = net.add("Relu", net.add("Add", x, y))
    y = net.conv(net.conv(x, 16, 32, 3), 32, 32, 3, relu=False)
    x = net.add("Relu", net.add("Add", net.conv(x, 16, 32, relu=False), y))
    return net.model(x, 32)


def inverted(net: Net) -> ModelProto:
    x = net.conv("input", 3, 16, 3)
    y = net.conv(net.conv(x, 16, 48), 48, 48, 3, group=48)
    x = net.add("Add", x, net.conv(y, 48, 16, relu=False))
    return net.model(net.conv(x, 16, 64), 64)


def dense(net: Net) -> ModelProto:
    x, width = net.conv("input", 3, 16, 3), 16
    for _ in range(3):
        vectors = [net.tensor(f"norm{width}{at}", net.draw(width, low=0.5)) for at in range(4)]
        y = net.add("Relu", net.add("BatchNormalization", x, *vectors))  # in front of a convolution: stays in both
        y = net.conv(net.conv(y, width, 24), 24, 8, 3)
        x, width = net.add("Concat", x, y, axis=1), width + 8
    return net.model(x, width)


def shuffled(net: Net) -> ModelProto:
    x = net.conv("input", 3, 32, 3)
    for number in range(2):
        sizes = net.tensor(f"sizes{number}", np.array([16, 16]))
        net.nodes.append(helper.make_node("Split", [x, sizes], [f"{x}.keep", f"{x}.work"], f"split{number}", axis=1))
        y = net.conv(net.conv(f"{x}.work", 16, 16), 16, 16, 3, group=16, relu=False)
        both = net.add("Concat", f"{x}.keep", net.conv(y, 16, 16), axis=1)
        split = net.add("Reshape", both, net.tensor(f"split{number}", np.array([1, 2, 16, SIDE, SIDE])))
        moved = net.add("Transpose", split, perm=[0, 2, 1, 3, 4])
        x = net.add("Reshape", moved, net.tensor(f"merge{number}", np.array([1, 32, SIDE, SIDE])))
    return net.model(net.conv(x, 32, 48), 48)


def squeezed(net: Net) -> ModelProto:
    x = net.conv("input", 3, 32, 3, group=1)
    y = net.conv(x, 32, 32, 3, group=4)
    gate = net.add("Conv", net.add("GlobalAveragePool", y), net.tensor("down", net.draw(8, 32, 1, 1)))
    gate = net.add("Conv", net.add("Relu", gate), net.tensor("up", net.draw(32, 8, 1, 1)))
    return net.model(net.conv(net.add("Mul", y, net.add("Sigmoid", gate)), 32, 48), 48)


NETS: list[Callable[[Net], ModelProto]] = [residual, inverted, dense, shuffled, squeezed]


def outputs(model: ModelProto) -> Floats32:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(1).standard_normal((1, 3, SIDE, SIDE)).astype(np.float32)
    (found,) = session.run(None, {"input": image})
    return np.asarray(found)


def matrices(analysis: Analysis) -> list[tuple[object, ...]]:
    """Describe groups by the matrices that they run through, of which both forms have the same."""
    inner = {tensor.name for tensor in analysis.model.proto.graph.initializer if len(tensor.dims) > 1}
    return [
        (
            group.size,
            group.channels,
            group.exact,
            [
                (member.initializer, member.axis, member.role, member.positions.tolist(), member.atoms.tolist())
                for member in group.members
                if member.initializer in inner
            ],
        )
        for group in analysis.groups
    ]


@pytest.mark.parametrize("build", NETS)
def test_both_forms_of_a_network_are_the_same_to_the_analysis(build: Callable[[Net], ModelProto]) -> None:
    protos = [build(Net(live=live)) for live in (True, False)]
    np.testing.assert_allclose(outputs(protos[0]), outputs(protos[1]), rtol=1e-3, atol=1e-4)
    live, folded = (api.analyze(api.load(proto)) for proto in protos)
    assert any(member.op == "BatchNormalization" for group in live.groups for member in group.members)
    assert matrices(live) == matrices(folded)
    sizes, random = live.cost.sizes, np.random.default_rng(2)
    for widths in (sizes, np.ones_like(sizes), *(random.integers(1, sizes + 1) for _ in range(5))):
        assert live.cost.flops(widths) == folded.cost.flops(widths)
    ratios = []
    for analysis in (live, folded):
        plan = api.solve(analysis, api.BudgetRequest("flops", 0.5), api.SolveOptions(criterion="random"))
        pruned = api.apply(analysis, plan)
        assert api.verify(analysis, pruned, plan).status == "verified"
        ratios.append(plan.budget.after / plan.budget.before)
    assert ratios[0] == ratios[1] <= 0.5
