# SPDX-License-Identifier: Apache-2.0
"""Why a comparison did not come to its end: what the original does with the same inputs decides whose fault it is."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto
from tiny_models import chain, model

import graphprune
from graphprune.errors import ModelFileError, NothingToPruneError, UnsupportedModelError

_READS = "i = Cast <to = 7> (a)\n picked = Gather (table, i)\n y = Mul (z, picked) }"


def _reads(line: str, rows: int) -> ModelProto:
    """Return a network that reads a row of a table that its values tell."""
    return model(
        "(float[1,4] x) => (float[a,b] y) { h = MatMul (x, first)\n r = Relu (h)\n z = MatMul (r, last)\n"
        f" {line}\n a = Abs (m)\n {_READS}",
        {"first": (4, 16), "last": (16, 4)},
        table=np.ones((rows, 4), np.float32),
    )


def _verify(proto: ModelProto, share: float = 0.6) -> graphprune.Verification:
    analysis = graphprune.analyze(graphprune.load(proto))
    plan = graphprune.solve(analysis, [graphprune.BudgetRequest("params", share)])
    return graphprune.verify(analysis, graphprune.apply(analysis, plan), plan)


def test_an_original_that_does_not_run_with_large_inputs_is_compared_on_others() -> None:
    verdict = _verify(_reads("m = ReduceMax (x)", rows=3))
    assert verdict.status == "verified"
    assert "the original does not run with inputs ten times as large" in verdict.note


def test_another_draw_is_tried_where_the_first_does_not_run() -> None:
    """The first draw reads row 36, the second one of the first eight."""
    assert _verify(_reads("m = ReduceMax (z)", rows=8)).status == "verified"


def test_a_network_that_runs_with_all_its_channels_only_is_refused() -> None:
    proto = model(
        "(float[1,4] x) => (float[a,b] y) { h = MatMul (x, first)\n o = Add (h, ones)\n r = Relu (o)\n"
        " z = MatMul (r, last)\n s = ReduceSum <keepdims = 0> (r, axes)\n m = Sub (s, all)\n a = Abs (m)\n"
        f" {_READS}",
        {"last": (16, 4)},
        first=np.zeros((4, 16), np.float32),
        ones=np.ones(16, np.float32),
        all=np.array(16, np.float32),
        axes=[1],
        table=np.ones((1, 4), np.float32),
    )
    with pytest.raises(UnsupportedModelError, match=r"reads where its values say.*channels set to zero.*indices"):
        _verify(proto)


def test_a_wrong_result_of_a_wrong_file_is_the_files_fault() -> None:
    """Its updates have another size than its indices tell, which nothing looks at but onnxruntime."""
    proto = chain('m = Einsum <equation = "nc...,c->nc..."> (h, w)', w=np.zeros(0, np.float32))
    with pytest.raises(ModelFileError, match="the model does not run"):
        _verify(proto, 0.7)


def test_a_product_of_two_types_is_the_files_fault() -> None:
    """Onnx says so with an exception of a class of its own where inference goes node by node."""
    body = (
        "step (int64 i, bool go, float[2,8] s) => (bool on, float[2,8] t)"
        " { a, b = Split <axis = 1> (s, fours)\n c = Tanh (b)\n t = Concat <axis = 1> (c, a)\n on = Identity (go) }"
    )
    proto = model(
        "(float[2,4] x) => (float[2,4] y) { h = MatMul (x, up)\n"
        f' m = Loop (five, "", h) <body = {body}>\n y = MatMul (m, down) }}',
        {"up": (4, 8), "down": (8, 4)},
        fours=[4, 4],
        five=np.array(5),
    )
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.BFLOAT16
    with pytest.raises(ModelFileError, match="inconsistent type"):
        graphprune.analyze(graphprune.load(proto))


def test_what_cannot_be_pruned_and_does_not_run_is_the_files_fault() -> None:
    """Which axes are resized in which mode is known to onnxruntime only."""
    proto = chain('m = Resize <mode = "cubic"> (h, "", s)', after=16, s=np.array([1, 2, 2, 2], np.float32))
    with pytest.raises(ModelFileError, match=r"the model does not run: .*'Cubic' mode only supports"):
        graphprune.solve(graphprune.load(proto), flops=0.5)


def test_what_cannot_be_pruned_and_runs_has_nothing_to_prune() -> None:
    proto = model("(float[1,4] x) => (float[1,6] y) { y = MatMul (x, w) }", {"w": (4, 6)})
    with pytest.raises(NothingToPruneError):
        graphprune.solve(graphprune.load(proto), flops=0.5)


def test_a_list_of_sizes_that_nobody_can_make_up_blames_no_file() -> None:
    """A target of zeros, which is what is made up, does not run; the model may, with the one that is meant."""
    proto = model(
        "(float[1,4] x, int64[3] to) => (float[a,b,c] y) { p = MatMul (x, w)\n y = Reshape (p, to) }", {"w": (4, 6)}
    )
    with pytest.raises(NothingToPruneError):
        graphprune.solve(graphprune.load(proto), flops=0.5)


def test_operators_of_others_blame_no_file() -> None:
    proto = model(
        "(float[1,4] x) => (float[1,6] y) { p = MatMul (x, w)\n y = com.example.Twist (p) }",
        {"w": (4, 6)},
        domains=', "com.example": 1',
    )
    with pytest.raises(NothingToPruneError):
        graphprune.solve(graphprune.load(proto), flops=0.5)
