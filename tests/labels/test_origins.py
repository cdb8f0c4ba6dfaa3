# SPDX-License-Identifier: Apache-2.0
"""Barriers explain themselves wherever they are met, whether they read channels or not."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper
from oracle_check import analyze
from tiny_models import model

from graphprune.analysis.analysis import Analysis
from graphprune.analysis.explain import explain
from graphprune.api import solve
from graphprune.errors import GraphPruneError
from graphprune.plan.budget import BudgetRequest

TEXT = """(float[1,6,6,6] x) => (float[1,2,6,8] y) {
    a = com.microsoft.NhwcFusedConv <activation = "Relu"> (x, first)
    b = com.microsoft.NhwcFusedConv <activation = "Relu"> (a, middle)
    c = Conv (b, third)
    y = Conv (c, last)
}"""
WEIGHTS = {"first": (8, 6, 1, 1), "middle": (8, 8, 1, 1), "third": (8, 6, 1, 1), "last": (2, 8, 1, 1)}


def _analysis() -> Analysis:
    proto = model(TEXT, WEIGHTS, domains=', "com.microsoft": 1')
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
    said = str(vars(explain(_analysis(), "c")))
    assert "NhwcFusedConv" in said
    assert "prune the model before optimising it" in said


def test_the_error_says_to_prune_before_optimising() -> None:
    with pytest.raises(GraphPruneError) as caught:
        solve(_analysis(), [BudgetRequest("flops", 0.3)])
    assert "is made by onnxruntime's optimiser: prune the model before optimising it" in str(caught.value.hint)


def test_blocks_of_channels_are_named_and_counted() -> None:
    text = """(float[1,8,6,6] x) => (float[1,8,6,6] y) {
        a = com.microsoft.nchwc.ReorderInput (x)
        b = com.microsoft.nchwc.Conv <activation = "Relu"> (a, w)
        c = com.microsoft.nchwc.ReorderOutput <channels = 8> (b)
        y = Relu (c)
    }"""
    proto = model(text, {"w": (8, 8, 1, 1)}, domains=', "com.microsoft.nchwc": 1')
    for name in ("a", "b", "c"):
        proto.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8, 6, 6]))
    analysis = analyze(proto)
    assert analysis.cost.flops(analysis.cost.sizes) == 2 * 8 * 8 * 36
    assert analysis.uncounted == ()
    (frozen,) = analysis.frozen
    assert (frozen.node, frozen.text.rpartition(": ")[2]) == ("b", "prune the model before optimising it")
