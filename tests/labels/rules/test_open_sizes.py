# SPDX-License-Identifier: Apache-2.0
"""Open batch, image and sequence sizes: a model that was pruned with one size is right with another one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto
from oracle_check import analyze, check, halves, run
from tiny_models import model

from graphprune.errors import UnsupportedModelError
from graphprune.labels.resolve import Attention
from graphprune.surgery.prune import prune

Size = tuple[int, ...]

HEADS = """q0 = MatMul (x, wq) k0 = MatMul (x, wk) v0 = MatMul (x, wv)
    s = Shape (x) n = Gather (s, i0) t = Gather (s, i1)
    to = Concat <axis = 0> (n, t, four, six) back = Concat <axis = 0> (n, t, full)
    q1 = Reshape (q0, to) k1 = Reshape (k0, to) v1 = Reshape (v0, to)
    q2 = Transpose <perm = [0, 2, 1, 3]> (q1) v2 = Transpose <perm = [0, 2, 1, 3]> (v1)"""
SEPARATE = f"""(float[N,T,3] x) => (float[N,T,k] y) {{
    {HEADS}
    k2 = Transpose <perm = [0, 2, 3, 1]> (k1)
    a = MatMul (q2, k2) e = Shape (q2) d = Gather (e, i3) f = Cast <to = 1> (d) r = Sqrt (f) b = Div (a, r)
    p = Softmax <axis = 3> (b) o = MatMul (p, v2)
    o1 = Transpose <perm = [0, 2, 1, 3]> (o) o2 = Reshape (o1, back) y = MatMul (o2, last)
}}"""
FUSED = f"""(float[N,%s,3] x) => (float[N,u,k] y) {{
    {HEADS}
    k2 = Transpose <perm = [0, 2, 3, 1]> (k1)
    nh = Mul (n, four)
    c1 = Concat <axis = 0> (nh, t, six) c2 = Concat <axis = 0> (nh, six, t) c3 = Concat <axis = 0> (n, four, t, six)
    q = Reshape (q2, c1) k = Reshape (k2, c2) v = Reshape (v2, c1)
    a = MatMul (q, k) p = Softmax <axis = 2> (a) o = MatMul (p, v)
    o0 = Reshape (o, c3) o1 = Transpose <perm = [0, 2, 1, 3]> (o0) o2 = Reshape (o1, back) y = MatMul (o2, last)
}}"""


def _attention(text: str, opset: int = 17) -> ModelProto:
    weights = {"wq": (3, 24), "wk": (3, 24), "wv": (3, 24), "last": (24, 5)}
    return model(text, weights, opset=opset, i0=[0], i1=[1], i3=[3], four=[4], six=[6], full=[24])


def _assert_right_for(proto: ModelProto, size: Size, other: Size, attention: Attention = "heads") -> list[int]:
    """Prune with one size, run with another one; returns the sizes of the groups."""
    outcome = check(analyze(proto, attention=attention, x=size))
    wanted = check(analyze(proto, attention=attention, x=other), outcome.keep).values
    feeds = {"x": np.random.default_rng(0).standard_normal(other).astype(np.float32)}
    for name, value in run(outcome.pruned, feeds, list(wanted)).items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-3, atol=1e-4, err_msg=name)
    assert outcome.effect > 1e-3
    sizes: list[int] = outcome.analysis.grouping.sizes.tolist()
    return sizes


@pytest.mark.parametrize("opset", [9, 13, 21])
@pytest.mark.parametrize(("attention", "sizes"), [("heads", [4]), ("head-dim", [6, 6])])
def test_attention_over_any_number_of_tokens(opset: int, attention: Attention, sizes: list[int]) -> None:
    assert _assert_right_for(_attention(SEPARATE, opset), (1, 5, 3), (2, 7, 3), attention) == sizes


@pytest.mark.parametrize(("attention", "sizes"), [("heads", [4]), ("head-dim", [6, 6])])
def test_heads_beside_an_open_batch_on_one_axis(attention: Attention, sizes: list[int]) -> None:
    assert _assert_right_for(_attention(FUSED % 5), (1, 5, 3), (3, 5, 3), attention) == sizes


INFERRED = FUSED.replace("(nh, t, six)", "(nh, rest, six)").replace("(nh, six, t)", "(nh, six, rest)")
"""Heads beside the batch, tokens that are inferred: of two open sizes the graph computes the one that loses heads."""


@pytest.mark.parametrize("opset", [9, 17])
@pytest.mark.parametrize(("attention", "sizes"), [("heads", [4]), ("head-dim", [6, 6])])
def test_heads_beside_an_open_batch_and_inferred_tokens(opset: int, attention: Attention, sizes: list[int]) -> None:
    weights = {"wq": (3, 24), "wk": (3, 24), "wv": (3, 24), "last": (24, 5)}
    constants = {"i0": [0], "i1": [1], "i3": [3], "four": [4], "six": [6], "full": [24], "rest": [-1]}
    proto = model(INFERRED % "T", weights, opset=opset, **constants)
    assert _assert_right_for(proto, (1, 5, 3), (3, 7, 3), attention) == sizes
    assert _assert_right_for(proto, (2, 5, 3), (1, 7, 3), attention) == sizes


def test_a_share_is_kept_only_where_it_is_one_for_any_length() -> None:
    """Tokens of its own that stand beside those of the input are no share of all."""
    text = """(float[N,T,3] x) => (float[N,u,2] y) {
        h = MatMul (x, first) s = Shape (x) n = Gather (s, i0) t = Gather (s, i1) to = Concat <axis = 0> (n, five, one)
        e = Expand (token, to) m = Concat <axis = 1> (e, h) u = Add (t, five)
        f = Concat <axis = 0> (n, u, two, rest)
        p = Reshape (m, f) q = Relu (p) g = Concat <axis = 0> (n, u, eight) r = Reshape (q, g) y = MatMul (r, last)
    }"""
    constants = {"i0": [0], "i1": [1], "one": [1], "two": [2], "five": [5], "eight": [8], "rest": [-1]}
    proto = model(text, {"first": (3, 8), "token": (1, 5, 8), "last": (8, 2)}, **constants)
    assert 5 not in _assert_right_for(proto, (1, 3, 3), (3, 6, 3))


SIZES = "s = Shape (h) n = Gather (s, i0) c = Gather (s, i1) high = Gather (s, i2) wide = Gather (s, i3)"
SHUFFLE = "r = Reshape (h, to) t = Transpose <perm = [0, 2, 1, 3, 4]> (r)"


def _image(text: str, after: int = 8, weights: dict[str, Size] | None = None, **constants: Any) -> ModelProto:
    text = f"(float[N,3,H,W] x) => (float[N,k,a,b] y) {{ h = Conv (x, first) {SIZES} {text} y = Conv (m, last) }}"
    shapes = {"first": (8, 3, 1, 1), "last": (2, after, 1, 1), **(weights or {})}
    return model(text, shapes, i0=[0], i1=[1], i2=[2], i3=[3], one=[1], two=[2], rest=[-1], **constants)


IMAGES = {
    "shuffle": (
        _image(f"g = Div (c, two) to = Concat <axis = 0> (n, two, g, high, wide) {SHUFFLE} m = Reshape (t, s)"),
        [4],
    ),
    "shuffle-with-the-rest-computed": (
        _image(f"""to = Concat <axis = 0> (n, two, rest, high, wide) {SHUFFLE}
            b = Concat <axis = 0> (n, rest, high, wide) m = Reshape (t, b)"""),
        [4],
    ),
    "twice-the-size": (
        _image("""a = Mul (high, two) b = Mul (wide, two) to = Concat <axis = 0> (n, c, a, b)
            m = Resize (h, , , to)"""),
        [8],
    ),
    "crop": (_image("half = Div (high, two) m = Slice (h, zero, half, two)", zero=[0]), [8]),
    "mean-by-hand": (_image("f = Cast <to = 1> (c) q = ReduceSum (h, one) d = Div (q, f) m = Mul (h, d)"), [8]),
    "tile-over-space": (
        _image("by = Concat <axis = 0> (one, one, high, wide) p = GlobalAveragePool (h) m = Tile (p, by)"),
        [8],
    ),
    "expand-like": (_image("p = GlobalAveragePool (h) m = Expand (p, s)"), [8]),
    "halves": (
        _image(
            """g = Div (c, two) p = Concat <axis = 0> (g, g) a, b = Split <axis = 1> (h, p)
            q = Sigmoid (a) m = Mul (q, b)""",
            after=4,
        ),
        [4],
    ),
    "numbers-of-the-channels": (
        _image(
            "e = Squeeze (c, i0) r = Range (zero, e, step) f = Cast <to = 1> (r) u = Reshape (f, to) m = Add (h, u)",
            zero=np.int64(0),
            step=np.int64(1),
            to=[1, -1, 1, 1],
        ),
        [8],
    ),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images_of_any_size(name: str) -> None:
    proto, sizes = IMAGES[name]
    assert _assert_right_for(proto, (1, 3, 6, 4), (3, 3, 8, 6)) == sizes


def test_a_shuffle_with_literal_channels_of_any_image() -> None:
    """Kept counts are spliced into a target whose other elements the graph goes on computing."""
    text = f"to = Concat <axis = 0> (n, two, four, high, wide) {SHUFFLE} m = Reshape (t, s)"
    proto = _image(text, four=[4])
    assert _assert_right_for(proto, (1, 3, 6, 4), (3, 3, 8, 6)) == [4]
    pruned = check(analyze(proto, x=(1, 3, 6, 4))).pruned
    assert [node.op_type for node in pruned.graph.node].count("Where") == 1


def test_heads_beside_an_open_batch_and_open_tokens() -> None:
    assert _assert_right_for(_attention(FUSED % "T"), (1, 5, 3), (3, 7, 3)) == [4]


def test_what_no_list_of_integers_can_say_is_refused_before_where_exists() -> None:
    """Better no file than one that is right for a single size of its inputs."""
    text = f"(float[N,3,H,W] x) => (float[N,k,a,b] y) {{ h = Conv (x, first) {SIZES} "
    text += f"to = Concat <axis = 0> (n, two, four, high, wide) {SHUFFLE} m = Reshape (t, s) y = Conv (m, last) }}"
    weights = {"first": (8, 3, 1, 1), "last": (2, 8, 1, 1)}
    constants: dict[str, Any] = {"i0": [0], "i1": [1], "i2": [2], "i3": [3], "two": [2], "four": [4]}
    analysis = analyze(model(text, weights, opset=8, **constants), x=(1, 3, 6, 4))
    with pytest.raises(UnsupportedModelError, match="both the input size and a pruned width"):
        prune(analysis, halves(analysis))


STORED = {
    "expanded like an activation": (
        """(float[N,3,H,W] x) => (float[N,2,H,W] y) {
            h = Conv (x, first) s = Shape (h) e = Expand (scale, s) m = Mul (h, e) y = Conv (m, last)
        }""",
        {"first": (8, 3, 1, 1), "scale": (1, 8, 1, 1), "last": (2, 8, 1, 1)},
        ((2, 3, 4, 4), (3, 3, 6, 5)),
    ),
    "class token for every sample": (
        """(float[N,T,3] x) => (float[N,u,2] y) {
            h = MatMul (x, first) s = Shape (x) n = Gather (s, i0) to = Concat <axis = 0> (n, one, one)
            e = Expand (token, to) m = Concat <axis = 1> (e, h) y = MatMul (m, last)
        }""",
        {"first": (3, 8), "token": (1, 1, 8), "last": (8, 2)},
        ((2, 4, 3), (3, 6, 3)),
    ),
    "class token for a single sample, its width in figures": (
        """(float[N,T,3] x) => (float[N,u,2] y) {
            h = MatMul (x, first) s = Shape (x) n = Gather (s, i0) to = Concat <axis = 0> (n, one, eight)
            e = Expand (token, to) m = Concat <axis = 1> (e, h) y = MatMul (m, last)
        }""",
        {"first": (3, 8), "token": (1, 1, 8), "last": (8, 2)},
        ((1, 4, 3), (3, 6, 3)),
    ),
    "one token of fewer axes in every place, its width in figures": (
        """(float[N,T,3] x) => (float[N,u,2] y) {
            h = MatMul (x, first) s = Shape (x) n = Gather (s, i0) u = Gather (s, i1)
            to = Concat <axis = 0> (n, u, eight) e = Expand (token, to)
            m = Concat <axis = 1> (e, h) y = MatMul (m, last)
        }""",
        {"first": (3, 8), "token": (8,), "last": (8, 2)},
        ((1, 1, 3), (3, 6, 3)),
    ),
    "positions up to the length": (
        """(float[N,T,3] x) => (float[N,T,2] y) {
            h = MatMul (x, first) s = Shape (x) n = Gather (s, i1)
            p = Slice (positions, zero, n, one) m = Add (h, p) y = MatMul (m, last)
        }""",
        {"first": (3, 8), "positions": (1, 16, 8), "last": (8, 2)},
        ((2, 4, 3), (3, 6, 3)),
    ),
    "positions looked up by number": (
        """(float[N,T,3] x) => (float[N,T,2] y) {
            h = MatMul (x, first) s = Shape (x) n = Gather (s, t)
            at = Range (start, n, step) p = Gather (table, at) m = Add (h, p) y = MatMul (m, last)
        }""",
        {"first": (3, 8), "table": (16, 8), "last": (8, 2)},
        ((2, 4, 3), (3, 6, 3)),
    ),
}


def test_a_state_that_begins_with_zeros_for_every_sample_has_channels() -> None:
    """Cells that an exporter has written out one after the other."""
    text = """(float[N,T,3] x) => (float[N,2] y) {
        s = Shape (x) n = Gather (s, i0) to = Concat <axis = 0> (n, eight) zeros = ConstantOfShape (to)
        x0 = Gather <axis = 1> (x, t0) a0 = MatMul (x0, first) b0 = Gemm (zeros, again) c0 = Add (a0, b0) h0 = Tanh (c0)
        x1 = Gather <axis = 1> (x, t1) a1 = MatMul (x1, first) b1 = Gemm (h0, again) c1 = Add (a1, b1) h1 = Tanh (c1)
        y = MatMul (h1, last)
    }"""
    scalars = {"t0": np.int64(0), "t1": np.int64(1)}
    proto = model(text, {"first": (3, 8), "again": (8, 8), "last": (8, 2)}, i0=[0], eight=[8], **scalars)
    assert _assert_right_for(proto, (1, 4, 3), (3, 6, 3)) == [8]


@pytest.mark.parametrize("name", STORED)
def test_stored_data_that_is_as_large_as_an_activation_keeps_its_channels(name: str) -> None:
    text, weights, (size, other) = STORED[name]
    scalars = {"t": np.int64(1), "start": np.int64(0), "step": np.int64(1)}
    proto = model(text, weights, i0=[0], i1=[1], zero=[0], one=[1], eight=[8], **scalars)
    assert _assert_right_for(proto, size, other) == [8]


def test_query_heads_that_share_keys_and_values_go_one_by_one() -> None:
    """The j-th query head of every key head goes: keys are given, as from a cache, and spread over the queries."""
    text = """(float[N,T,3] x, float[N,2,S,6] k, float[N,2,S,6] v) => (float[N,T,y2] y) {
        s = Shape (x) n = Gather (s, i0) t = Gather (s, i1) z = Shape (k) u = Gather (z, i2)
        q0 = MatMul (x, wq) to = Concat <axis = 0> (n, t, eight, six) q1 = Reshape (q0, to)
        q = Transpose <perm = [0, 2, 1, 3]> (q1)
        wide = Concat <axis = 0> (n, two, four, u, six) flat = Concat <axis = 0> (n, eight, u, six)
        k1 = Unsqueeze (k, i2) k2 = Expand (k1, wide) k3 = Reshape (k2, flat)
        v1 = Unsqueeze (v, i2) v2 = Expand (v1, wide) v3 = Reshape (v2, flat)
        k4 = Transpose <perm = [0, 1, 3, 2]> (k3)
        a = MatMul (q, k4) p = Softmax <axis = 3> (a) o = MatMul (p, v3)
        o1 = Transpose <perm = [0, 2, 1, 3]> (o) back = Concat <axis = 0> (n, t, full)
        o2 = Reshape (o1, back) y = MatMul (o2, last)
    }"""
    indices: dict[str, list[int]] = {"i0": [0], "i1": [1], "i2": [2]}
    weights = {"wq": (3, 48), "last": (48, 5)}
    proto = model(text, weights, two=[2], four=[4], six=[6], eight=[8], full=[48], **indices)
    outcome = check(proto)
    assert outcome.analysis.grouping.sizes.tolist() == [4]
    assert outcome.effect > 1e-3


def test_an_image_need_not_be_a_square() -> None:
    """Height and width are alike by default, and still one of them must not be copied for the other."""
    text = f"to = Concat <axis = 0> (n, two, four, high, wide) {SHUFFLE} m = Reshape (t, s)"
    analysis = analyze(_image(text, four=[4]))
    assert analysis.input_shapes == {"x": (1, 3, 224, 224)}
    pruned = prune(analysis, halves(analysis))
    assert run(pruned, {"x": np.ones((1, 3, 4, 6), dtype=np.float32)}, ["r"])["r"].shape == (1, 2, 2, 4, 6)
