# SPDX-License-Identifier: Apache-2.0
"""The public functions, and their names: sorted, importable, documented, imported lazily."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

import graphprune
from graphprune import BudgetRequest, Model, SolveOptions
from graphprune.cost.metrics import model_cost
from graphprune.errors import BudgetUnreachableError, NothingToPruneError, PlanError, UsageError
from graphprune.solvers.moves.levels import levels

if TYPE_CHECKING:
    from pathlib import Path

    from graphprune.plan.schema import Metric


def test_all_is_sorted_and_complete() -> None:
    assert graphprune.__all__ == sorted(graphprune.__all__)
    assert set(graphprune.__all__) <= set(dir(graphprune))


@pytest.mark.parametrize("name", graphprune.__all__)
def test_every_name_is_importable_and_documented(name: str) -> None:
    value = getattr(importlib.reload(graphprune), name)
    if name != "__version__":
        assert callable(value)
        assert value.__doc__
        assert value.__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'prune_everything'"):
        _ = graphprune.prune_everything


NETWORK = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[n, 3, 10, 10] image) => (float[n, 4] scores) {
    a = Conv <pads = [1, 1, 1, 1]> (image, stem)
    b = Relu (a)
    c = Conv <pads = [1, 1, 1, 1]> (b, wide)
    d = Sigmoid (c)
    e = Conv <pads = [1, 1, 1, 1]> (d, back)
    f = Add (e, b)
    g = GlobalAveragePool (f)
    h = Flatten (g)
    scores = Gemm (h, head)
}
"""


@pytest.fixture
def model() -> Model:
    proto = onnx.parser.parse_model(NETWORK)
    rng = np.random.default_rng(0)
    for name, shape in {"stem": (24, 3, 3, 3), "wide": (40, 24, 3, 3), "back": (24, 40, 3, 3), "head": (24, 4)}.items():
        proto.graph.initializer.append(numpy_helper.from_array(rng.normal(0, 0.2, shape).astype(np.float32), name))
    return graphprune.load(proto)


def test_the_whole_way(model: Model, tmp_path: Path) -> None:
    before = model.proto.SerializeToString(deterministic=True)
    plan = graphprune.solve(model, BudgetRequest("flops", 0.5))
    pruned = graphprune.apply(model, plan)
    found = graphprune.verify(model, pruned, plan)
    assert found.status == "verified"
    assert found.effect > 0.01
    path = graphprune.save(pruned, tmp_path / "pruned.onnx")
    again = graphprune.load(path)
    assert graphprune.analyze(again).cost.flops(np.array([len(g.kept) for g in plan.groups])) == plan.budget.after
    assert graphprune.verify(model, again, plan).status == "verified"
    assert model.proto.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("metric", ["flops", "params", "size"])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.123])
@pytest.mark.parametrize("round_to", ["auto", 1, 5])
def test_nothing_more_fits_into_the_budget(
    model: Model, metric: Metric, share: float, round_to: int | Literal["auto"]
) -> None:
    analysis = graphprune.analyze(model)
    plan = graphprune.solve(analysis, BudgetRequest(metric, share), SolveOptions(round_to=round_to))
    cost = model_cost(analysis, metric).written
    widths = np.array([len(group.kept) for group in plan.groups])
    assert cost(widths) == plan.budget.after <= plan.budget.limit
    for index, group in enumerate(analysis.groups):
        wider = [int(level) for level in levels(group.size, group.channels, round_to) if level > widths[index]]
        if wider:
            assert plan.budget.after + cost.change(widths, index, wider[0]) > plan.budget.limit


def test_a_reconciled_plan_is_carried_out_as_the_plan_is_and_only_on_its_own_model(model: Model) -> None:
    plan = graphprune.solve(model, BudgetRequest("flops", 0.5))
    reconciled = graphprune.reconcile(model, plan)
    pruned = graphprune.apply(model, reconciled)
    assert pruned.proto == graphprune.apply(model, plan).proto
    assert graphprune.verify(reconciled.reference.original, pruned, reconciled).status == "verified"
    with pytest.raises(UsageError, match="the plan was reconciled with"):
        graphprune.apply(graphprune.analyze(model), reconciled)


def test_a_narrow_group_stays_whole_under_min_keep(model: Model) -> None:
    plan = graphprune.solve(model, BudgetRequest("flops", 0.85), SolveOptions(min_keep=30))
    widths = {group.size: len(group.kept) for group in plan.groups}
    assert widths[24] == 24
    assert 30 <= widths[40] < 40


def test_aligned_widths_give_way_to_a_budget_they_cannot_meet(model: Model) -> None:
    plan = graphprune.solve(model, BudgetRequest("flops", 0.01))
    assert plan.solver.options["relaxed"] is True
    assert plan.budget.after <= plan.budget.limit


def test_what_cannot_be_reached_is_said(model: Model) -> None:
    with pytest.raises(BudgetUnreachableError, match=r"the smallest reachable is 0\.00\d+ \("):
        graphprune.solve(model, BudgetRequest("flops", 1e-5))


def test_a_model_that_is_frozen_cannot_be_pruned() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> net (float[2, 8] x) => (float[2, 8] y) { y = Relu (x) }'
    )
    frozen = graphprune.load(proto)
    with pytest.raises(NothingToPruneError, match="no channel"):
        graphprune.solve(frozen, BudgetRequest("flops", 0.5))
    plan = graphprune.solve(frozen, BudgetRequest("flops", 1.0))
    assert graphprune.apply(frozen, plan) is frozen


def test_a_plan_of_another_model_is_refused(model: Model) -> None:
    plan = graphprune.solve(model, BudgetRequest("flops", 0.5))
    other = onnx.ModelProto()
    other.CopyFrom(model.proto)
    other.graph.initializer[0].raw_data = bytes(len(other.graph.initializer[0].raw_data))
    retrained = graphprune.load(other)
    with pytest.raises(PlanError, match="the structure is the same"):
        graphprune.apply(retrained, plan)
    assert graphprune.apply(retrained, plan, rebind=True) is not retrained
    other.graph.node[1].op_type = "Tanh"
    with pytest.raises(PlanError, match="another structure"):
        graphprune.apply(graphprune.load(other), plan, rebind=True)
    other.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    with pytest.raises(PlanError, match="another structure"):
        graphprune.verify(graphprune.load(other), model, plan)


@pytest.mark.parametrize("share", [0, -1, 1.5, float("nan"), float("inf"), True, "half", None])
def test_a_share_outside_its_range_is_refused(share: Any) -> None:
    with pytest.raises(UsageError, match="the budget for flops"):
        BudgetRequest("flops", share)


@pytest.mark.parametrize(("metric", "meant"), [("parms", "params"), ("FLOPS", "flops"), ("latencey", "latency")])
def test_an_unknown_metric_is_refused_with_the_one_that_is_meant(metric: Any, meant: str) -> None:
    with pytest.raises(UsageError, match="no cost is called") as caught:
        BudgetRequest(metric, 0.5)
    assert str(caught.value).endswith(f"hint: did you mean {meant}?")


@given(st.integers(0, 10**15), st.integers(1, 100))
def test_limits_are_decimal(before: int, percent: int) -> None:
    assert BudgetRequest("flops", percent / 100).limit(before) == before * percent // 100


def test_solving_needs_no_torch(model: Model, tmp_path: Path) -> None:
    path = graphprune.save(model, tmp_path / "net.onnx")
    script = (
        "import sys; from graphprune.cli import main; code = main(sys.argv[1:]); print('torch' in sys.modules, code)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, "solve", str(path), "--flops", "0.5"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.splitlines()[-1] == "False 0", done.stderr
