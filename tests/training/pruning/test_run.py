# SPDX-License-Identifier: Apache-2.0
"""A network that shrinks while it trains stays a part of the whole model, and a run that was killed goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import ModelProto
from pruning_cases import KINDS, QUICK, grouped, labelled, trained, unlabelled
from training_cases import images, infer

import graphprune
from graphprune.errors import BudgetUnreachableError, NotImprovedError, UsageError
from graphprune.plan.schema import Plan
from graphprune.rewrites.merge import inherit
from graphprune.solvers import training
from graphprune.solvers.training.cac import Cac
from graphprune.solvers.training.slimming import Slimming
from graphprune.training.bridge import Trainable, to_torch
from graphprune.training.preparation import prepare
from graphprune.training.pruning import running_network as running
from graphprune.training.pruning import train as runs
from graphprune.training.pruning.cost_schedule import CostSchedule
from graphprune.training.pruning.run import Run
from graphprune.training.pruning.running_network import begin, shrunk


def planned(model: graphprune.Model, share: float = 0.5) -> Plan:
    budget = graphprune.BudgetRequest("flops", share)
    return graphprune.solve(model, budget, graphprune.SolveOptions(solver="uniform", criterion="l1", round_to=1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_network_is_the_pruned_one(kind: str) -> None:
    model = graphprune.load(KINDS[kind]())
    plan = planned(model, 0.7)
    found = shrunk(begin(to_torch(model), graphprune.analyze(model)), plan)
    assert found.cut
    x = images(4)
    with torch.no_grad():
        got = found.net.module(torch.from_numpy(x)).numpy()
    assert np.abs(got - infer(graphprune.apply(model, plan), x)).max() < 1e-4
    for group, item in zip(found.whole.groups, plan.groups, strict=True):
        assert np.flatnonzero(found.alive(group.id)).tolist() == list(item.kept)
        if group.id in found.atoms:
            assert sorted(found.atoms[group.id].tolist()) == list(item.kept)
        else:
            assert len(item.kept) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_weights_go_back_to_where_they_came_from(kind: str) -> None:
    """What the cut network learns, the whole model has where it was not cut; the rest is what it was."""
    model = graphprune.load(KINDS[kind]())
    plan = planned(model, 0.7)
    found = shrunk(begin(to_torch(model), graphprune.analyze(model)), plan)
    assert found.written() is found.whole.model  # nothing was learned yet
    with torch.no_grad():
        for value in found.net.module.parameters():
            value.add_(0.01)
    whole = found.written()
    x = images(4)
    with torch.no_grad():
        expected = found.net.module(torch.from_numpy(x)).numpy()
    again = graphprune.apply(whole, plan, rebind=True)
    assert np.abs(infer(again, x) - expected).max() < 1e-4
    assert np.abs(infer(again, x) - infer(graphprune.apply(model, plan), x)).max() > 1e-3


@pytest.mark.parametrize("made", [KINDS["concat"], grouped])
def test_atoms_keep_their_gates(made: Callable[[], ModelProto]) -> None:
    """A gate of the cut network belongs to the atoms that it says: shutting one is shutting it in the whole model."""
    model = graphprune.load(made())
    analysis = graphprune.analyze(model)
    assert bool(analysis.ranks) is (made is grouped)
    plan = planned(model, 0.7)
    data = labelled()
    task, _, _ = prepare(model, data, None, QUICK)
    run = Run(begin(task.net, analysis), task, data, (), graphprune.SolveOptions(), 1)
    assert run.shrink(plan)
    gates = run.attach()
    name = next(iter(gates))
    atoms = run.running.atoms[name]
    value = torch.ones(len(atoms))
    value[1] = 0.0
    gates[name].value = value
    kept = [np.array(group.kept) for group in plan.groups]
    number = next(i for i, group in enumerate(analysis.groups) if group.id == name)
    kept[number] = np.setdiff1d(kept[number], [atoms[1]])
    groups, _ = inherit(analysis, tuple(kept), "keep")
    whole = run.running.whole
    other = shrunk(begin(to_torch(whole.model), whole), replace(plan, groups=groups))
    x = torch.from_numpy(images(4))
    run.running.net.module.eval()
    with torch.no_grad():
        assert torch.allclose(run.running.net.module(x), other.net.module(x), atol=1e-5)


class StoppedError(Exception):
    """Somebody pulled the plug."""


KILLED = [(name, "folded", "always", 15) for name in training.names()]
KILLED += [("cac", "residual", "always", 5), ("cac", "folded", "never", 15), ("white-box", "folded", "never", 9)]
KILLED += [("cac", "folded", "once", 15)]


def cut_once(net: Trainable, whole: graphprune.Analysis, plan: Plan, first: list[int]) -> bool:
    """Whether a plan removes no more than the first that was asked about; of later ones nothing fits."""
    kept = sum(len(group.kept) for group in plan.groups)
    first.append(kept)
    return kept >= first[0]


def limit_cuts(monkeypatch: pytest.MonkeyPatch, cut: str) -> None:
    """Let networks be cut always, never or once, as where surgery makes tensors that the model does not have."""
    if cut != "always":
        monkeypatch.setattr(running, "fits", partial(cut_once, first=[]) if cut == "once" else lambda *_: False)


def test_a_network_that_cannot_be_cut_again_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_cuts(monkeypatch, "once")
    model = graphprune.load(KINDS["folded"]())
    first, second = planned(model, 0.7), planned(model, 0.5)
    once = shrunk(begin(to_torch(model), graphprune.analyze(model)), first)
    again = shrunk(once, second)
    assert once.cut
    assert not again.cut
    assert again.net is once.net
    assert again.cut_by is first
    for group, item in zip(again.whole.groups, second.groups, strict=True):
        assert np.flatnonzero(again.alive(group.id)).tolist() == list(item.kept)
    with torch.no_grad():
        for value in again.net.module.parameters():
            value.add_(0.01)
    x = images(4)
    with torch.no_grad():
        expected = again.net.module(torch.from_numpy(x)).numpy()
    assert np.abs(infer(graphprune.apply(again.written(), first, rebind=True), x) - expected).max() < 1e-4


@pytest.mark.parametrize(("name", "kind", "cut", "after"), KILLED)
def test_a_run_that_was_killed_ends_as_if_it_was_not(
    name: str, kind: str, cut: str, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_cuts(monkeypatch, cut)
    method = training.get(name)
    state = tmp_path / "state.safetensors"
    how = replace(QUICK, checkpoint=state, checkpoint_every=2)
    whole = trained(KINDS[kind](), method(), labelled(), how)
    state.unlink()
    steps = 0

    class Dying(runs.Trainer):
        def step(self, samples: object, number: int) -> float:
            nonlocal steps
            steps += 1
            if steps > after:
                raise StoppedError
            return super().step(samples, number)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(runs, "Trainer", Dying)
        with pytest.raises(StoppedError):
            trained(KINDS[kind](), method(), labelled(), how)
    assert state.exists()
    again = trained(KINDS[kind](), method(), labelled(), replace(how, resume=True))
    assert again.model.sha256 == whole.model.sha256
    assert again.plan == whole.plan


def test_the_same_seed_gives_the_same_plan() -> None:
    first, second = (trained(KINDS["depthwise"](), Cac(), labelled()) for _ in range(2))
    assert first.model.sha256 == second.model.sha256
    other = trained(KINDS["depthwise"](), Cac(), labelled(), replace(QUICK, seed=1))
    assert other.model.sha256 != first.model.sha256


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    how = replace(QUICK, checkpoint=tmp_path / "state.safetensors")
    trained(KINDS["folded"](), Slimming(), labelled(), how)
    with pytest.raises(UsageError, match="belongs to a run"):
        trained(KINDS["folded"](), Slimming(strength=0.5), labelled(), replace(how, resume=True))


def test_what_cannot_be_reached_is_said_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "prepare", lambda *_: pytest.fail("training began"))
    with pytest.raises(BudgetUnreachableError):
        trained(KINDS["transformer"](), Slimming(), labelled(), share=0.01)
    with pytest.raises(UsageError, match="latency"):
        graphprune.train(
            graphprune.load(KINDS["folded"]()), unlabelled(), graphprune.BudgetRequest("latency", 0.5), "slimming"
        )


def test_numbers_that_blow_up_end_the_run() -> None:
    with pytest.raises(NotImprovedError, match="not finite"):
        trained(KINDS["transformer"](), Slimming(), labelled(), replace(QUICK, rate=1e30))


def test_schedules() -> None:
    cubic, linear = CostSchedule("cubic", 0.1, 0.5, 4), CostSchedule("linear", 0.1, 0.5, 4)
    assert cubic.steps(100) == linear.steps(100) == (20, 30, 40, 50)
    assert [round(linear.way(step, 100), 6) for step in (5, 10, 20, 30, 50, 90)] == [0, 0, 0.25, 0.5, 1, 1]
    assert [round(cubic.way(step, 100), 6) for step in (10, 20, 30, 50)] == [0, 1 - 0.75**3, 0.875, 1]
    assert CostSchedule(times=9).steps(3) == (1,)
    for wrong in ({"shape": "square"}, {"begin": 0.5, "end": 0.5}, {"times": 0}):
        with pytest.raises(UsageError):
            CostSchedule(**wrong)  # type: ignore[arg-type]
