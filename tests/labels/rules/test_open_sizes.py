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
