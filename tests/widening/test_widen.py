# SPDX-License-Identifier: Apache-2.0
"""Widening: the function stays, every group gets wider, and lossless pruning takes the copies out again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper
from pruning_cases import KINDS
from tiny_models import chain, model

import graphprune
from graphprune.errors import NothingToPruneError, UsageError
from graphprune.widening.copies import Copies
from graphprune.widening.sums import find_sums
from graphprune.widening.widen import copies_of

SHUFFLED = """(float[1,3,6,6] x) => (float[1,2,6,6] y) {
    a = Conv (x, w0)
    b = Relu (a)
    c = Conv <group = 2, kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (b, w1)
    d = Reshape (c, split)
    e = Transpose <perm = [0, 2, 1, 3, 4]> (d)
    f = Reshape (e, joined)
    g = Conv <group = 4> (f, w2)
    y = Conv (g, w3)
}"""
PADDED = """(float[1,3,6,6] x) => (float[1,2,6,6] y) {
    a = Conv (x, w0)
    b = Relu (a)
    c = Conv (b, w1)
    d = Pad (b, amounts)
    e = Add (c, d)
    f = Relu (e)
    g = Conv (f, w2)
    h = Add (g, f)
    y = Conv (h, w3)
}"""
SQUEEZED = """(float[1,3,6,6] x) => (float[1,2,6,6] y) {
    a = Conv (x, w0)
    b = Relu (a)
    c = GlobalAveragePool (b)
    d = Conv (c, w1)
    e = Relu (d)
    f = Conv (e, w2)
    g = Sigmoid (f)
    h = Mul (b, g)
    y = Conv (h, w3)
}"""
DEPTHWISE = "m = Conv <group = 8, kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (h, middle)"
TRANSPOSED = "m = ConvTranspose <group = 4> (h, middle)"
RECURRENT = """(float[5,1,3] x) => (float[5,1,1,2] y) {
    h, last, cell = LSTM <hidden_size = 6> (x, w, r, b)
    y = MatMul (h, head)
}"""
HEAD_DIM = """(float[1,5,8] x) => (float[1,2,5,5] s) {
    q = MatMul (x, wq)
    k = MatMul (x, wk)
    q1 = Reshape (q, heads)
    k1 = Reshape (k, heads)
    q2 = Transpose <perm = [0, 2, 1, 3]> (q1)
    k2 = Transpose <perm = [0, 2, 3, 1]> (k1)
    s = MatMul (q2, k2)
}"""

CASES: dict[str, Callable[[], ModelProto]] = {
    **KINDS,
    "padded shortcut": lambda: model(
        PADDED,
        {"w0": (6, 3, 1, 1), "w1": (10, 6, 1, 1), "w2": (10, 10, 1, 1), "w3": (2, 10, 1, 1)},
        amounts=[0, 2, 0, 0, 0, 2, 0, 0],
    ),
    "channel shuffle": lambda: model(
        SHUFFLED,
        {"w0": (8, 3, 1, 1), "w1": (8, 4, 3, 3), "w2": (8, 2, 1, 1), "w3": (2, 8, 1, 1)},
        split=[1, 2, 4, 6, 6],
        joined=[1, 8, 6, 6],
    ),
    "squeeze and excitation": lambda: model(
        SQUEEZED, {"w0": (8, 3, 1, 1), "w1": (4, 8, 1, 1), "w2": (8, 4, 1, 1), "w3": (2, 8, 1, 1)}
    ),
    "depthwise": lambda: chain(DEPTHWISE, {"middle": (8, 1, 3, 3)}),
    "depthwise with a multiplier": lambda: chain(DEPTHWISE, {"middle": (16, 1, 3, 3)}, after=16),
    "grouped, a slice of each": lambda: chain(
        "m = Conv <group = 4> (h, middle)", {"middle": (16, 4, 1, 1)}, width=16, after=16
    ),
    "grouped transposed": lambda: chain(TRANSPOSED, {"middle": (8, 3, 1, 1)}, after=12),
    "sum": lambda: chain("s = ReduceSum <keepdims = 1> (h, axis)\n m = Mul (h, s)", axis=[1]),
    "root": lambda: chain("s = ReduceL2 <axes = [1], keepdims = 1> (h)\n m = Mul (h, s)"),
    "mean": lambda: chain("s = ReduceMean <axes = [1], keepdims = 1> (h)\n m = Mul (h, s)"),
    "picked in another order": lambda: chain("m = Gather <axis = 1> (h, order)", order=[3, 0, 7, 1, 6, 2, 5, 4]),
    "recurrent": lambda: model(RECURRENT, {"w": (1, 24, 3), "r": (1, 24, 6), "b": (1, 48), "head": (6, 2)}),
}


def widths(proto: ModelProto) -> list[int]:
    return [group.size for group in graphprune.analyze(graphprune.load(proto)).groups]


@pytest.mark.parametrize("case", CASES)
def test_the_function_stays(case: str) -> None:
    proto = CASES[case]()
    found = graphprune.widen(graphprune.load(proto), graphprune.WidenOptions(1.5))
    assert found.verification is not None
    assert found.verification.error <= 1e-5
    assert [group.after for group in found.groups] == [round(1.5 * size) for size in widths(proto)]
    assert not [group.why for group in found.groups if group.why]


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("sum", "root", "mean", "recurrent")])
def test_lossless_pruning_takes_the_copies_out(case: str) -> None:
    proto = CASES[case]()
    wide = graphprune.widen(graphprune.load(proto)).model
    plan = graphprune.solve(wide, (), graphprune.SolveOptions(lossless=True))
    assert [len(group.kept) for group in plan.groups] == widths(proto)
    assert graphprune.verify(wide, graphprune.apply(wide, plan), plan).ok


def test_parts_of_heads_are_copied_where_these_are_the_channels() -> None:
    proto = model(HEAD_DIM, {"wq": (8, 8), "wk": (8, 8)}, heads=[1, 5, 2, 4])
    analysis = graphprune.analyze(graphprune.load(proto), graphprune.AnalyzeOptions(attention="head-dim"))
    found = graphprune.widen(analysis)
    assert [(group.before, group.after) for group in found.groups] == [(4, 8)]
    assert any(node.op_type == "Mul" for node in found.model.proto.graph.node)


def test_copies_stand_beside_what_they_are_copies_of() -> None:
    analysis = graphprune.analyze(graphprune.load(chain("m = Relu (h)", width=4)))
    sums = find_sums(analysis)
    copies = Copies(analysis, np.array([1, 3, 1, 2]), sums)
    (labels,) = [axis for axis in analysis.scope.values["h"] if axis.live]
    assert copies.order(labels).tolist() == [0, 1, 1, 1, 2, 3, 3]
    assert copies.counts(labels).tolist() == [1, 3, 1, 2]


def test_what_is_over_is_spread_evenly() -> None:
    analysis = graphprune.analyze(graphprune.load(chain("m = Relu (h)", width=8)))
    assert copies_of(analysis, 1.5, find_sums(analysis)).tolist() == [2, 1] * 4
    assert copies_of(analysis, 1.0, find_sums(analysis)).tolist() == [1] * 8


def test_noise_moves_weight_between_copies_only() -> None:
    proto = chain("m = Relu (h)", width=8)
    found = graphprune.widen(graphprune.load(proto), graphprune.WidenOptions(noise=0.5, seed=3))
    arrays = {item.name: numpy_helper.to_array(item) for item in found.model.proto.graph.initializer}
    before = {item.name: numpy_helper.to_array(item) for item in proto.graph.initializer}
    last = arrays["last"].reshape(2, 8, 2)
    assert np.abs(last[:, :, 0] - last[:, :, 1]).min() > 0
    np.testing.assert_allclose(last.sum(axis=2), before["last"].reshape(2, 8), atol=1e-6)
    np.testing.assert_array_equal(arrays["first"], np.repeat(before["first"], 2, axis=0))
    again = graphprune.widen(graphprune.load(proto), graphprune.WidenOptions(noise=0.5, seed=3))
    assert again.model.proto.SerializeToString() == found.model.proto.SerializeToString()


def test_what_integers_read_stays_narrow() -> None:
    scales = {"one": np.float32(0.1), "zero": np.int8(0)}
    weight = np.random.default_rng(0).integers(-9, 9, (8, 8, 1, 1)).astype(np.int8)
    text = "w = DequantizeLinear (q, one, zero)\n m = Conv (h, w)"
    found = graphprune.widen(graphprune.load(chain(text, q=weight, **scales)))
    first, second = found.groups
    assert (first.before, first.after) == (8, 8)
    assert "integers" in first.why
    assert second.after == 16


def test_a_network_without_groups_cannot_be_wider() -> None:
    proto = model("(float[1,3] x) => (float[1,3] y) { y = Relu (x) }")
    with pytest.raises(NothingToPruneError):
        graphprune.widen(graphprune.load(proto))


@pytest.mark.parametrize("wrong", [{"factor": 0.5}, {"factor": float("nan")}, {"noise": -1.0}, {"seed": -1}])
def test_options_without_meaning(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        graphprune.WidenOptions(**wrong)  # type: ignore[arg-type]


def test_a_wider_network_is_no_longer_what_a_plan_made() -> None:
    whole = graphprune.load(chain("m = Relu (h)"))
    plan = graphprune.solve(whole, graphprune.BudgetRequest("flops", 0.6), graphprune.SolveOptions(round_to=1))
    pruned = graphprune.apply(whole, plan)
    assert any(entry.key == "graphprune.plan" for entry in pruned.proto.metadata_props)
    wider = graphprune.widen(pruned, graphprune.WidenOptions(2)).model
    assert not any(entry.key.startswith("graphprune.") for entry in wider.proto.metadata_props)
