# SPDX-License-Identifier: Apache-2.0
"""C-SGD: the update rule, the law of deviation, the projection, and the exact merge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pruning_cases import KINDS, QUICK, labelled, trained
from training_cases import normalised

import graphprune
from graphprune.analysis.analysis import Analysis
from graphprune.errors import UsageError
from graphprune.plan.schema import Plan
from graphprune.rewrites.merge import exact_merges
from graphprune.solvers import training
from graphprune.solvers.training._kmeans import even, kmeans
from graphprune.training.bridge import Trainable, to_torch
from graphprune.training.pruning.running_network import begin, renewed
from graphprune.training.pruning.tensor_slices import find_slices
from graphprune.training.pruning.ties import Ties, pull_for
from graphprune.training.pruning.train import TrainOptions

RATE, PULL, DECAY = 0.1, 0.4, 0.05


def made(kind: str) -> tuple[Trainable, Analysis]:
    model = graphprune.load(KINDS[kind]())
    return to_torch(model, unfold=False), graphprune.analyze(model)


def pairs(analysis: Analysis) -> dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Two channels in every cluster, as far apart as can be; what is over stands alone."""
    found = {}
    for group in analysis.groups:
        half = group.size // 2
        numbers = np.arange(group.size, dtype=np.int64)
        numbers[half : 2 * half] = np.arange(half)
        found[group.id] = np.unique(numbers, return_inverse=True)[1].astype(np.int64)
    return found


def random_gradients(net: Trainable) -> None:
    for parameter in net.module.parameters():
        parameter.grad = torch.randn_like(parameter)


@pytest.mark.parametrize("kind", KINDS)
def test_the_law_of_deviation(kind: str) -> None:
    torch.manual_seed(0)
    net, analysis = made(kind)
    ties = Ties(net, analysis, pairs(analysis))
    weights = [value for value in net.module.parameters() if value.dim() > 1]
    others = [value for value in net.module.parameters() if value.dim() <= 1]
    groups = [{"params": weights, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=RATE)
    before = apart(net, analysis, ties)
    for _ in range(5):
        random_gradients(net)
        ties.rewrite(PULL)
        optimizer.step()
    for (name, rank, old), (_, _, new) in zip(before, apart(net, analysis, ties), strict=True):
        decay = DECAY if rank > 1 else 0.0
        np.testing.assert_allclose(new, (1 - RATE * (decay + PULL)) ** 5 * old, rtol=1e-3, atol=1e-5, err_msg=name)


def apart(net: Trainable, analysis: Analysis, ties: Ties) -> list[tuple[str, int, np.ndarray]]:
    """Return how far each trained row is from its cluster's mean, in the order of atoms."""
    found = []
    slices = find_slices(net, analysis)
    for group, clusters in ties.clusters.items():
        for item in slices[group]:
            if item.role == "in" or not item.tensor.requires_grad:
                continue
            order = np.lexsort((item.positions, item.atoms))
            rows = item.rows().detach().numpy()[order].reshape(len(clusters), -1).astype(np.float64)
            means = np.stack([rows[clusters == number].mean(axis=0) for number in clusters])
            found.append((item.name, item.tensor.dim(), rows - means))
    return found


def test_channels_that_stand_alone_learn_as_ever() -> None:
    torch.manual_seed(0)
    (one, analysis), (other, _) = made("residual"), made("residual")
    alone = {group.id: np.arange(group.size, dtype=np.int64) for group in analysis.groups}
    tied = {name: np.where(numbers == 1, 0, numbers) for name, numbers in alone.items()}
    tied = {name: np.unique(numbers, return_inverse=True)[1].astype(np.int64) for name, numbers in tied.items()}
    ties = Ties(one, analysis, tied)
    for net in (one, other):
        torch.manual_seed(1)
        random_gradients(net)
    ties.rewrite(PULL)
    for net in (one, other):
        torch.optim.SGD(net.module.parameters(), lr=RATE, momentum=0.9, weight_decay=DECAY).step()
    slices = zip(find_slices(one, analysis).values(), find_slices(other, analysis).values(), strict=True)
    for mine, plain in slices:
        for item, twin in zip(mine, plain, strict=True):
            if item.role != "in":
                free = item.atoms > 1
                assert torch.equal(item.rows()[free], twin.rows()[free])


def test_decay_may_be_a_part_of_the_rule() -> None:
    torch.manual_seed(0)
    (one, analysis), (other, _) = made("concat"), made("concat")
    for net, ours, theirs in ((one, DECAY, 0.0), (other, 0.0, DECAY)):
        torch.manual_seed(1)
        random_gradients(net)
        ties = Ties(net, analysis, pairs(analysis))
        ties.rewrite(PULL, decay=ours)
        weights = [value for value in net.module.parameters() if value.dim() > 1 and id(value) in ties.parameters]
        torch.optim.SGD(weights, lr=RATE, weight_decay=theirs).step()
    for mine, twin in zip(one.module.parameters(), other.module.parameters(), strict=True):
        torch.testing.assert_close(mine, twin)


def test_the_pull_that_is_needed() -> None:
    pull = pull_for(1e-6, rates=27.58, momentum=0.9)
    assert pull == pytest.approx(0.05, rel=0.01)
    assert pull_for(0.5, rates=1e6, decay=1.0) == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_the_step_from_tied_to_merged_is_exact(kind: str) -> None:
    net, analysis = made(kind)
    ties = Ties(net, analysis, pairs(analysis))
    assert ties.project() > 0.1
    assert ties.deviation() <= 1e-6
    tied = renewed(analysis, begin(net, analysis).written())
    plan = exact_merges(tied, halved(tied, ties))
    assert plan.lossless
    found = graphprune.verify(tied, graphprune.apply(tied, plan), plan)
    assert found.lossless
    assert found.error <= 1e-5


def halved(analysis: Analysis, ties: Ties) -> Plan:
    """Return a plan that keeps the first channel of each cluster."""
    plan = graphprune.solve(analysis, graphprune.BudgetRequest("flops", 1.0))
    groups = []
    for group in plan.groups:
        first = np.unique(ties.clusters[group.id], return_index=True)[1]
        groups.append(replace(group, kept=tuple(sorted(first.tolist()))))
    return graphprune.reconcile(analysis, replace(plan, groups=tuple(groups))).plan


def test_removing_without_merging_would_not_be() -> None:
    net, analysis = made("concat")
    ties = Ties(net, analysis, pairs(analysis))
    ties.project()
    tied = renewed(analysis, begin(net, analysis).written())
    plan = halved(tied, ties)
    assert graphprune.verify(tied, graphprune.apply(tied, plan), plan).effect > 0.01


def test_copies_are_squeezed_back_to_where_they_came_from() -> None:
    narrow = graphprune.load(KINDS["depthwise"]())
    before = graphprune.analyze(narrow)
    wide = graphprune.widen(before).model
    limit = before.cost.flops(before.cost.sizes)
    how = replace(QUICK, epochs=0.2, rate=1e-12)
    solving = graphprune.SolveOptions(solver="uniform", round_to=1)
    found = graphprune.train(
        wide,
        labelled(),
        graphprune.BudgetRequest("flops", f"{limit / 1000}k"),
        training.get("csgd")(),
        TrainOptions(how, solving),
    )
    assert found.plan.lossless
    assert [len(group.kept) for group in found.plan.groups] == [group.size for group in before.groups]
    clusters = [sorted(merge.removed // 2 for merge in group.merged) for group in found.plan.groups]
    assert clusters == [list(range(group.size)) for group in before.groups]
    assert all(merge.exemplar // 2 == merge.removed // 2 for group in found.plan.groups for merge in group.merged)


def test_a_run_ends_in_a_lossless_plan() -> None:
    found = trained(normalised(), training.get("csgd")(clusters="even"), labelled())
    assert found.plan.lossless
    assert [entry["stage"] for entry in found.plan.solver.trace if "deviation" in entry] == ["projection"]


def test_other_optimisers_are_refused() -> None:
    how = replace(QUICK, optimisation=replace(QUICK.optimisation, optimizer="adamw"))
    with pytest.raises(UsageError, match="needs --optimizer sgd"):
        trained(normalised(), training.get("csgd")(), labelled(), how)


@pytest.mark.parametrize("wrong", [{"clusters": "odd"}, {"tolerance": 1.0}, {"pull": -1.0}])
def test_settings_without_meaning(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        training.get("csgd")(**wrong)


def test_clusters_of_a_given_number() -> None:
    rows = np.repeat(np.eye(3), 4, axis=0)
    assert kmeans(rows, 3).tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert np.bincount(kmeans(rows, 5)).min() >= 1
    assert len(np.unique(kmeans(rows, 5))) == 5
    assert kmeans(rows, 12).tolist() == list(range(12))
    assert even(6, 4).tolist() == [0, 0, 1, 2, 2, 3]
