# SPDX-License-Identifier: Apache-2.0
"""The estimated efficiency of a group: FLOPs that its channels cost, for the time that activations and weights take."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import model

from graphprune.analysis.analysis import Analysis
from graphprune.cost.latency.efficiency import PER_ELEMENT, efficiency
from graphprune.model.load import load


def two_layers(side: int) -> Analysis:
    """8 -> 32 -> 64 -> 8 channels by products at every position of a map of so many pixels on a side."""
    weights = {"a": (32, 8, 1, 1), "b": (64, 32, 1, 1), "c": (8, 64, 1, 1)}
    nodes = "p = Conv (x, a) q = Conv (p, b) y = Conv (q, c)"
    text = f"(float[1, 8, {side}, {side}] x) => (float[1, 8, {side}, {side}] y) {{ {nodes} }}"
    return Analysis(load(model(text, weights)))


def by_hand(side: int) -> np.ndarray:
    """Halve each width, and count FLOPs and elements that are neither multiplied nor read nor written any more."""
    places = side * side
    rates = []
    for flops, maps, weights in (
        (2 * places * 16 * (8 + 64), 2 * places * 16, 16 * (8 + 64)),
        (2 * places * 32 * (32 + 8), 2 * places * 32, 32 * (32 + 8)),
    ):
        rates.append(flops / (flops + PER_ELEMENT * (maps + weights)))
    return np.array(rates) / (np.array(rates) @ [32, 64] / 96)


@pytest.mark.parametrize("side", [1, 2, 16, 64])
def test_it_is_flops_per_element_that_is_moved(side: int) -> None:
    np.testing.assert_allclose(efficiency(two_layers(side)), by_hand(side))


def test_weights_that_are_read_for_few_positions_are_slow() -> None:
    early, late = {"a": (32, 8, 1, 1), "b": (8, 32, 1, 1)}, {"c": (512, 8, 1, 1), "d": (8, 512, 1, 1)}
    nodes = "p = Conv (x, a) q = Conv (p, b) r = GlobalAveragePool (q) s = Conv (r, c) y = Conv (s, d)"
    text = f"(float[1, 8, 32, 32] x) => (float[1, 8, 1, 1] y) {{ {nodes} }}"
    wide_map, _, single_place = efficiency(Analysis(load(model(text, {**early, **late}))))
    assert wide_map > 5 * single_place
