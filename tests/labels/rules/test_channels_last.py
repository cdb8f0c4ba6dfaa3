# SPDX-License-Identifier: Apache-2.0
"""Integer operators whose channels come last, as onnxruntime's optimiser lays them out."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto
from oracle_check import analyze, check
from rule_cases import groups, reasons
from tiny_models import model

from graphprune.array_types import Array

CONTRIB = ', "com.microsoft": 1'
SCALES: dict[str, Array] = {
    **{name: np.asarray(value, dtype=np.float32) for name, value in {"xs": 0.03, "hs": 0.05, "ws": 0.02}.items()},
    "z": np.asarray(120, dtype=np.uint8),
    "wz": np.asarray(0, dtype=np.int8),
}


def _integers(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).integers(-90, 90, shape).astype(np.int8)


def _network(middle: str, **weights: Array) -> ModelProto:
    """Put nodes that make `m` of `h` between two quantised convolutions, channels last throughout."""
    text = f"""(float[1,6,6,3] x) => (float[n,a,b,2] y) {{
        q = QuantizeLinear (x, xs, z)
        h = com.microsoft.QLinearConv <channels_last = 1> (q, xs, z, first, ws, wz, hs, z)
        {middle}
        p = com.microsoft.QLinearConv <channels_last = 1> (m, hs, z, last, ws, wz, hs, z)
        y = DequantizeLinear (p, hs, z)
    }}"""
    given = {"first": _integers(8, 3, 3, 3), "last": _integers(2, 8, 1, 1), **weights}
    return model(text, domains=CONTRIB, **SCALES, **given)


PLAIN = frozenset({"first.0 out", "last.1 in"})
CASES = {
    "QLinearAveragePool": (
        "m = com.microsoft.QLinearAveragePool <channels_last = 1, kernel_shape = [2, 2]> (h, hs, z, hs, z)",
        {},
        {"h": (8, PLAIN)},
    ),
    "QLinearGlobalAveragePool": (
        "m = com.microsoft.QLinearGlobalAveragePool <channels_last = 1> (h, hs, z, hs, z)",
        {},
        {"h": (8, PLAIN)},
    ),
    "NhwcMaxPool": ("m = com.microsoft.NhwcMaxPool <kernel_shape = [2, 2]> (h)", {}, {"h": (8, PLAIN)}),
    "QLinearAdd": ("m = com.microsoft.QLinearAdd (h, hs, z, h, hs, z, hs, z)", {}, {"h": (8, PLAIN)}),
    "depthwise": (
        "m = com.microsoft.QLinearConv <channels_last = 1, group = 8, kernel_shape = [3, 3], pads = [1, 1, 1, 1]> "
        "(h, hs, z, d, ws, wz, hs, z)",
        {"d": _integers(8, 1, 3, 3)},
        {"h": (8, PLAIN | {"d.0 per_channel"})},
    ),
    "grouped": (
        "m = com.microsoft.QLinearConv <channels_last = 1, group = 4> (h, hs, z, d, ws, wz, hs, z)",
        {"d": _integers(8, 2, 1, 1)},
        {"h": (4, PLAIN | {"d.0 out"})},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_channels_on_the_last_axis_go(name: str) -> None:
    middle, weights, expected = CASES[name]
    analysis = analyze(_network(middle, **weights))
    assert groups(analysis) == expected
    assert check(analysis).effect > 1e-3


def test_space_stays() -> None:
    """A kernel that is larger than a point slides along the axes in the middle, and channels are the last one."""
    middle = "m = com.microsoft.QLinearConv <channels_last = 1> (h, hs, z, d, ws, wz, hs, z)"
    analysis = analyze(_network(middle, d=_integers(8, 8, 2, 2)))
    assert {name: size for name, (size, _) in groups(analysis).items()} == {"h": 8, "m": 8}
    assert all(axis.live == (at == 3) for at, axis in enumerate(analysis.scope.values["h"]))
    assert check(analysis).effect > 1e-3


def test_convolutions_without_a_cpu_kernel_stay() -> None:
    text = """(float[1,6,6,3] x) => (float[1,6,6,2] y) {
        h = MatMul (x, first)
        m = com.microsoft.NhwcConv (h, w)
        r = Relu (m)
        y = MatMul (r, last)
    }"""
    analysis = analyze(model(text, {"first": (3, 8), "w": (4, 8, 1, 1), "last": (4, 2)}, domains=CONTRIB))
    assert groups(analysis) == {}
    assert ("NhwcConv", "m") in reasons(analysis, "h", 3)
    assert [layer.node for layer in analysis.layers] == ["h", "m", "y"]
