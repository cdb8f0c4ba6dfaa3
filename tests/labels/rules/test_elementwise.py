# SPDX-License-Identifier: Apache-2.0
"""Rules of operators that treat every element on its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from oracle_check import analyze, check
from rule_cases import BOTH, Case, Stays, rule_tests
from tiny_models import chain, model

from graphprune.labels.rules.elementwise import BROADCASTING, UNARY

CHANNEL = (8, 1, 1)


def _constant(op: str, order: str = "h, k", shape: tuple[int, ...] = CHANNEL, axis: int = 0) -> Case:
    name = f"{op}-{order.replace(', ', '-')}-{'x'.join(map(str, shape)) or 'scalar'}"
    key = "var_k"
    text = f"m = {op} ({order.replace('k', key)})"
    members = f"{BOTH}, {key}.{axis} per_channel" if any(size > 1 for size in shape) else BOTH
    return Case(name, chain(text, {key: shape}), {"h": (8, members)})


def _two(op: str, middle: str = "") -> Case:
    text = f"a = Conv (x, second)\n {middle or f'm = {op} (h, a)'}"
    return Case(f"{op}-two-activations", chain(text, {"second": (8, 3, 1, 1)}), {"h": (8, f"{BOTH}, second.0 out")})


CASES = [
    *[
        Case(op, chain(f"m = {op} (h)"))
        for op in ("Abs", "Relu", "Sigmoid", "Exp", "Neg", "Elu", "Identity", "Softplus", "HardSwish", "Dropout", "Sin")
    ],
    Case("Sqrt-of-Abs", chain("a = Abs (h)\n m = Sqrt (a)")),
    Case("Log-of-Exp", chain("e = Exp (h)\n m = Log (e)")),
    Case("Clip", chain("m = Clip (h, low, high)", low=np.float32(-0.5), high=np.float32(0.7))),
    Case("Clip-without-bounds", chain("m = Clip (h)")),
    Case("Clip-max-only", chain("m = Clip (h, , high)", high=np.float32(0.7))),
    Case("Cast", chain("d = Cast <to = 11> (h)\n m = Cast <to = 1> (d)")),
    Case("CastLike", chain("m = CastLike (h, x)")),
    Case("Gelu", chain('m = Gelu <approximate = "tanh"> (h)', opset=20)),
    Case("Dropout-with-mask", chain("d, mask = Dropout (h)\n f = Cast <to = 1> (mask)\n m = Mul (d, f)")),
    *[_constant(op) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "PRelu")],
    Case(
        "Pow-constant-exponent",
        chain("p = Abs (h)\n m = Pow (p, var_k)", {"var_k": CHANNEL}),
        {"h": (8, f"{BOTH}, var_k.0 per_channel")},
    ),
    *[_constant(op, "k, h") for op in ("Add", "Sub", "Mul")],
    _constant("Add", shape=()),
    _constant("Add", shape=(1, 1)),
    _constant("Mul", shape=(1, 8, 1, 1), axis=1),
    _constant("Mul", shape=(1, 8, 1, 6), axis=1),
    _constant("Mul", shape=(2, 8, 6, 6), axis=1),
    *[_two(op) for op in ("Add", "Sub", "Mul", "Max", "Min")],
    _two("Sum", "m = Sum (h, a, h)"),
    _two("Mean", "m = Mean (h, a)"),
    _two("Div", "p = Exp (a)\n m = Div (h, p)"),
    _two("Less", "c = Less (h, a)\n m = Where (c, h, a)"),
    _two("Equal", "c = Greater (h, a)\n n = Not (c)\n f = Cast <to = 1> (n)\n m = Mul (f, h)"),
    _two("PRelu", "m = PRelu (h, a)"),
    Case(
        "Where-constant-condition",
        chain("m = Where (mask, h, k)", {"k": (8, 6, 6)}, mask=np.array([True, False] * 4).reshape(8, 1, 1)),
        {"h": (8, f"{BOTH}, mask.0 per_channel, k.0 per_channel")},
    ),
    Case(
        "gate-per-channel",
        chain(
            "p = GlobalAveragePool (h)\n q = Conv (p, gate)\n s = Sigmoid (q)\n m = Mul (h, s)", {"gate": (8, 8, 1, 1)}
        ),
        {"h": (8, f"{BOTH}, gate.0 out, gate.1 in")},
    ),
    Case(
        "one-channel-is-spread",
        chain("a = Conv (x, one)\n m = Mul (h, a)", {"one": (1, 3, 1, 1)}),
    ),
    Case(
        # A constant may make channels of its own: here from one channel.
        "constant-makes-channels",
        model(
            "(float[2,1,6,6] x) => (float[] y) { h = Mul (x, scale)\n m = Relu (h)\n y = Conv (m, last) }",
            {"scale": (1, 8, 1, 1), "last": (2, 8, 1, 1)},
        ),
        {"h": (8, "scale.1 per_channel, last.1 in")},
    ),
    Case(
        "activations-of-different-rank",
        model(
            """(float[5,3] x, float[4,5,3] z) => (float[] y) {
                a = MatMul (x, first)
                b = MatMul (z, second)
                m = Add (a, b)
                y = MatMul (m, last)
            }""",
            {"first": (3, 8), "second": (3, 8), "last": (8, 2)},
        ),
        {"a": (8, "first.1 out, second.1 out, last.0 in")},
    ),
    Case(
        # Exporters merge equal constants: sharing one must not couple its readers.
        "shared-constant-does-not-couple",
        chain("a = Add (h, k)\n c = Conv (a, middle)\n m = Add (c, k)", {"k": CHANNEL, "middle": (8, 8, 1, 1)}),
        {
            "h": (8, "first.0 out, k.0 per_channel, middle.1 in"),
            "c": (8, "middle.0 out, k.0 per_channel, last.1 in"),
        },
    ),
]

STAYS = [
    Stays(
        "added-to-the-input",
        model(
            """(float[2,8,6,6] x) => (float[] y) {
                h = Conv (x, first)
                a = Add (h, x)
                m = Conv (a, middle)
                y = Conv (m, last)
            }""",
            {"first": (8, 8, 1, 1), "middle": (6, 8, 1, 1), "last": (2, 6, 1, 1)},
        ),
        ("fixed axis", "a"),
        groups={"m": (6, "middle.0 out, last.1 in")},
    ),
    Stays(
        "unknown-operator",
        model(
            """(float[2,3,6,6] x) => (float[2,2,6,6] y) {
                g = Conv (x, zero)
                h = Conv (g, first)
                m = com.example.Whiten (h)
                y = Conv (m, last)
            }""",
            {"zero": (5, 3, 1, 1), "first": (8, 5, 1, 1), "last": (2, 8, 1, 1)},
            domains=', "com.example": 1',
        ),
        ("unknown operator", "m"),
        groups={"g": (5, "zero.0 out, first.1 in")},
        runs=False,
    ),
]

test_keeps, test_numbers, test_freezes = rule_tests(CASES, STAYS)


@pytest.mark.parametrize(
    ("text", "opset"),
    [
        pytest.param("m = Clip <min = -0.5, max = 0.7> (h)", 7, id="Clip-attributes"),
        pytest.param("m = Clip (h, low, high)", 11, id="Clip-inputs"),
        pytest.param("m = Dropout <ratio = 0.3> (h)", 7, id="Dropout-attribute"),
        pytest.param("m = Dropout (h, ratio)", 12, id="Dropout-input"),
        pytest.param("m = PRelu (h, slope)", 7, id="PRelu-7"),
        pytest.param("m = PRelu (h, slope)", 16, id="PRelu-16"),
        pytest.param("m = HardSigmoid <alpha = 0.3> (h)", 7, id="HardSigmoid"),
        pytest.param("m = Mish (h)", 18, id="Mish-18"),
        pytest.param("m = Swish (h)", 24, id="Swish-24"),
    ],
)
def test_forms_of_operator_sets(text: str, opset: int) -> None:
    given = {"low": np.float32(-0.5), "high": np.float32(0.7), "ratio": np.float32(0.3)}
    used: dict[str, Any] = {name: value for name, value in given.items() if name in text and opset > 7}
    weights = {"slope": CHANNEL} if "slope" in text else {}
    analysis = analyze(chain(text, weights, opset=opset, **used))
    assert [group.size for group in analysis.groups] == [8]
    if opset < 24:  # the runtime does not know the latest operators yet
        assert check(analysis).effect > 1e-3


@pytest.mark.parametrize("name", [*UNARY, *BROADCASTING])
def test_operators_exist_and_are_elementwise(name: str) -> None:
    schema = onnx.defs.get_schema(name)
    assert schema.domain == ""
    assert len(schema.outputs) == 1 or name == "Dropout"


def test_shared_constant_gets_a_copy_per_reader() -> None:
    proto = chain("a = Add (h, k)\n c = Conv (a, middle)\n m = Add (c, k)", {"k": CHANNEL, "middle": (8, 8, 1, 1)})
    analysis = analyze(proto)
    keep = np.array([True] * 3 + [False] * 5 + [False] * 2 + [True] * 6)
    pruned = check(analysis, keep).pruned
    dims = {tensor.name: tuple(tensor.dims) for tensor in pruned.graph.initializer}
    used = [node.input[1] for node in pruned.graph.node if node.op_type == "Add"]
    assert [dims[name] for name in used] == [(3, 1, 1), (6, 1, 1)]
