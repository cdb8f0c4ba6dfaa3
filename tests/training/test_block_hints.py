# SPDX-License-Identifier: Apache-2.0
"""Hints: the ends of blocks are learned beside the outputs, of the channels that are left; files do not show it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from remembering_models import network, trained_on
from training_cases import Arrays

from graphprune.analysis.analysis import Analysis
from graphprune.api import apply, solve
from graphprune.array_types import Array
from graphprune.data.source import Source
from graphprune.data.walk import Walk
from graphprune.model.graph import Graph
from graphprune.model.load import Model
from graphprune.plan.budget import BudgetRequest
from graphprune.planning.make_plan import SolveOptions
from graphprune.training.block_hints import BlockHints, Hint, find_hints
from graphprune.training.finetune import FinetuneOptions, finetune
from graphprune.training.hooks import Moment
from graphprune.training.loader import Samples
from graphprune.training.preparation import prepare
from graphprune.training.trainer import Optimisation, Task

OPTIONS = FinetuneOptions(
    epochs=6, batch=32, rate=0.03, augment="none", device="cpu", optimisation=Optimisation(warmup=0.0, clip=0.0)
)


@dataclass(frozen=True)
class Case:
    """A network, what pruning left of it, and where they are compared."""

    original: Model
    pruned: Model
    hints: tuple[Hint, ...]

    def task(self, pruned: Model) -> Task:
        return prepare(pruned, noise(), self.original, OPTIONS, noise(seed=1))[0]


@pytest.fixture(scope="module")
def case() -> Case:
    original = trained_on(network(), images(256, 7))
    analysis = Analysis(original)
    plan = solve(analysis, BudgetRequest("flops", 0.5), SolveOptions(solver="uniform", round_to=1))
    pruned = apply(analysis, plan)
    return Case(original, pruned, find_hints(analysis, plan, pruned))


def images(count: int, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((count, 3, 12, 12)).astype(np.float32)


def noise(seed: int = 0) -> Source:
    return Source.whole("noise", Arrays({"image": images(160, seed)}))


def inner(model: Model, name: str) -> Array:
    with Walk(model, Graph(model.proto), [(name,)], lambda _: {"image": images(64, 2)}, 1) as walk:
        (values,) = walk.step()
        return values[name]


def test_hints_are_where_blocks_end(case: Case) -> None:
    assert [hint.name for hint in case.hints] == ["i"]
    _, channels, height, _ = case.hints[0].kept
    assert channels.sum() == inner(case.pruned, "i").shape[1] < len(channels) == 16
    assert height.all()


def test_a_network_is_no_distance_from_itself(case: Case) -> None:
    task = case.task(case.original)
    whole = tuple(np.ones(len(mask), dtype=np.bool_) for mask in case.hints[0].kept)
    hook = BlockHints(task, [Hint("i", whole)])
    samples = task.loader.read(0)
    target = task.teach(samples)
    task.net.module.eval()
    moment = Moment(0, 1, samples, target, task.net.run(samples.feeds))
    assert hook.loss(moment, torch.tensor(1.0)).item() == pytest.approx(1.0, abs=1e-6)


def test_hints_weigh_three_times_what_outputs_do(case: Case) -> None:
    task = case.task(case.pruned)
    hook = BlockHints(task, case.hints)
    samples = Samples.of(task.loader.source.read(np.arange(160)))
    target = task.teach(samples)
    task.net.module.eval()
    outputs = task.net.run(samples.feeds)
    usual = task.objective(outputs, target, None)
    together = hook.loss(Moment(0, 1, samples, target, outputs), usual)
    assert together.item() == pytest.approx(4 * usual.item(), rel=1e-3)


def test_values_that_a_network_does_not_have_are_passed_over(case: Case) -> None:
    hook = BlockHints(case.task(case.pruned), [replace(case.hints[0], name="nowhere")])
    assert hook.loss(Moment(0, 1, Samples({}, None, 0)), torch.tensor(1.0)).item() == 1.0


def test_what_a_block_gives_is_learned(case: Case) -> None:
    def distance(model: Model) -> float:
        wanted = inner(case.original, "i")[:, case.hints[0].kept[1]]
        return float(np.square(inner(model, "i") - wanted).mean() / wanted.var())

    plain, hinted = (
        finetune(case.pruned, noise(), case.original, OPTIONS, judges=noise(seed=1), hints=hints).model
        for hints in ((), case.hints)
    )
    assert distance(hinted) < 0.8 * distance(plain)
    assert [node.op_type for node in hinted.proto.graph.node] == [node.op_type for node in case.pruned.proto.graph.node]
    assert [item.name for item in hinted.proto.graph.output] == ["scores"]


def test_a_regulariser_comes_without_hints(case: Case) -> None:
    options = replace(OPTIONS, epochs=0.4, regularize="group-norm")
    plain, hinted = (
        finetune(case.pruned, noise(), case.original, options, judges=noise(seed=1), hints=hints).model
        for hints in ((), case.hints)
    )
    assert plain.sha256 == hinted.sha256
