# SPDX-License-Identifier: Apache-2.0
"""Comparing: every solver with every criterion, each with what a plan of its own says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
from constraint_cases import analysis

from graphprune import BudgetRequest, Constraints, SolveOptions, open_data, solve
from graphprune.errors import BudgetUnreachableError, UsageError
from graphprune.planning.make_plan import score_groups
from graphprune.solvers import criteria, widths
from graphprune.trials.attempt import described, kept_share
from graphprune.trials.compare import compare
from graphprune.trials.contest import Contest
from graphprune.trials.meter import Measures

if TYPE_CHECKING:
    from pathlib import Path

    from graphprune.report.trials import Trial

HALF = BudgetRequest("flops", 0.5)


def test_a_trial_says_what_the_plan_says() -> None:
    model = analysis()
    options = SolveOptions(round_to=1, constraints=Constraints(skip=("three",)))
    contest = Contest(("bisection", "uniform"), ("l1", "random"), options)
    trials = compare(model, HALF, contest)
    assert [(trial.criterion, trial.solver) for trial in trials] == [
        *(("l1", "bisection"), ("l1", "uniform"), ("random", "bisection"), ("random", "uniform"))
    ]
    for trial in trials:
        plan = solve(model, HALF, contest.choice(trial.solver, trial.criterion))
        assert trial.widths == tuple((len(group.kept), group.size) for group in plan.groups)
        assert trial.flops == trial.cost == (plan.budget.before, plan.budget.after)
        assert trial.params[1] == sum(layer.params_after for layer in plan.layers)
        assert 0 < trial.kept < 1 and trial.seconds > 0
        assert trial.gap is None and trial.latency is None and trial.note == ""


def test_kept_saliency_is_that_of_the_atoms_that_stay() -> None:
    model = analysis()
    options = SolveOptions(criterion="l1", round_to=1)
    plan, scores = solve(model, HALF, options), score_groups(model, options)
    parts = [
        (values[list(group.kept)].sum() / values.mean(), len(values))
        for values, group in zip(scores.per_group, plan.groups, strict=True)
    ]
    assert kept_share(plan, scores) == pytest.approx(sum(kept for kept, _ in parts) / sum(size for _, size in parts))
    assert kept_share(solve(model, BudgetRequest("flops", 1.0), options), scores) == pytest.approx(1.0)


def test_all_is_every_name_that_there_is() -> None:
    contest = Contest(("all",), ("all",), measures=Measures(calib="images/"))
    assert contest.all_solvers == widths.names()
    assert contest.all_criteria == criteria.names()
    blind = Contest(("all",), ("all",))
    assert {"l1", "domino-io"} <= set(blind.all_criteria) < set(criteria.names())
    assert not any(map(criteria.needs_samples, blind.all_criteria))
    assert not any(map(widths.needs_samples, blind.all_solvers))


def test_a_setting_goes_to_those_that_have_it() -> None:
    contest = Contest(("bisection", "uniform"), ("l1",), SolveOptions(settings={"exponent": "4"}, round_to=1))
    assert contest.choice("uniform", "l1").settings == {}
    assert contest.choice("bisection", "l1").settings == {"exponent": "4"}
    spread, uniform = compare(analysis(), BudgetRequest("flops", 0.3), contest)
    assert np.ptp([kept / size for kept, size in spread.widths]) > np.ptp(
        [kept / size for kept, size in uniform.widths]
    )
    with pytest.raises(UsageError, match="unknown setting 'exponent': these methods have none"):
        Contest(("uniform",), ("l1",), SolveOptions(settings={"exponent": "4"}))


@pytest.mark.parametrize(
    ("solvers", "message"),
    [
        (("uniform", "uniform"), "'uniform' is given twice"),
        (("all", "uniform"), "'all' stands for every name"),
        (("unifrom",), "unknown solver 'unifrom'"),
        ((), "no name is given"),
    ],
)
def test_names_that_mean_nothing(solvers: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        Contest(solvers)
    assert message in raised.value.message


def test_who_cannot_says_why_and_if_nobody_can_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def gives_up(problem: object) -> object:
        raise BudgetUnreachableError("not with me")

    monkeypatch.setitem(widths._registry._methods, "gives-up", gives_up)
    contest = Contest(("gives-up", "uniform"), ("l1",))
    failed, done = compare(analysis(), HALF, contest)
    assert failed.note == "not with me" and failed.widths == ()
    assert done.note == "" and done.widths
    with pytest.raises(BudgetUnreachableError, match="cannot reach"):
        compare(analysis(), BudgetRequest("flops", 0.001), contest)


@pytest.mark.parametrize("solvers", [("bisection", "uniform"), ("bisection", "milp", "uniform")])
def test_all_trials_of_a_criterion_are_held_against_one_bound(solvers: tuple[str, ...]) -> None:
    model, options = analysis(), SolveOptions(round_to=1, certify=True)
    contest = Contest(solvers, ("l1", "lamp"), options)
    trials = compare(model, HALF, contest)
    for criterion in contest.criteria:
        own = [trial for trial in trials if trial.criterion == criterion]
        (bound,) = {trial.bound for trial in own}
        assert bound is not None and bound >= max(trial.kept for trial in own) - 1e-9
        for trial in own:
            certificate = solve(model, HALF, contest.choice(trial.solver, criterion)).solver.certificate
            assert certificate is not None and trial.gap is not None
            assert trial.gap == pytest.approx((bound - trial.kept) / bound, abs=1e-9)
            assert trial.gap == pytest.approx(certificate.gap, abs=0.01)


def test_from_a_plan_each_trial_has_a_bound_of_its_own() -> None:
    start = solve(analysis(), HALF, SolveOptions(criterion="random", round_to=1))
    options = SolveOptions(round_to=1, certify=True, constraints=Constraints(start=start))
    contest = Contest(("bisection", "uniform"), ("l1",), options)
    assert not contest.one_scale
    for trial in compare(analysis(), BudgetRequest("flops", 0.3), contest):
        certificate = solve(
            analysis(), BudgetRequest("flops", 0.3), contest.choice(trial.solver, "l1")
        ).solver.certificate
        assert certificate is not None and trial.gap == pytest.approx(certificate.gap)


def test_latency_is_measured_if_asked_for() -> None:
    (trial,) = compare(analysis(), HALF, Contest(("uniform",), ("l1",), measures=Measures(bench=True)))
    assert trial.latency is not None and all(value > 0 for value in trial.latency)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write samples of which the original is right for three in four, with labels and without."""
    folder = tmp_path_factory.mktemp("samples")
    drawn = np.random.default_rng(3).standard_normal((40, 3, 8, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(analysis().model.proto.SerializeToString())
    labels = np.array([int(session.run(None, {"x": sample[None]})[0].argmax()) for sample in drawn])
    np.savez(folder / "plain.npz", x=drawn)
    np.savez(folder / "same.npz", x=drawn, labels=labels)
    np.savez(folder / "labels.npz", x=drawn, labels=(labels + (np.arange(40) % 4 == 0)) % 5)
    return folder


def test_accuracy_is_measured_if_asked_for(samples: Path) -> None:
    def accuracy(measures: Measures, share: float = 0.5) -> Trial:
        (trial,) = compare(analysis(), BudgetRequest("flops", share), Contest(("uniform",), ("l1",), measures=measures))
        return trial

    whole = accuracy(Measures(data=str(samples / "labels.npz")), 1.0)
    assert whole.accuracy == (0.75, 0.75) and whole.agreement is None
    same = accuracy(Measures(data=str(samples / "same.npz")))
    assert same.accuracy is not None and same.accuracy[0] == 1.0 and 0 < same.accuracy[1] < 1
    plain = accuracy(Measures(data=str(samples / "plain.npz")))
    assert plain.accuracy is None and plain.agreement == same.accuracy[1]  # its labels are what the original says
    few = accuracy(Measures(data=str(samples / "same.npz"), limit=3))
    assert few.accuracy is not None and round(3 * few.accuracy[1], 6).is_integer()
    recovered = accuracy(Measures(data=str(samples / "same.npz"), calib=str(samples / "plain.npz")))
    assert recovered.accuracy is not None and recovered.accuracy[1] > same.accuracy[1]
    for trial in (whole, same, plain):
        assert trial.quality == (trial.accuracy[1] if trial.accuracy else trial.agreement)


def test_recovered_models_are_measured_on_what_is_held_out(samples: Path) -> None:
    measures = Measures(calib=str(samples / "plain.npz"))
    (trial,) = compare(analysis(), HALF, Contest(("uniform",), ("l1",), measures=measures))
    assert trial.agreement is not None
    assert trial.judged.startswith(f"5 held-out samples of {samples / 'plain.npz'}; too few to tell")
    bare = replace(measures, recover=False)
    (other,) = compare(analysis(), HALF, Contest(("uniform",), ("l1",), measures=bare))
    assert other.agreement is not None and other.agreement != trial.agreement


def test_methods_that_look_at_samples_need_some() -> None:
    with pytest.raises(UsageError, match="'hrank' looks at samples, and none are given"):
        Contest(("uniform",), ("l1", "hrank"))
    Contest(("uniform",), ("l1", "hrank"), measures=Measures(alone=True))


def test_criteria_that_look_at_samples_are_compared_like_others(samples: Path) -> None:
    model, options = analysis(), SolveOptions(round_to=1, certify=True)
    measures = Measures(calib=str(samples / "plain.npz"))
    trials = compare(model, HALF, Contest(("greedy", "uniform"), ("reconstruct", "hrank"), options, measures))
    source = open_data(measures.calib, model.model)
    for trial in trials:
        plan = solve(model, HALF, replace(options, solver=trial.solver, criterion=trial.criterion), data=source)
        assert trial.widths == tuple((len(group.kept), group.size) for group in plan.groups)
        assert trial.accuracy is None and trial.gap is not None


def test_budgets_in_words() -> None:
    assert described([HALF, BudgetRequest("size", "5MB"), BudgetRequest("params", 1 / 3)]) == (
        "flops 0.5, size 5MB, params 0.333333"
    )
