# SPDX-License-Identifier: Apache-2.0
"""What cannot follow for every size of the inputs is found out before anything is solved."""

from __future__ import annotations

import pytest
from onnx import ModelProto
from oracle_check import analyze
from tiny_models import chain, model

from graphprune import api
from graphprune.errors import UnsupportedModelError
from graphprune.surgery.prune import prune
from graphprune.surgery.rehearsal import rehearsed

SCALED = """(float[N,3] x) => (float[N,2] y) {
    h = MatMul (x, w)
    s = Size (h)
    c = Cast <to = 1> (s)
    d = Div (h, c)
    h2 = MatMul (d, w2)
    y = MatMul (h2, last)
}"""
OLD_SHUFFLE = """(float[N,3,H,W] x) => (float[N,k,a,b] y) {
    h = Conv (x, first)
    s = Shape (h)
    n = Slice <starts = [0], ends = [1]> (s)
    rows = Slice <starts = [2], ends = [3]> (s)
    columns = Slice <starts = [3], ends = [4]> (s)
    to = Concat <axis = 0> (n, two, four, rows, columns)
    u = Reshape (h, to)
    t = Transpose <perm = [0, 2, 1, 3, 4]> (u)
    m = Reshape (t, s)
    h2 = Conv (m, w2)
    y = Conv (h2, last)
}"""

MODELS = {
    "a number": model(SCALED, {"w": (3, 8), "w2": (8, 5), "last": (5, 2)}),
    "a target before Where": model(
        OLD_SHUFFLE,
        {"first": (8, 3, 1, 1), "w2": (5, 8, 1, 1), "last": (2, 5, 1, 1)},
        opset=8,
        two=[2],
        four=[4],
    ),
}
ROWS = """(float[N,3,L] x) => (float[] y) {
    h = Conv (x, first)
    r = Reshape (h, to)
    t = Transpose <perm = [0, 1, 3, 2]> (r)
    m = MatMul (t, w)
    y = ReduceSum <keepdims = 0> (m)
}"""


@pytest.mark.parametrize("name", MODELS)
def test_channels_stay_where_sizes_cannot_follow(name: str) -> None:
    proto: ModelProto = MODELS[name]
    with pytest.raises(UnsupportedModelError, match="size"):
        unrehearsed = analyze(proto)
        prune(unrehearsed, unrehearsed.grouping.index_of == 0)
    analysis = api.analyze(api.load(proto))
    assert [(group.name, group.size) for group in analysis.groups] == [("h2", 5)]
    assert "open size" in {frozen.kind for frozen in analysis.frozen}
    plan = api.solve(analysis, flops=0.98, options=api.SolveOptions(round_to=1))
    assert api.verify(analysis, api.apply(analysis, plan), plan).status == "verified"
    assert analysis.of(analysis.model).held == analysis.held


@pytest.mark.parametrize("inputs", ["float[2,3,6,6]", "float[N,3,6,6]"])
def test_an_analysis_in_which_all_sizes_follow_is_the_same(inputs: str) -> None:
    proto = chain("s = Shape (h) f = Flatten (h) m = Reshape (f, s)")
    if "N" in inputs:
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    analysis = analyze(proto)
    assert rehearsed(analysis) is analysis


@pytest.mark.parametrize(
    ("target", "free"),
    [
        pytest.param([-1, 2, 3, 4], False, id="rows-of-fixed-length"),
        pytest.param([0, 1, 3, -1], True, id="channels-with-all-behind-them"),
    ],
)
def test_channels_stay_where_a_reshape_carries_them_elsewhere_for_another_size(target: list[int], free: bool) -> None:
    """For lengths other than 4, an index of `r` says nothing of the channel of `h`."""
    proto = model(ROWS, {"first": (3, 3, 1), "w": (3, 2)}, to=target)
    analysis = api.analyze(api.load(proto), api.AnalyzeOptions(input_shapes={"x": (2, 3, 4)}))
    assert ("h" in {group.name for group in analysis.groups}) is free
    assert ("open size" in {frozen.kind for frozen in analysis.frozen}) is not free


def test_a_layer_of_which_only_the_shape_is_read_stays() -> None:
    text = """(float[2,3] x) => (float[] y) {
        h = MatMul (x, first)
        s = Shape (h)
        c = Cast <to = 1> (s)
        y = MatMul (c, w)
    }"""
    analysis = analyze(model(text, {"first": (3, 8), "w": (2, 2)}))
    assert analysis.groups == ()
    assert "shape" in {reason.kind for _, reason in analysis.resolution.freezes}


def test_channels_stay_beside_a_size_that_is_spread_only_where_it_is_one() -> None:
    """A list of sizes fits columns of one or four; it can name either, and with fewer rows no longer both."""
    proto = model(
        "(float[3,n] x) => (float[a,b] y) { t = Transpose (x)\n p = MatMul (t, first)\n h = Transpose (p)\n"
        " e = Expand (h, to)\n s = Transpose (e)\n y = MatMul (s, last) }",
        {"first": (3, 3), "last": (3, 2)},
        to=[3, 4],
    )
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    assert api.analyze(api.load(proto), api.AnalyzeOptions({"x": (3, 1)})).groups == ()
