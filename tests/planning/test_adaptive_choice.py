# SPDX-License-Identifier: Apache-2.0
"""Adaptive inheritance: criteria compete, held-out samples decide, and the plan says how it went."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_up_outcomes import with_evidence
from outcome_cases import analysis, samples
from solver_cases import problem

from graphprune import BudgetRequest, Constraints, SolveOptions, apply, solve, verify
from graphprune.errors import UsageError
from graphprune.evidence.sample_evidence import SampleEvidence
from graphprune.planning.adaptive_choice import Candidates, adapt
from graphprune.planning.make_plan import score_groups
from graphprune.report.summary import plan_notes
from graphprune.solvers.problem import Solution
from graphprune.solvers.saliency import select

HALF = BudgetRequest("flops", 0.5)
NAMES = ("l1", "fpgm", "random")


@pytest.mark.parametrize("labelled", [False, True])
def test_the_best_candidate_is_kept_at_the_widths_of_the_solver(labelled: bool) -> None:
    model, source = analysis(), samples(labelled=labelled)
    options = SolveOptions("uniform", "l1", round_to=1, adapt=NAMES)
    found = solve(model, HALF, options, data=source)
    plain = solve(model, HALF, replace(options, adapt=()))
    assert [len(group.kept) for group in found.groups] == [len(group.kept) for group in plain.groups]
    assert found.budget == plain.budget
    record = found.solver.options["adapt"]
    assert record["measure"] == ("accuracy" if labelled else "agreement")
    assert record["samples"] == 40 and record["recovered"] == "bn"
    assert [entry["name"] for entry in record["contest"]] == list(NAMES)
    outcomes = SampleEvidence(model, source).outcomes
    for entry in record["contest"]:
        scores = score_groups(model, replace(options, criterion=entry["name"]))
        kept = tuple(select(own, len(group.kept)) for own, group in zip(scores.per_group, found.groups, strict=True))
        outcome = outcomes.realise(kept, "bn")
        assert (outcome.score, outcome.error) == (entry["score"], entry["error"])
        if entry["name"] == record["chosen"]:
            assert [tuple(atoms.tolist()) for atoms in kept] == [group.kept for group in found.groups]
    ranked = [(entry["score"], -entry["error"]) for entry in record["contest"]]
    assert record["contest"][ranked.index(max(ranked))]["name"] == record["chosen"]
    assert verify(model, apply(model, found), found).status == "verified"
    (note,) = (note for note in plan_notes(found) if note.startswith("channels by"))
    assert all(name in note for name in (*NAMES, record["measure"]))


def test_what_a_solver_chose_takes_part_under_its_name() -> None:
    options = SolveOptions("sensitivity", "l1", round_to=1, adapt=("random", "l1"))
    record = solve(analysis(), HALF, options, data=samples()).solver.options["adapt"]
    assert [entry["name"] for entry in record["contest"]] == ["random", "l1", "sensitivity"]


def test_a_plan_to_start_from_binds_all_candidates() -> None:
    start = solve(analysis(), BudgetRequest("flops", 0.8), SolveOptions("uniform", "random", round_to=1))
    options = SolveOptions("uniform", "l1", round_to=1, adapt=NAMES, constraints=Constraints(start=start))
    found = solve(analysis(), HALF, options, data=samples())
    for own, before in zip(found.groups, start.groups, strict=True):
        small, large = sorted((set(own.kept), set(before.kept)), key=len)
        assert small <= large  # what is left of the budget may widen a group beyond the plan


def test_of_equal_candidates_the_first_is_kept() -> None:
    case = with_evidence(problem([8, 8]))
    scores = tuple(np.arange(8.0) for _ in range(2))
    solution = Solution(np.array([4, 4]), [])
    kept, record = adapt(case, solution, Candidates(("b", "a"), "l1", "uniform"), lambda name: scores)
    assert record["adapt"]["chosen"] == "b"
    assert kept[0].tolist() == [4, 5, 6, 7]
    kept, record = adapt(case, solution, Candidates((), "l1", "uniform"), lambda name: scores)
    assert record == {} and kept[0].tolist() == np.sort(np.argsort(-case.scores[0])[:4]).tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapt": ("l1", "l1")}, "'l1' is to compete twice"),
        ({"adapt": ("l1", "nothing")}, "unknown criterion 'nothing'"),
    ],
)
def test_what_means_nothing_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        solve(analysis(), HALF, SolveOptions(round_to=1, **options), data=samples())  # type: ignore[arg-type]


def test_without_samples_there_is_no_contest() -> None:
    with pytest.raises(UsageError, match="'adapt' looks at samples"):
        solve(analysis(), HALF, SolveOptions(round_to=1, adapt=("l1", "l2")))


@pytest.mark.parametrize("options", [{"adapt": ("l1", "l2")}, {"solver": "cap"}])
def test_networks_without_whole_groups_are_not_tried_out(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="tries out networks"):
        SolveOptions(allow_empty=True, **options)  # type: ignore[arg-type]
