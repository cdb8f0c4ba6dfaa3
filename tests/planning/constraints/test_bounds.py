# SPDX-License-Identifier: Apache-2.0
"""Constraints are part of the problem: plans keep them and the budget, and no step is left that fits into both."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from constraint_cases import analysis, plan, widths
from recovery_models import samples

from graphprune import BudgetRequest, Constraints, SolveOptions, solve
from graphprune.errors import BudgetUnreachableError, UsageError
from graphprune.planning.constraints.bounds import Bounds
from graphprune.planning.make_plan import SolveOptions as Options
from graphprune.solvers.widths import names

SIZES = [16, 24, 8]


def levels(*, round_to: int = 1, min_keep: int = 1, **constraints: object) -> list[list[int]]:
    options = Options(round_to=round_to, min_keep=min_keep, constraints=Constraints(**constraints))  # type: ignore[arg-type]
    return [allowed.tolist() for allowed in Bounds(analysis(), options.rules).levels()]


@pytest.mark.parametrize(("share", "fewest"), [(0.5, [8, 12, 4]), (0.3, [12, 17, 6]), (0.01, SIZES), (1.0, [1, 1, 1])])
def test_a_group_loses_at_most_a_share(share: float, fewest: list[int]) -> None:
    assert [allowed[0] for allowed in levels(max_prune=share)] == fewest
    assert all(b - a == 1 for allowed in levels(max_prune=share) for a, b in pairwise(allowed))


def test_a_share_is_the_decimal_number_that_was_written() -> None:
    assert levels(max_prune=0.29 + 0.0)[0][0] == 16 - 4  # 4.64 atoms
    assert Bounds(analysis(), Options(round_to=1, constraints=Constraints(max_prune=0.625)).rules).levels()[2][0] == 3


def test_only_and_skip_leave_groups_whole() -> None:
    assert levels(only=("one", "three"))[0] == [16]
    assert levels(skip=("t*",)) == [[16], list(range(1, 25)), [8]]
    assert levels(only=("one", "three"), skip=("three",)) == [[16], list(range(1, 25)), [8]]


def test_given_widths_come_before_what_is_said_of_all() -> None:
    found = levels(round_to=8, min_keep=20, max_prune=0.2, widths={"one": 5, "g002": 12})
    assert found == [[16], [5], [3]]


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ({"widths": {"three": 10}}, "come 4 at a time"),
        ({"widths": {"one": 25}}, "25 channels, but it has 24"),
        ({"widths": {"on": 8}}, "'on' names no group"),
        ({"widths": {"one": 8, "g001": 8}}, "names g001 ('one') twice: 'one' and 'g001'"),
        ({"widths": {"one": 8}, "skip": ("one",)}, "8 channels, but --skip keeps it whole"),
        ({"widths": {"one": 8}, "only": ("three",)}, "8 channels, but --only keeps it whole"),
    ],
)
def test_contradictions_are_refused(constraints: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        levels(**constraints)
    assert message in raised.value.message


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ({"max_prune": 0}, "at most 0"),
        ({"max_prune": float("nan")}, "at most nan"),
        ({"max_prune": 1.5}, "at most 1.5"),
        ({"max_prune": True}, "at most True"),
        ({"only": "stem"}, "the text 'stem'"),
        ({"widths": {"one": 0}}, "'one' is 0"),
        ({"widths": {"one": True}}, "'one' is True"),
    ],
)
def test_values_without_a_meaning_are_refused(constraints: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        Constraints(**constraints)  # type: ignore[arg-type]
    assert message in raised.value.message


@pytest.mark.parametrize("solver", names())
@pytest.mark.parametrize(
    "constraints", [{"max_prune": 0.4}, {"skip": ("one",)}, {"widths": {"one": 12}}, {"only": ("one", "three")}]
)
def test_plans_keep_constraints_and_budget_and_are_maximal(solver: str, constraints: dict[str, object]) -> None:
    model, limits = analysis(), Constraints(**constraints)  # type: ignore[arg-type]
    options = SolveOptions(solver=solver, criterion="l1", round_to=1, constraints=limits)
    found = solve(model, BudgetRequest("flops", 0.75), options, data=samples(model.model.proto, 32))
    kept, allowed = widths(found), Bounds(model, options.rules).levels()
    cost, limit = model.cost.flops, found.budget.limit
    assert cost(kept) == found.budget.after <= limit
    for group, own in enumerate(allowed):
        assert kept[group] in own
        for width in own[own > kept[group]][:1]:
            wider = kept.copy()
            wider[group] = width
            assert cost(wider) > limit
    assert found.solver.options["constraints"] == limits.record()


def test_a_plan_without_constraints_records_none() -> None:
    assert "constraints" not in plan(0.7).solver.options


def test_what_is_out_of_reach_names_the_constraint_that_holds_it() -> None:
    with pytest.raises(BudgetUnreachableError) as raised:
        plan(0.2, max_prune=0.4, skip=("three",))
    cost = analysis().cost.flops
    hint, full = raised.value.hint or "", cost(np.array(SIZES))
    for name, least in (("40 % off a group (--max-prune)", [1, 1, 8]), ("that --skip names", [10, 15, 5])):
        (shown,) = re.findall(re.escape(name) + r" \((\S+) without\)", hint)
        assert 0 <= float(shown) - cost(np.array(least)) / full < 0.002
    assert "--only" not in hint and "--widths" not in hint


def test_constraints_that_hold_only_together_are_named_together() -> None:
    with pytest.raises(BudgetUnreachableError) as raised:
        plan(0.02, skip=("one",), only=("stem", "three"))
    hint = raised.value.hint or ""
    assert "groups that --only does not name, groups that --skip names" in hint
    assert "without" not in hint


def test_given_widths_of_all_groups_are_the_plan() -> None:
    found = plan(0.6, widths={"stem": 10, "one": 7, "three": 32})
    assert widths(found).tolist() == [10, 7, 8]
    with pytest.raises(BudgetUnreachableError, match=r"cannot reach flops 0\.2") as raised:
        plan(0.2, widths={"stem": 10, "one": 7, "three": 32})
    assert "given widths (--widths)" in (raised.value.hint or "")
    assert np.all(widths(plan(1.0)) == SIZES)
