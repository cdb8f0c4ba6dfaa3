# SPDX-License-Identifier: Apache-2.0
"""A refit that knows of the ReLU behind it is better there, and the same where the ReLU is never at work."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tiny_models import model

from graphprune.analysis.analysis import Analysis
from graphprune.api import apply, load, solve
from graphprune.data.moments import Moments, MomentSummary
from graphprune.plan.budget import BudgetRequest
from graphprune.planning.make_plan import SolveOptions
from graphprune.recovery.editable_model import EditableModel
from graphprune.recovery.gated import GatedRows, refit_gated
from graphprune.recovery.least_squares import intercept, refit
from graphprune.recovery.sites import find_sites


def problem(sign: float, threshold: float) -> tuple[MomentSummary, np.ndarray, GatedRows, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 3000, 8)).astype(np.float32)
    weight = rng.standard_normal((1, 8, 4))
    y = (x @ weight + 0.2).astype(np.float32)
    kept = x[:, :, :5]
    moments, rows = Moments(), GatedRows(np.full((1, 1, 4), sign, dtype=np.float32))
    for start in range(0, 3000, 1000):
        part = slice(start, start + 1000)
        moments.add(kept[:, part], y[:, part])
        rows.add(kept[:, part], y[:, part], np.full_like(y[:, part], threshold))
    return moments.summary(), weight[:, :5], rows, kept, y


def loss(x: np.ndarray, y: np.ndarray, weight: np.ndarray, shift: np.ndarray, gate: tuple[float, float]) -> float:
    """Return the error, in which an output that the gate must stop may be as far beyond it as it likes."""
    sign, threshold = gate
    given, wanted = sign * (x @ weight + shift[:, None]), sign * y
    bound = sign * threshold
    error = np.where(wanted > bound, given - wanted, np.maximum(given - bound, 0))
    return float(np.square(error).mean())


@pytest.mark.parametrize("gate", [(1.0, 0.0), (1.0, 0.7), (-1.0, 0.3)])
def test_every_round_lowers_the_error_behind_the_gate(gate: tuple[float, float]) -> None:
    moments, weight, rows, x, y = problem(*gate)
    found = [refit_gated(moments, weight, 1e-6, rows, rounds) for rounds in (0, 1, 3, 10)]
    losses = [loss(x, y, *each, gate) for each in found]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]
    plain = refit(moments, weight, 1e-6)
    np.testing.assert_allclose(found[0][0], plain)
    np.testing.assert_allclose(found[0][1], intercept(moments, plain))


def test_what_is_cut_off_above_may_be_as_large_as_it_likes() -> None:
    moments, weight, rows, x, y = problem(1.0, -0.3)
    for at, thresholds in enumerate(rows.thresholds):
        rows.thresholds[at] = (*thresholds, np.full_like(thresholds[0], 0.8))

    def cut_loss(weight: np.ndarray, shift: np.ndarray) -> float:
        given = x @ weight + shift[:, None]
        error = np.where(y > 0.8, np.minimum(given - 0.8, 0), np.where(y < -0.3, np.maximum(given + 0.3, 0), given - y))
        return float(np.square(error).mean())

    found = [refit_gated(moments, weight, 1e-6, rows, rounds) for rounds in (0, 1, 3, 10)]
    losses = [cut_loss(*each) for each in found]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]
    mirrored = GatedRows(-rows.sign, rows.x, rows.target, [pair[::-1] for pair in rows.thresholds], rows.size)
    for one, two in zip(found[-1], refit_gated(moments, weight, 1e-6, mirrored, 10), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


CLIPS = {
    "relu": ("b = Relu (a)", 17, (0.0,)),
    "relu6": ("b = Clip (a, low, high)", 17, (0.0, 6.0)),
    "relu6 with attributes": ("b = Clip <min = 0.0, max = 6.0> (a)", 10, (0.0, 6.0)),
    "no upper bound": ("b = Clip (a, low)", 17, (0.0,)),
    "the largest float": ("b = Clip (a, low, largest)", 17, (0.0,)),
    "the largest float by default": ("b = Clip <min = 0.0> (a)", 7, (0.0,)),
    "two other bounds": ("b = Clip (a, below, high)", 17, (-1.0, 6.0)),
    "no lower bound": ("b = Clip (a, , high)", 17, ()),
    "bounds the wrong way round": ("b = Clip (a, high, low)", 17, ()),
    "a computed bound": ("m = ReduceMax <keepdims = 0> (x) b = Clip (a, low, m)", 17, ()),
    "no gate": ("b = Tanh (a)", 17, ()),
    "another reader": ("c = Tanh (a) d = Relu (a) b = Add (c, d)", 17, ()),
}


@pytest.mark.parametrize("case", CLIPS)
def test_where_a_layer_is_cut_off(case: str) -> None:
    text, opset, gate = CLIPS[case]
    bounds = {"low": 0.0, "high": 6.0, "below": -1.0, "largest": np.finfo(np.float32).max}
    proto = model(
        f"""(float[n, 3, 4, 4] x) => (float[n, 2, 2, 2] y) {{
            z = Conv (x, zero)
            a = Conv (z, one)
            {text}
            y = Conv (b, two)
        }}""",
        {"zero": (6, 3, 1, 1), "one": (6, 6, 2, 2), "two": (2, 6, 2, 2)},
        opset=opset,
        **{name: np.float32(value) for name, value in bounds.items() if re.search(rf"\b{name}\b", text)},
    )
    analysis = Analysis(load(proto))
    plan = solve(analysis, BudgetRequest("flops", 0.6), SolveOptions(criterion="l1", round_to=1))
    found = {site.target: site.gate for site in find_sites(EditableModel(apply(analysis, plan)), analysis, plan)}
    assert found["a"] == gate
    assert found["y"] == ()


def test_nothing_changes_where_everything_is_let_through() -> None:
    moments, weight, rows, *_ = problem(1.0, -1e3)
    new, shift = refit_gated(moments, weight, 1e-6, rows, 3)
    plain = refit(moments, weight, 1e-6)
    np.testing.assert_allclose(new, plain, atol=1e-4)
    np.testing.assert_allclose(shift, intercept(moments, plain), atol=1e-4)


def test_too_many_rows_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphprune.recovery.gated.MOST_BYTES", 100)
    *_, rows, _, _ = problem(1.0, 0.0)
    assert not rows.complete
    assert rows.x == []
