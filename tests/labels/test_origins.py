# SPDX-License-Identifier: Apache-2.0
"""Barriers explain themselves wherever they are met, whether they read channels or not."""

from __future__ import annotations

from oracle_check import analyze
from tiny_models import model

from graphprune.analysis.analysis import Analysis
from graphprune.analysis.explain import explain

TEXT = """(float[1,3,6,6] x) => (float[1,2,6,6] y) {
    a = com.microsoft.NhwcFusedConv <activation = "Relu"> (x, first)
    b = com.microsoft.NhwcFusedConv <activation = "Relu"> (a, middle)
    c = Conv (b, third)
    y = Conv (c, last)
}"""
WEIGHTS = {"first": (8, 6, 1, 1), "middle": (8, 6, 1, 1), "third": (8, 8, 1, 1), "last": (2, 8, 1, 1)}


def _analysis() -> Analysis:
    proto = model(TEXT, WEIGHTS, domains=', "com.microsoft": 1')
    from onnx import TensorProto, helper

    for name in ("a", "b"):
        proto.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8, 6, 6]))
    return analyze(proto)


def test_layers_that_are_barriers_are_held_by_themselves() -> None:
    analysis = _analysis()
    kinds = {frozen.kind: [held.node for held in frozen.largest] for frozen in analysis.frozen}
    assert set(kinds["NhwcFusedConv"]) == {"a", "b", "c"}, "what reads the outputs of a barrier is held by it, too"
    assert all(
        "prune the model before optimising it" in frozen.text
        for frozen in analysis.frozen
        if frozen.kind == "NhwcFusedConv"
    )


def test_why_names_the_barrier() -> None:
    explained = explain(_analysis(), "c")
    assert "NhwcFusedConv" in str(explained)
    assert "prune the model before optimising it" in str(explained)
