# SPDX-License-Identifier: Apache-2.0
"""Ranges: what a network computes lies within the bounds that are found without running it."""

from __future__ import annotations

import numpy as np
import pytest
from fast_oracle import feeds, run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from random_models import Case, models
from random_properties import examples
from tiny_models import chain

from graphprune.analysis.analysis import Analysis
from graphprune.model.load import load
from graphprune.rewrites.ranges import find_ranges
from graphprune.rewrites.ranges.interval import Interval

INF = np.inf


@examples(60)
@given(models())
def test_what_random_networks_compute_lies_within_its_range(case: Case) -> None:
    analysis = Analysis(load(case.proto))
    ranges = find_ranges(analysis)
    inputs = feeds(analysis)
    for name, value in run(case.proto, {name: 3 * value for name, value in inputs.items()}, intermediates=True).items():
        if (
            name not in analysis.shapes.dims
            or value.dtype != np.float32
            or name in analysis.shapes.constant
            or not value.ndim
            or not value.size
        ):
            continue
        room = 1e-4 * (1 + float(np.abs(value[np.isfinite(value)]).max(initial=0.0)))
        for axis in range(value.ndim):
            found = ranges.along(name, axis)
            rest = tuple(at for at in range(value.ndim) if at != axis)
            assert (value.min(axis=rest) >= found.low - room).all(), f"{name} axis {axis}"
            assert (value.max(axis=rest) <= found.high + room).all(), f"{name} axis {axis}"


@pytest.mark.parametrize(
    ("middle", "low", "high"),
    [
        ("m = Sigmoid (h)", 0, 1),
        ("m = Tanh (h)", -1, 1),
        ("m = Relu (h)", 0, INF),
        ("n = Relu (h)\n m = Neg (n)", -INF, 0),
        ("m = Abs (h)", 0, INF),
        ("s = Sigmoid (h)\n m = Sub (s, s)", -1, 1),
        ("s = Sigmoid (h)\n m = Add (s, s)", 0, 2),
        ("s = Sigmoid (h)\n m = Div (s, two)", 0, 0.5),
        ("s = Sigmoid (h)\n m = Max (s, two)", 2, 2),
        ("s = Sigmoid (h)\n m = AveragePool <kernel_shape = [2, 2]> (s)", 0, 1),
        ("s = Sigmoid (h)\n r = Reshape (s, shape)\n m = Transpose <perm = [0, 1, 3, 2]> (r)", 0, 1),
        ("m = Clip (h, zero, two)", 0, 2),
        ("m = HardSigmoid (h)", 0, 1),
        ("m = LeakyRelu (h)", -INF, INF),
        ("m = Erf (h)", -1, 1),
        ("m = Gelu (h)", -INF, INF),
    ],
)
def test_bounds_of_operators(middle: str, low: float, high: float) -> None:
    opset = 20 if "Gelu" in middle else 17
    constants = {
        name: value
        for name, value in {"two": np.float32(2), "zero": np.float32(0), "shape": [2, 8, 6, 6]}.items()
        if name in middle
    }
    analysis = Analysis(load(chain(middle, opset=opset, **constants)))
    found = find_ranges(analysis).along("m", 1)
    assert (found.low == low).all()
    assert (found.high == high).all()


bounds = hnp.arrays(np.float64, 4, elements=st.floats(-10, 10) | st.sampled_from([0.0, INF, -INF]))


@settings(deadline=None)
@given(bounds, bounds, hnp.arrays(np.float64, (3, 2, 4), elements=st.floats(-3, 3) | st.just(0.0)))
def test_a_weighted_sum_lies_within_its_bounds(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> None:
    low, high = np.minimum(first, second), np.maximum(first, second)
    low, high = np.where(low == INF, 5.0, low), np.where(high == -INF, -5.0, high)
    high = np.maximum(low, high)
    found = Interval(low, high).weighted(weight)
    assert (found.low <= found.high).all()
    ends = np.stack([np.clip(low, -1e6, 1e6), np.clip(high, -1e6, 1e6)])
    for chosen in range(16):
        value = ends[[chosen >> at & 1 for at in range(4)], range(4)]
        total = (weight @ value).sum(axis=1)
        assert (total >= found.low - 1e-6 * (1 + np.abs(total))).all()
        assert (total <= found.high + 1e-6 * (1 + np.abs(total))).all()


def test_zero_times_anything_is_zero() -> None:
    zero, anything = Interval.between(0.0, 0.0), Interval.between(-INF, INF)
    assert (zero * anything).zero.all()
    assert not (anything * anything).point.any()
    assert (anything + zero).low == -INF
    assert not (Interval.between(1.0, 1.0) / Interval.between(-1.0, 1.0)).point.any()
