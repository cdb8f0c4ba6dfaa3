# SPDX-License-Identifier: Apache-2.0
"""Accuracy comes back from the file alone, within a bound of work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphprune.accuracy import evaluate, open_data
from graphprune.analysis.analysis import Analysis
from graphprune.api import apply, load, solve
from graphprune.data.agreement import Agreement
from graphprune.data.source import Source
from graphprune.data.synthesis.make_samples import SampleOptions
from graphprune.errors import DataError
from graphprune.model.load import Model
from graphprune.plan.budget import BudgetRequest
from graphprune.planning.make_plan import SolveOptions
from graphprune.recovery import without_data as module
from graphprune.recovery.without_data import WorkBound, restorer_for

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_example_is_recovered_from_its_file() -> None:
    model = load(EXAMPLES / "digits.onnx")
    analysis, test = Analysis(model), open_data(str(EXAMPLES / "digits_test.npz"), model)
    plan = solve(analysis, BudgetRequest("flops", 0.5), SolveOptions(round_to=1))
    pruned = apply(analysis, plan)
    restorer = restorer_for(analysis, SampleOptions(count=256))
    found = restorer.recover(plan, pruned)
    before, after = (evaluate(one, test).top1 or 0.0 for one in (pruned, found.model))
    assert before < 0.7
    assert after > 0.95
    assert restorer.facts["matched"]
    assert restorer.facts["knowledge"] == "statistics of BatchNormalization"


def test_what_does_not_hold_for_another_kind_of_image_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(EXAMPLES / "digits.onnx")
    analysis = Analysis(model)
    plan = solve(analysis, BudgetRequest("flops", 0.5), SolveOptions(round_to=1))
    pruned = apply(analysis, plan)
    restorer = restorer_for(analysis, SampleOptions(count=64, candidates=1))
    kept = restorer.recover(plan, pruned)
    assert kept.improved
    compared = module.compare
    turned = {id(pruned): kept.model, id(kept.model): pruned}  # as if bare surgery were nearer to the original

    def other_way_round(teacher: Model, student: Model, source: Source) -> Agreement:
        return compared(teacher, turned.get(id(student), pruned), source)

    monkeypatch.setattr(module, "compare", other_way_round)
    refused = restorer.recover(plan, pruned)
    assert not refused.improved
    assert refused.model is pruned


def test_samples_that_judge_are_of_another_kind() -> None:
    restorer = restorer_for(Analysis(load(EXAMPLES / "digits.onnx")), SampleOptions(count=64, candidates=1))
    index = np.arange(64)
    own, others = (one.source.read(index).feeds["image"] for one in (restorer.made, restorer.judges))
    assert own.shape == others.shape
    assert np.abs(own - others).mean() > 0.1


def test_the_network_that_samples_suit_has_the_same_groups() -> None:
    analysis = Analysis(load(EXAMPLES / "digits.onnx"))
    dense = restorer_for(analysis, SampleOptions(count=64, candidates=1)).dense
    assert dense is not analysis
    assert [group.name for group in dense.groups] == [group.name for group in analysis.groups]
    np.testing.assert_array_equal(dense.cost.sizes, analysis.cost.sizes)


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        (12_000, (100, 4, True)),
        (10_000, (100, 2, True)),
        (6_000, (50, 4, True)),
        (3_200, (32, 2, True)),
        (2_500, (50, 2, False)),
        (1_000, (0, 0, False)),
    ],
)
def test_work_shrinks_in_steps(bound: int, expected: tuple[int, int, bool]) -> None:
    assert WorkBound(bound).samples(macs=10, wanted=100, candidates=4) == expected


def test_refining_is_work_like_any_other() -> None:
    assert WorkBound(72_000, refining=60).samples(macs=10, wanted=100, candidates=4) == (100, 4, True)
    assert WorkBound(71_000, refining=60).samples(macs=10, wanted=100, candidates=4) == (100, 2, True)
    assert WorkBound(40_000, refining=60).samples(macs=10, wanted=100, candidates=4) == (50, 4, True)


def test_what_no_bound_allows_is_refused() -> None:
    analysis = Analysis(load(EXAMPLES / "digits.onnx"))
    with pytest.raises(DataError, match="more work than the bound allows"):
        restorer_for(analysis, bound=WorkBound(1000))
