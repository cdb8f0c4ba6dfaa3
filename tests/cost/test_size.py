# SPDX-License-Identifier: Apache-2.0
"""The size of the written file is bounded from above, closely, and the budget holds for the file on the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from tiny_models import model

import graphprune
from graphprune import BudgetRequest, SolveOptions
from graphprune.cost.metrics import model_cost

if TYPE_CHECKING:
    from pathlib import Path

    from graphprune import Model

WEIGHTS = {
    "stem": (16, 3, 3, 3),
    "var0": (16,),
    "scale0": (16,),
    "bias0": (16,),
    "mean0": (16,),
    "wide": (48, 16, 3, 3),
    "deep": (48, 1, 3, 3),
    "back": (16, 48, 1, 1),
    "head": (128, 10),
}
TEXT = """(float[2,3,8,8] x) => (float[2,10] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, stem)
    n = BatchNormalization (a, scale0, bias0, mean0, var0)
    b = Relu (n)
    c = Conv <pads = [1, 1, 1, 1]> (b, wide)
    d = Conv <pads = [1, 1, 1, 1], group = 48> (c, deep)
    e = Conv (d, back)
    f = Add (e, b)
    g = AveragePool <kernel_shape = [2, 4], strides = [2, 4]> (f)
    h = Reshape (g, target)
    y = MatMul (h, head)
}"""


@pytest.fixture
def net(tmp_path: Path) -> Model:
    path = tmp_path / "net.onnx"
    path.write_bytes(model(TEXT, WEIGHTS, target=[2, 128]).SerializeToString())
    return graphprune.load(path)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
@pytest.mark.parametrize("round_to", [1, "auto"])
def test_the_file_on_the_disk_is_within_the_budget(net: Model, tmp_path: Path, share: float, round_to: object) -> None:
    plan = graphprune.solve(net, BudgetRequest("size", share), SolveOptions(round_to=round_to))  # type: ignore[arg-type]
    out = graphprune.save(graphprune.apply(net, plan), tmp_path / "out.onnx")
    assert plan.budget.before == net.path.stat().st_size  # type: ignore[union-attr]
    assert out.stat().st_size <= plan.budget.after <= plan.budget.limit
    assert plan.budget.after - out.stat().st_size < 4000  # the bound is close: a few names and lists of positions


def test_an_amount_of_bytes_limits_the_file(net: Model, tmp_path: Path) -> None:
    plan = graphprune.solve(net, BudgetRequest("size", "30kB"), SolveOptions(round_to=1))
    out = graphprune.save(graphprune.apply(net, plan), tmp_path / "out.onnx")
    assert 20_000 < out.stat().st_size <= plan.budget.after <= 30_000


def test_a_model_that_stays_whole_is_as_large_as_it_is(net: Model) -> None:
    analysis = graphprune.analyze(net)
    cost = model_cost(analysis, "size")
    assert cost.before == cost.after(analysis.cost.sizes) == cost.exact_whole(analysis.cost.sizes)
    assert cost.before == net.path.stat().st_size  # type: ignore[union-attr]
    assert graphprune.solve(net, BudgetRequest("size", 1.0)).is_identity


def test_changes_are_those_of_the_bound_and_it_never_falls(net: Model) -> None:
    analysis = graphprune.analyze(net)
    cost = model_cost(analysis, "size").written
    random = np.random.default_rng(0)
    for _ in range(20):
        widths = random.integers(1, analysis.cost.sizes)
        group = int(random.integers(len(widths)))
        wider = widths.copy()
        wider[group] = analysis.cost.sizes[group]
        assert cost(wider) - cost(widths) == cost.change(widths, group, int(wider[group])) >= 0


def test_the_bound_is_the_sum_that_it_names(net: Model) -> None:
    analysis = graphprune.analyze(net)
    random = np.random.default_rng(4)
    size = model_cost(analysis, "size")
    for cost in (size.written, size.exact_whole):
        (factors,) = cost.alternatives()  # type: ignore[attr-defined]
        widths = random.integers(1, analysis.cost.sizes + 1)
        found = [float(one.values(*(np.int64(length.at(widths)) for length in one.lengths))) for one in factors]
        assert sum(found) == cost(widths)
