# SPDX-License-Identifier: Apache-2.0
"""Operators in the combinations that exporters write: how many channels are free, and that pruning them is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto
from oracle_check import analyze, check
from tiny_models import chain, model

EPSILON = np.float32(1e-3)
VECTOR = (8, 1, 1)


def _classifier(text: str, features: int, weights: dict[str, tuple[int, ...]] | None = None, **c: Any) -> ModelProto:
    """Classify (2, 8, 2, 3) positions."""
    text = f"(float[2,3,2,3] x) => (float[] y) {{ h = Conv (x, first) {text} y = MatMul (m, last) }}"
    return model(text, {"first": (8, 3, 1, 1), "last": (features, 2), **(weights or {})}, **c)


FLAT = "f = Flatten (h)"
PERMUTED = np.random.default_rng(0).permutation(48)
FLATTENED = {
    "bias": (_classifier(f"{FLAT} m = Add (f, b)", 48, {"b": (48,)}), [8]),
    "scale-channels-last": (
        _classifier("t = Transpose <perm = [0, 2, 3, 1]> (h) f = Flatten (t) m = Mul (f, b)", 48, {"b": (1, 48)}),
        [8],
    ),
    "split-between-channels": (_classifier(f"{FLAT} a, m = Split <axis = 1> (f, p)", 36, p=[12, 36]), [2, 6]),
    "split-within-a-channel": (_classifier(f"{FLAT} a, m = Split <axis = 1> (f, p)", 35, p=[13, 35]), [2, 5]),
    "slice": (_classifier(f"{FLAT} m = Slice (f, s, e, a)", 24, s=[6], e=[30], a=[1]), [4, 4]),
    "pad": (_classifier(f"{FLAT} m = Pad (f, p)", 51, p=[0, 1, 0, 2]), [8, 3]),
    "permute": (_classifier(f"{FLAT} m = Gather <axis = 1> (f, i)", 48, i=PERMUTED), [8]),
    "tile": (_classifier(f"{FLAT} m = Tile (f, r)", 96, r=[1, 2]), [8]),
    "twice": (_classifier(f"{FLAT} m = Concat <axis = 1> (f, f)", 96), [8]),
    "back": (_classifier(f"{FLAT} r = Reshape (f, s) q = Relu (r) m = Flatten (q)", 48, s=[2, 8, 3, 2]), [8]),
    "back-to-halves": (_classifier(f"{FLAT} r = Reshape (f, s) q = Relu (r) m = Flatten (q)", 48, s=[2, 16, 3]), [8]),
}

REGROUPED = {
    "mean-over-groups": (
        chain(
            "r = Reshape (h, a) s = ReduceMean (r, x1) m = Reshape (s, b)",
            after=4,
            opset=18,
            a=[2, 2, 4, 6, 6],
            x1=[1],
            b=[2, 4, 6, 6],
        ),
        [4],
    ),
    "maximum-over-groups": (
        chain("r = Reshape (h, a) m = ReduceMax <keepdims = 0> (r, x1)", after=4, opset=18, a=[2, 2, 4, 6, 6], x1=[1]),
        [4],
    ),
    "channels-as-batch": (
        chain(
            "r = Reshape (h, a) q = Conv (r, one) m = Reshape (q, b)",
            {"one": (1, 1, 3, 3)},
            a=[16, 1, 6, 6],
            b=[2, 8, 4, 4],
        ),
        [8],
    ),
    "group-normalization-spelt-out": (
        chain(
            "sh = Shape (h) r = Reshape (h, a) n = InstanceNormalization (r, s, b) q = Reshape (n, sh) m = Mul (q, g)",
            {"s": (4,), "b": (4,), "g": VECTOR},
            a=[0, 4, -1],
        ),
        [4],
    ),
    "outer-product": (
        model(
            """(float[2,3] x) => (float[] y) {
                a = MatMul (x, wa) b = MatMul (x, wb)
                u = Unsqueeze (a, l) v = Unsqueeze (b, k)
                p = Mul (u, v) f = Flatten (p) y = MatMul (f, last)
            }""",
            {"wa": (3, 8), "wb": (3, 6), "last": (48, 2)},
            l=[2],
            k=[1],
        ),
        [8],  # of two axes that merge, one carries the channels
    ),
    "channels-against-themselves": (
        model(
            """(float[2,3,4,4] x) => (float[] y) {
                h = Conv (x, first) r = Reshape (h, s) t = Transpose <perm = [0, 2, 1]> (r)
                g = MatMul (r, t) f = Flatten (g) y = MatMul (f, last)
            }""",
            {"first": (8, 3, 1, 1), "last": (64, 2)},
            s=[2, 8, 16],
        ),
        [],
    ),
    "added-to-its-transpose": (
        model(
            """(float[2,3,8] x) => (float[] y) {
                h = Conv (x, first) t = Transpose <perm = [0, 2, 1]> (h) m = Add (h, t) y = Conv (m, last)
            }""",
            {"first": (8, 3, 1), "last": (2, 8, 1)},
        ),
        [],
    ),
    "halves-computed-from-the-shape": (
        chain(
            """s = Shape (h) c = Gather (s, one) d = Add (c, one) e = Div (d, two) g = Mul (e, two)
            a = Slice (h, zero, e, one) b = Slice (h, e, g, one) m = Mul (a, b)""",
            after=4,
            one=[1],
            two=[2],
            zero=[0],
        ),
        [4],
    ),
}

CONSTANTS = {
    "sum-of-two": (chain("a = Add (k, l) m = Add (h, a)", {"k": VECTOR, "l": VECTOR}), [8]),
    "joined": (chain("q = Concat <axis = 0> (k, l) m = Mul (h, q)", {"k": (3, 1, 1), "l": (5, 1, 1)}), [8]),
    "halves": (chain("k, l = Split <axis = 0> (w, p) a = Mul (h, k) m = Add (a, l)", {"w": (16, 1, 1)}, p=[8, 8]), [8]),
    "part": (chain("k = Slice (w, z, e, z) m = Mul (h, k)", {"w": (16, 1, 1)}, z=[0], e=[8]), [8]),
    "bias-without-spatial-axes": (chain("u = Unsqueeze (b, s) m = Add (h, u)", {"b": (8,)}, s=[1, 2]), [8]),
    "bias-behind-one-unsqueeze-for-two": (
        chain(
            "u = Unsqueeze (b, s) a = Add (h, u) c = Conv (a, w) m = Add (c, u)",
            {"b": (8,), "w": (8, 8, 1, 1)},
            s=[1, 2],
        ),
        [8, 8],
    ),
    "normalization-computed-from-its-vectors": (
        chain(
            "e = Add (var, eps) q = Sqrt (e) g = Div (s, q) u = Reshape (g, to) m = Mul (h, u)",
            {"var": (8,), "s": (8,)},
            eps=EPSILON,
            to=[1, -1, 1, 1],
        ),
        [8],
    ),
    "one-vector-in-every-role": (
        chain(
            "n = BatchNormalization (h, s, b, b, var) c = Conv (n, w, b) m = BatchNormalization (c, s, b, b, var)",
            {"s": (8,), "b": (8,), "var": (8,), "w": (8, 8, 1, 1)},
        ),
        [8, 8],
    ),
    "two-parts-of-one-weight": (
        chain(
            "k = Slice (w, z, e, z) l = Slice (w, e, f, z) a = Conv (h, k) b = Conv (h, l) m = Add (a, b)",
            {"w": (16, 8, 1, 1)},
            z=[0],
            e=[8],
            f=[16],
        ),
        [8, 8],
    ),
    "weight-of-two-parts": (
        chain("w = Concat <axis = 0> (k, l) m = Conv (h, w)", {"k": (3, 8, 1, 1), "l": (5, 8, 1, 1)}),
        [8, 8],
    ),
    "one-filter-for-all-channels": (
        chain("w = Expand (k, to) m = Conv <group = 8> (h, w)", {"k": (1, 1, 3, 3)}, to=[8, 1, 3, 3]),
        [8],
    ),
    "table-that-is-also-the-classifier": (
        model(
            """(int64[2,5] i) => (float[] y) {
                h = Gather (table, i) t = Transpose (table) m = MatMul (h, mid) r = Relu (m) y = MatMul (r, t)
            }""",
            {"table": (20, 8), "mid": (8, 8)},
        ),
        [8],
    ),
    "layer-normalization-spelt-out": (
        chain(
            """u = ReduceMean (h, c) d = Sub (h, u) p = Mul (d, d) v = ReduceMean (p, c)
            e = Add (v, eps) s = Sqrt (e) m = Div (d, s)""",
            opset=18,
            c=[1],
            eps=EPSILON,
        ),
        [],
    ),
    "cosine": (
        chain("n = ReduceL2 (h, c) k = Clip (n, low) m = Div (h, k)", opset=18, c=[1], low=np.float32(1e-6)),
        [8],
    ),
    "exponential-of-removed-channels": (
        chain("e = Exp (h) m = Conv (e, w)", {"w": (8, 8, 1, 1)}),
        [8, 8],  # what the activation makes of nothing must not leak into the sum
    ),
    "two-outputs-of-one-weight": (
        model(
            """(float[2,3,4,4] x) => (float[] y, float[] z) {
                h = Conv (x, first) y = Conv (h, last) q = Conv (h, last) z = Identity (q)
            }""",
            {"first": (8, 3, 1, 1), "last": (2, 8, 1, 1)},
        ),
        [8],
    ),
}

ALL = {
    f"{family}-{name}": case
    for family, cases in (("flat", FLATTENED), ("regroup", REGROUPED), ("constant", CONSTANTS))
    for name, case in cases.items()
}


@pytest.mark.parametrize("name", ALL)
def test_together(name: str) -> None:
    proto, sizes = ALL[name]
    analysis = analyze(proto)
    assert analysis.grouping.sizes.tolist() == sizes
    if sizes:
        halved = check(analysis)
        assert halved.effect > 1e-3
        one = np.zeros_like(halved.keep)
        one[analysis.grouping.starts[1:] - 1] = True
        check(analysis, one, seed=1)
