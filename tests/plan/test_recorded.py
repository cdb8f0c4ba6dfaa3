# SPDX-License-Identifier: Apache-2.0
"""What a plan records beside what is done is of the kind that its readers expect, or the file is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tiny_models import chain

from graphprune import BudgetRequest, solve
from graphprune.errors import PlanError
from graphprune.model.load import load
from graphprune.plan.file import dumps, loads
from graphprune.report.summary import plan_notes
from graphprune.report.tables import plan_tables

CONTEST = {"chosen": "l1", "measure": "agreement", "samples": 9, "contest": [{"name": "l1", "score": 0.5}]}
LATENCY = {"rounds": 2, "layers": 3, "alone": 2, "runtime": "onnxruntime"}
GATED = {"stage": "gated", "expected_flops": 5, "static_flops": 7}
STEP = {"name": "recover", "method": "bn", "measure": "error", "before": 1.0, "after": 0.5, "applied": True,
        "facts": {"samples": 3}}  # fmt: skip


@pytest.fixture(scope="module")
def plan() -> Any:
    return json.loads(dumps(solve(load(chain("m = Relu (h)")), BudgetRequest("flops", 0.5))))


def with_records(
    plan: Any, options: dict[str, Any] | None = None, trace: list[Any] | None = None, steps: list[Any] | None = None
) -> str:
    solver = plan["solver"]
    solver = {
        **solver,
        "options": {**solver["options"], **(options or {})},
        "trace": [*solver["trace"], *(trace or [])],
    }
    return json.dumps({**plan, "solver": solver, **({"steps": steps} if steps else {})})


def test_what_is_recorded_is_read_and_shown(plan: Any) -> None:
    options = {"adapt": CONTEST, "latency": LATENCY, "not_merged": {"far": 1}, "of a plugin": [{"x": None}]}
    trace = [GATED, {"stage": "classes", "names": ["a"]}, {"stage": ["of", "a plugin"]}, {"stage": "path", "t": "x"}]
    read = loads(with_records(plan, options, trace, [STEP, {**STEP, "name": "measured"}]))
    assert any("agreement on 9" in note for note in plan_notes(read))
    assert plan_tables(read) is not None
    assert plan_notes(loads(with_records(plan, {"adapt": None})))


@pytest.mark.parametrize(
    ("records", "place"),
    [
        ({"options": {"scores_from": {"l1": "many"}}}, r"options.*scores_from.*'l1'.*an integer"),
        ({"options": {"scores_from": []}}, "scores_from.*an object"),
        ({"options": {"scores_from": {"l1": -1}}}, "scores_from.*outside"),
        ({"options": {"not_merged": {"far": 1.5}}}, "not_merged.*an integer"),
        ({"options": {"latency": 3}}, "latency.*an object"),
        ({"options": {"latency": {**LATENCY, "rounds": "2"}}}, "rounds.*an integer"),
        ({"options": {"latency": {"alone": 2}}}, "'layers' is missing"),
        ({"options": {"adapt": {**CONTEST, "contest": [{"name": "l1"}]}}}, "'score' is missing"),
        ({"options": {"adapt": {**CONTEST, "measure": "error"}}}, "'error' is missing"),
        ({"options": {"adapt": {"chosen": "l1"}}}, "adapt.*is missing"),
        ({"options": {"adapt": [CONTEST]}}, "adapt.*an object"),
        ({"options": {"choices": 5}}, "choices.*an array"),
        ({"trace": [{"stage": "gated", "expected_flops": 5}]}, "'static_flops' is missing"),
        ({"trace": [{**GATED, "expected_flops": "few"}]}, r"trace\[\d+\].*expected_flops.*an integer"),
        ({"trace": [{"stage": "votes", "group": ["g0"]}]}, "group.*a string"),
        ({"trace": [{"stage": "classes", "names": 3}]}, "names.*an array"),
        ({"steps": [{**STEP, "facts": {"samples": "three"}}]}, "samples.*an integer"),
    ],
    ids=str,
)
def test_records_of_another_kind_are_refused_with_their_place(plan: Any, records: Any, place: str) -> None:
    with pytest.raises(PlanError, match=place):
        loads(with_records(plan, **records))
