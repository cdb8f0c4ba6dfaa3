# SPDX-License-Identifier: Apache-2.0
"""The estimated efficiency of a group: FLOPs that its channels cost, for the time that activations and weights take."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import model

from graphprune import BudgetRequest
from graphprune.analysis.analysis import Analysis
from graphprune.analysis.groups import Grouping
from graphprune.analysis.polynomial import Length
from graphprune.api import SolveOptions
from graphprune.cost.latency.efficiency import PER_ELEMENT, efficiency
from graphprune.labels.vector import Labels
from graphprune.model.load import load
from graphprune.planning import choose_widths
from graphprune.planning.make_plan import make_plan


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


def test_axes_of_the_same_labels_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain of many nodes carries the labels of one convolution: work grows with the nodes, not with both."""
    counted: list[Labels] = []
    real = Grouping._counted

    def once(self: Grouping, labels: Labels) -> Length:
        counted.append(labels)
        return real(self, labels)

    monkeypatch.setattr(Grouping, "_counted", once)
    needed = []
    for steps in (2, 40):
        inner = " ".join(f"h{at + 1} = Sigmoid (h{at})" for at in range(steps))
        text = f"(float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y) {{ h0 = Conv (x, a) {inner} y = Conv (h{steps}, b) }}"
        counted.clear()
        efficiency(Analysis(load(model(text, {"a": (8, 3, 1, 1), "b": (2, 8, 1, 1)}))))
        needed.append(len(counted))
    assert needed[1] == needed[0]


def test_it_is_estimated_once_however_often_levels_are_relaxed(monkeypatch: pytest.MonkeyPatch) -> None:
    estimated: list[Analysis] = []

    def once(analysis: Analysis) -> np.ndarray:
        estimated.append(analysis)
        return efficiency(analysis)

    monkeypatch.setattr(choose_widths, "efficiency", once)
    plan = make_plan(two_layers(2), [BudgetRequest("flops", 0.02)], SolveOptions())
    assert plan.solver.options["relaxed"]
    assert len(estimated) == 1
