# SPDX-License-Identifier: Apache-2.0
"""White-Box: masks of classes, their mean, their vote, and what becomes of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pruning_cases import KINDS, QUICK, coupled, labelled, mapping, trained, unlabelled
from training_cases import images

import graphprune
from graphprune.errors import BudgetUnreachableError, UsageError
from graphprune.report.votes import read_votes, votes_json
from graphprune.solvers.training.white_box import WhiteBox, draw_classes, expected_factor, factors
from graphprune.training.bridge import to_torch
from graphprune.training.gates import attach_gates
from graphprune.training.preparation import prepare
from graphprune.training.pruning.fold_gates import fold_factors, foldable_groups
from graphprune.training.pruning.run import Run
from graphprune.training.pruning.running_network import begin


def test_the_mean_factor_given_a_class() -> None:
    torch.manual_seed(0)
    masks = torch.rand(5, 7)
    labels = torch.full((200_000,), 2)
    found = factors(draw_classes(labels, 5), masks).mean(0)
    expected = (masks[2] + 0.5 * (masks.sum(0) - masks[2])) / 3.0
    assert torch.allclose(found, expected, atol=5e-3)
    every = torch.stack([(masks[y] + 0.5 * (masks.sum(0) - masks[y])) / 3.0 for y in range(5)]).mean(0)
    assert torch.allclose(expected_factor(masks), every)


def test_masks_of_ones_change_nothing_on_average() -> None:
    assert torch.allclose(expected_factor(torch.ones(10, 4)), torch.ones(4))


def test_a_class_without_a_say_learns_nothing() -> None:
    masks = torch.ones(3, 4, requires_grad=True)
    drawn = torch.tensor([[1.0, 0.0, 0.5], [0.2, 0.0, 1.0]])
    (factors(drawn, masks) * torch.arange(4)).sum().backward()
    assert masks.grad is not None
    assert masks.grad[1].abs().max() == 0.0
    assert masks.grad[0].abs().max() > 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_folding_is_multiplying(kind: str) -> None:
    model = graphprune.load(KINDS[kind]())
    analysis, gated, folded = graphprune.analyze(model), to_torch(model), to_torch(model)
    names = foldable_groups(folded, analysis)
    assert names
    gates = attach_gates(gated, analysis, names, passing=False)
    found = {name: torch.randn(gate.size) for name, gate in gates.items()}
    for name, gate in gates.items():
        gate.value = found[name]
    fold_factors(folded, analysis, found)
    x = torch.from_numpy(images(4))
    with torch.no_grad():
        assert torch.allclose(gated.module(x), folded.module(x), atol=1e-4)
        assert not torch.allclose(to_torch(model).module(x), folded.module(x), atol=1e-2)


def test_the_channels_of_a_depthwise_convolution_are_voted_on_where_they_are_read() -> None:
    model = graphprune.load(KINDS["depthwise"]())
    analysis = graphprune.analyze(model)
    assert set(foldable_groups(to_torch(model), analysis)) == {group.id for group in analysis.groups}
    found = trained(KINDS["depthwise"](), WhiteBox(), labelled())
    voted = {entry["group"] for entry in found.plan.solver.trace if entry.get("stage") == "votes"}
    assert voted == {group.id for group in found.plan.groups}


def course_of(method: WhiteBox) -> Run:
    model = graphprune.load(KINDS["folded"]())
    data = labelled()
    task, _, _ = prepare(model, data, None, QUICK)
    budget = (graphprune.BudgetRequest("flops", 0.7),)
    solving = graphprune.SolveOptions(solver="global", round_to=1)
    run = Run(begin(task.net, graphprune.analyze(model)), replace(task, hook=method), data, budget, solving, 9)
    method.begin_run(run)
    return run


def test_a_channel_that_no_class_wants_goes_first() -> None:
    method = WhiteBox(least=0.0)
    run = course_of(method)
    with torch.no_grad():
        method._masks["g000"][:, 5] = 0.0
        method._masks["g001"][:, 2] = 0.0
    plan = method.survivors(run)
    assert plan is not None
    kept = {group.id: group.kept for group in plan.groups}
    assert 5 not in kept["g000"]
    assert 2 not in kept["g001"]


def test_the_budget_is_met_within_a_step_and_every_group_keeps_its_share() -> None:
    found = trained(KINDS["depthwise"](), WhiteBox(least=0.5), labelled())
    assert found.plan.budget.after <= found.plan.budget.limit
    for group in found.plan.groups:
        assert len(group.kept) >= 0.5 * group.size


def test_the_plan_records_the_votes_of_every_class() -> None:
    found = trained(coupled(), WhiteBox(), labelled())
    votes = [entry for entry in found.plan.solver.trace if entry.get("stage") == "votes"]
    assert [np.array(entry["by_class"]).shape for entry in votes] == [(8, 4)]
    masks = np.array(votes[0]["by_class"])
    assert np.allclose(masks.sum(1), votes[0]["sum"], atol=1e-4)
    assert [row[0] for row in votes[0]["most"]] == masks.argmax(1).tolist()
    assert max(votes[0]["wanted"]) <= 4


def test_many_votes_are_recorded_in_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphprune.solvers.training.white_box._SHOWN", 31)
    found = trained(coupled(), WhiteBox(), labelled())
    (votes,) = (entry for entry in found.plan.solver.trace if entry.get("stage") == "votes")
    assert "by_class" not in votes
    assert [len(votes[name]) for name in ("sum", "wanted", "most")] == [8, 8, 8]
    (read,) = read_votes(found.plan, "g*")
    assert read.by_class is None
    assert votes_json(found.plan, [read])["groups"][0]["by_class"] is None


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="needs labels"):
        trained(KINDS["folded"](), WhiteBox(), unlabelled())
    with pytest.raises(UsageError, match="scores of classes"):
        trained(mapping(), WhiteBox(), labelled())
    with pytest.raises(BudgetUnreachableError) as caught:
        trained(KINDS["folded"](), WhiteBox(least=0.9), labelled())
    assert "least" in str(caught.value.hint)
    for wrong in ({"sparsity": -1.0}, {"until": 0.0}, {"least": 1.0}):
        with pytest.raises(UsageError):
            WhiteBox(**wrong)  # type: ignore[arg-type]
