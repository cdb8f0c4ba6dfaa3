# SPDX-License-Identifier: Apache-2.0
"""Rules of operators that onnxruntime's optimiser makes: those of their parts."""

from __future__ import annotations

import pytest
from onnx import ModelProto
from oracle_check import analyze, check
from rule_cases import BOTH, Case, Stays, groups, reasons, rule_tests
from tiny_models import chain, model

from graphprune.analysis.analysis import Analysis
from graphprune.model.load import load

CONTRIB = ', "com.microsoft": 1'


def _fused(nodes: str, **weights: tuple[int, ...]) -> ModelProto:
    return chain(nodes, weights, domains=CONTRIB)


def _rows(nodes: str, *, size: int = 8, **weights: tuple[int, ...]) -> ModelProto:
    """Put nodes that make `m` of `h` between two products, so that the channels of `h` are free."""
    text = f"""(float[2,5,3] x) => (float[2,5,2] y) {{
        h = MatMul (x, first)
        {nodes}
        y = MatMul (m, last)
    }}"""
    return model(text, {"first": (3, 8), "last": (size, 2), **weights}, domains=CONTRIB)


@pytest.mark.parametrize(
    ("node", "bias"),
    [
        ("Gelu (h)", False),
        ("QuickGelu (h)", False),
        ("FastGelu (h)", False),
        ("FastGelu (h, b)", True),
        ("BiasGelu (h, b)", True),
    ],
)
def test_activations_pass(node: str, bias: bool) -> None:
    outcome = check(_rows(f"m = com.microsoft.{node}", **({"b": (8,)} if bias else {})))
    expected = {"first.1 out", "last.0 in", *(["b.0 per_channel"] if bias else [])}
    assert groups(outcome.analysis) == {"h": (8, frozenset(expected))}
    assert outcome.effect > 1e-3


RELU = '<activation = "Relu">'
PASSES = [
    Case(
        "FusedConv",
        _fused(f"c = com.microsoft.FusedConv {RELU} (h, w, b) m = Relu (c)", w=(8, 8, 1, 1), b=(8,)),
        {"h": (8, "first.0 out, w.1 in"), "c": (8, "w.0 out, b.0 per_channel, last.1 in")},
    ),
    Case(
        "FusedConv that adds a residual",
        _fused(f"m = com.microsoft.FusedConv {RELU} (h, w, b, h)", w=(8, 8, 1, 1), b=(8,)),
        {"h": (8, "first.0 out, w.0 out, w.1 in, b.0 per_channel, last.1 in")},
    ),
    Case(
        "FusedConv that adds a constant",
        _fused(f"m = com.microsoft.FusedConv {RELU} (h, w, , z)", w=(8, 8, 1, 1), z=(2, 8, 6, 6)),
        {"h": (8, "first.0 out, w.1 in"), "m": (8, "w.0 out, z.1 per_channel, last.1 in")},
    ),
    Case(
        "depthwise FusedConv",
        _fused(
            'm = com.microsoft.FusedConv <activation = "LeakyRelu", activation_params = [0.1], group = 8, '
            "kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (h, w)",
            w=(8, 1, 3, 3),
        ),
        {"h": (8, f"{BOTH}, w.0 per_channel")},
    ),
    Case(
        "FusedMatMul",
        _rows("m = com.microsoft.FusedMatMul <alpha = 0.5> (h, w)", w=(8, 8)),
        {"h": (8, "first.1 out, w.0 in"), "m": (8, "w.1 out, last.0 in")},
    ),
    Case(
        "FusedMatMul with transposed weights",
        _rows("m = com.microsoft.FusedMatMul <transB = 1> (h, w)", size=6, w=(6, 8)),
        {"h": (8, "first.1 out, w.1 in"), "m": (6, "w.0 out, last.0 in")},
    ),
    Case(
        "FusedMatMul of two activations",
        _rows("s = com.microsoft.FusedMatMul <transB = 1, alpha = 0.3> (h, h) m = MatMul (s, h)"),
        {"h": (8, "first.1 out, last.0 in")},
    ),
    Case(
        "FusedMatMul that reads columns",
        _rows("s = com.microsoft.FusedMatMul <transA = 1> (h, h) m = MatMul (h, s)"),
        {"h": (8, "first.1 out, last.0 in")},
    ),
]


GEMM = """(float[2,3] x) => (float[2,2] y) {
    h = com.microsoft.FusedGemm <activation = "Relu", transB = 1> (x, first, b)
    y = com.microsoft.FusedGemm <activation = "Sigmoid"> (h, last)
}"""
PASSES.append(
    Case(
        "FusedGemm",
        model(GEMM, {"first": (8, 3), "b": (8,), "last": (8, 2)}, domains=CONTRIB),
        {"h": (8, "first.0 out, b.0 per_channel, last.0 in")},
    )
)
STAYS = [
    Stays(
        "SkipLayerNormalization",
        _rows("m = com.microsoft.SkipLayerNormalization (h, h, g)", g=(8,)),
        ("SkipLayerNormalization", "m"),
        ("h", 2),
    ),
    Stays(
        "SkipSimplifiedLayerNormalization",
        _rows("m = com.microsoft.SkipSimplifiedLayerNormalization (h, h, g)", g=(8,)),
        ("SkipSimplifiedLayerNormalization", "m"),
        ("h", 2),
    ),
    Stays(
        "FusedMatMul that moves batch axes",
        _rows(
            "t = Transpose <perm = [1, 0, 2]> (h) m = com.microsoft.FusedMatMul <transBatchA = 1> (t, w)", w=(2, 8, 8)
        ),
        ("FusedMatMul", "m"),
        ("h", 2),
    ),
]


test_keeps, test_numbers, test_freezes = rule_tests(PASSES, STAYS)


def _stream(op: str, norm: str, weights: dict[str, tuple[int, ...]]) -> ModelProto:
    """Return a residual stream with a branch that is added inside the normalisation."""
    text = f"""(float[2,5,3] x) => (float[2,5,2] y) {{
        h = MatMul (x, first)
        u = MatMul (h, up)
        r = Relu (u)
        d = MatMul (r, down)
        m, mean, deviation, s = com.microsoft.{op} <epsilon = 0.001> ({norm})
        p = MatMul (m, more)
        t = Add (s, p)
        y = MatMul (t, last)
    }}"""
    text = text.replace("m, mean, deviation, s", "m, , , s")
    shapes = {"first": (3, 8), "up": (8, 6), "down": (6, 8), "more": (8, 8), "last": (8, 2)}
    return model(text, {**shapes, **weights}, domains=CONTRIB)


STREAMS = [
    ("SkipLayerNormalization", "d, h, g, b, c", {"g": (8,), "b": (8,), "c": (8,)}),
    ("SkipLayerNormalization", "d, h, g", {"g": (8,)}),
    ("SkipSimplifiedLayerNormalization", "h, d, g, c", {"g": (8,), "c": (8,)}),
]


@pytest.mark.parametrize(("op", "norm", "weights"), STREAMS)
def test_channels_beside_a_normalised_stream_go(op: str, norm: str, weights: dict[str, tuple[int, ...]]) -> None:
    outcome = check(_stream(op, norm, weights))
    assert groups(outcome.analysis) == {"u": (6, frozenset({"up.1 out", "down.0 in"}))}
    assert outcome.effect > 1e-3


@pytest.mark.parametrize(("op", "norm", "weights"), STREAMS)
def test_a_stream_goes_approximately(op: str, norm: str, weights: dict[str, tuple[int, ...]]) -> None:
    analysis = Analysis(load(_stream(op, norm, weights)), approximate=True)
    assert [(group.name, group.size, group.exact) for group in analysis.groups] == [("h", 8, False), ("u", 6, True)]
    assert check(analysis).effect > 1e-3


@pytest.mark.parametrize("op", ["SimplifiedLayerNormalization", "LayerNormalization"])
def test_normalisations_that_onnx_lacks_are_those_of_later_versions(op: str) -> None:
    text = f"""(float[2,5,3] x) => (float[2,5,2] y) {{
        h = MatMul (x, first)
        u = MatMul (h, up)
        r = Relu (u)
        d = MatMul (r, down)
        n = {op} <axis = -1, epsilon = 0.001> (d, g)
        y = MatMul (n, last)
    }}"""
    weights = {"first": (3, 8), "up": (8, 6), "down": (6, 8), "g": (8,), "last": (8, 2)}
    proto = model(text, weights, opset=15)
    members = {"h": (8, frozenset({"first.1 out", "up.0 in"})), "u": (6, frozenset({"up.1 out", "down.0 in"}))}
    assert groups(analyze(proto)) == members
    assert check(proto).effect > 1e-3
    assert len(groups(Analysis(load(proto), approximate=True))) == 3
    assert check(Analysis(load(proto), approximate=True)).effect > 1e-3


def _experts(activation: str = "gelu", *, third: bool = False, biases: bool = True) -> ModelProto:
    """Return a layer of four experts between two products; two experts see each row."""
    fused = activation == "swiglu"
    text = f"""(float[5,3] x, float[5,4] router) => (float[5,2] y) {{
        h = MatMul (x, first)
        m = com.microsoft.MoE <activation_type = "{activation}", k = 2{", swiglu_fusion = 1" * fused}>
            (h, router, up, {"b" * biases}, down, {"c" * biases}{", third" * third})
        y = MatMul (m, last)
    }}"""
    weights = {"first": (3, 8), "up": (4, 12 if fused else 6, 8), "down": (4, 8, 6), "last": (8, 2)}
    weights.update({"b": (4, 12 if fused else 6), "c": (4, 8)} if biases else {})
    return model(text, {**weights, **({"third": (4, 6, 8)} if third else {})}, domains=CONTRIB)


@pytest.mark.parametrize(
    ("proto", "hidden"),
    [
        (_experts(), "up.1 out, b.1 per_channel, down.2 in"),
        (_experts("silu", biases=False), "up.1 out, down.2 in"),
        (_experts("swiglu"), "up.1 out, b.1 per_channel, down.2 in"),
    ],
)
def test_experts_lose_hidden_units(proto: ModelProto, hidden: str) -> None:
    outcome = check(proto)
    found = groups(outcome.analysis)
    stream = {"first.1 out", "up.2 in", "down.1 out", "last.0 in", *(["c.1 per_channel"] if "b.1" in hidden else [])}
    assert found["h"] == (8, frozenset(stream)), "onnxruntime gives as many channels as it is given"
    assert found["m"] == (6, frozenset(hidden.split(", ")))
    assert outcome.effect > 1e-3


def test_experts_with_gates_of_their_own_stay() -> None:
    analysis = analyze(_experts("silu", third=True))
    assert groups(analysis) == {}
    assert ("MoE", "m") in reasons(analysis, "h", 1)
    assert [layer.flops(analysis.cost.sizes) for layer in analysis.layers][1] == 2 * 5 * 2 * 3 * 8 * 6


def test_what_has_no_rule_says_where_it_may_come_from() -> None:
    """Its shape comes from a run, so that what follows is pruned."""
    text = "t = com.microsoft.Trilu (h)\n r = Relu (t)\n g = Conv (r, middle)\n m = Relu (g)"
    analysis = analyze(chain(text, {"middle": (8, 8, 1, 1)}, domains=CONTRIB))
    assert list(groups(analysis)) == ["g"]
    (barrier,) = analysis.scope.space.barriers.values()
    assert barrier.text == "Trilu has no rule: if an optimiser made it, prune the model before"
