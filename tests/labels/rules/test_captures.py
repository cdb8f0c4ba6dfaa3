# SPDX-License-Identifier: Apache-2.0
"""What bodies read of the graph around them and give back to it: weights, activations, sizes, names."""

from __future__ import annotations

import numpy as np
import pytest
from body_cases import HIDDEN, MLP, THREE, WEIGHTS, bodies, body_tests, loop
from fast_oracle import run
from onnx import ModelProto
from oracle_check import analyze, check
from rule_cases import Case, groups
from tiny_models import model

from graphprune.analysis.analysis import Analysis
from graphprune.errors import ModelFileError
from graphprune.model.load import load
from graphprune.model.values.bodies import flatten


def _with_weights_inside(proto: ModelProto, *names: str) -> ModelProto:
    """Move initializers of the graph into the body of its loop."""
    (body,) = bodies(proto)
    for tensor in [tensor for tensor in proto.graph.initializer if tensor.name in names]:
        body.initializer.append(tensor)
        proto.graph.initializer.remove(tensor)
    return proto


CASES = [
    Case("loop-captured-weights", model(loop(MLP.format("s", "t")), WEIGHTS, **THREE), HIDDEN),
    Case(
        "loop-own-weights",
        _with_weights_inside(model(loop(MLP.format("s", "t")), WEIGHTS, **THREE), "up", "bias", "down"),
        HIDDEN,
    ),
    Case(
        "loop-captured-activation",
        model(
            """(float[2,4] x) => (float[2,4] y) {
                h = MatMul (x, up)
                r = Relu (h)
                y = Loop (three, , x) <body = step (int64 i, bool go, float[2,4] s) => (bool on, float[2,4] t) {
                    on = Identity (go)
                    m = MatMul (r, down)
                    t = Add (m, s)
                }>
            }""",
            {"up": (4, 8), "down": (8, 4)},
            **THREE,
        ),
        {"h": (8, "up.1 out, down.0 in")},
    ),
    Case(
        "same-names-in-two-bodies",
        model(
            """(float[2,4] x) => (float[2,4] y) {
                m = Loop (three, , x) <body = one (int64 i, bool go, float[2,4] s) => (bool on, float[2,4] t) {
                    on = Identity (go) a = MatMul (s, up) c = Relu (a) t = MatMul (c, down)
                }>
                n = Tanh (m)
                y = Loop (three, , n) <body = two (int64 i, bool go, float[2,4] s) => (bool on, float[2,4] t) {
                    on = Identity (go) a = MatMul (s, up2) c = Relu (a) t = MatMul (c, down2)
                }>
            }""",
            {"up": (4, 8), "down": (8, 4), "up2": (4, 6), "down2": (6, 4)},
            **THREE,
        ),
        {"a": (8, "up.1 out, down.0 in"), "a@2": (6, "up2.1 out, down2.0 in")},
    ),
]

test_layers_inside_are_free, test_numbers, test_files, test_nothing_removed = body_tests(CASES)


def test_a_body_that_gives_the_size_of_something_pruned_goes_on_giving_it() -> None:
    text = """(float[2,4] x) => (int64[2] sizes, float[2,4] y) {
        start = Shape (x)
        sizes, y = Loop (three, , start, x) <body = step (int64 i, bool go, int64[2] k, float[2,4] s)
            => (bool on, int64[2] size, float[2,4] t)
        {
            on = Identity (go) a = MatMul (s, up) c = Relu (a) size = Shape (c) t = MatMul (c, down)
        }>
    }"""
    found = check(model(text, {"up": (4, 8), "down": (8, 4)}, **THREE))
    assert [group.size for group in found.after.groups] == [4]
    assert found.effect > 1e-3
    assert run(found.pruned, {"x": np.ones((2, 4), dtype=np.float32)})["sizes"].tolist() == [2, 8]


def test_a_weight_that_a_body_gives_stays_whole() -> None:
    text = loop("w = Identity (up) a = MatMul (s, w) c = Relu (a) t = MatMul (c, down)", "three, , x, other")
    text = text.replace("float[2,4] s)", "float[2,4] s, float[4,8] k)").replace(
        "float[2,4] t)", "float[2,4] t, float[4,8] w)"
    )
    analysis = analyze(
        model(text.replace("y = Loop", "y, z = Loop"), {"up": (4, 8), "down": (8, 4), "other": (4, 8)}, **THREE)
    )
    assert groups(analysis) == {}


def test_a_body_that_does_not_fit_is_refused() -> None:
    proto = model(loop("t = MatMul (x, up)"), {"up": (4, 4)}, **THREE)
    (body,) = bodies(proto)
    body.input.pop()
    assert flatten(proto).is_flat
    with pytest.raises(ModelFileError, match=r"Loop, node name: y.* 2 inputs but 3 were provided"):
        Analysis(load(proto))
