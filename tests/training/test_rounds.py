# SPDX-License-Identifier: Apache-2.0
"""The search of a learning rate: which rates are tried, and which is taken."""

from __future__ import annotations

import math
from typing import Any

import pytest

from graphprune.training import rounds
from graphprune.training.rounds import best_rate, search_rate

RATES = (0.1, 0.03, 0.01, 0.003, 0.001)


@pytest.mark.parametrize(
    ("losses", "tried", "taken"),
    [
        ({0.1: 2.5, 0.03: 2.0, 0.01: 2.2}, [0.03, 0.01, 0.1], 0.03),
        ({0.1: 1.5, 0.03: 2.0, 0.01: 2.2}, [0.03, 0.01, 0.1], 0.1),
        ({0.1: 2.5, 0.03: 2.03, 0.01: 2.0, 0.003: 2.1}, [0.03, 0.01, 0.003, 0.1], 0.03),
        ({0.03: 9.0, 0.01: 5.0, 0.003: 2.0, 0.001: 3.0}, [0.03, 0.01, 0.003, 0.001], 0.003),
        ({0.03: math.inf, 0.01: math.inf, 0.003: 2.0, 0.001: 1.0}, [0.03, 0.01, 0.003, 0.001], 0.001),
        ({0.1: math.inf, 0.03: math.inf, 0.01: math.inf, 0.003: math.inf, 0.001: math.inf}, list(RATES[1:]), 0.001),
    ],
)
def test_rates_that_are_tried(
    monkeypatch: pytest.MonkeyPatch, losses: dict[float, float], tried: list[float], taken: float
) -> None:
    monkeypatch.setattr(rounds, "_tried", lambda task, how, rate, steps, listen: losses[rate])
    monkeypatch.setattr(rounds, "snapshot", lambda net: None)
    monkeypatch.setattr(rounds, "put", lambda net, tensors: None)
    nothing: Any = type("Task", (), {"net": None})
    found = search_rate(nothing, nothing, RATES, 8, print)
    assert list(found) == tried
    assert best_rate(found) == taken


def test_one_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_tried", lambda *_: 1.0)
    monkeypatch.setattr(rounds, "snapshot", lambda net: None)
    monkeypatch.setattr(rounds, "put", lambda net, tensors: None)
    nothing: Any = type("Task", (), {"net": None})
    assert search_rate(nothing, nothing, (0.1,), 8, print) == {0.1: 1.0}
