# SPDX-License-Identifier: Apache-2.0
"""The noise of a coarse type is judged by the tolerance of that type, not by that of float32."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import graphprune
from graphprune import BudgetRequest


def test_tensors_of_a_coarse_type_are_compared() -> None:
    random = np.random.default_rng(0)
    weights = {"first": (16, 3, 3, 3), "last": (4, 16, 3, 3)}
    stored = [
        numpy_helper.from_array(random.standard_normal(shape).astype(np.float16), name)
        for name, shape in weights.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "last"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT16, shape)
        for name, shape in (("x", [1, 3, 9, 9]), ("y", [1, 4, 5, 5]))
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "half", ends[:1], ends[1:], stored),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    analysis = graphprune.analyze(graphprune.load(model))
    plan = graphprune.solve(analysis, BudgetRequest("flops", 0.5))
    found = graphprune.verify(analysis, graphprune.apply(analysis, plan), plan)
    assert found.status == "verified"
    assert found.compared >= len(nodes)
