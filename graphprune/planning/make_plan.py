# SPDX-License-Identifier: Apache-2.0
"""Planning: from an analysed model and a budget to a plan.

Scores come from a criterion, allowed widths from the levels, widths from a solver; the atoms
with the highest scores stay. Nothing is removed here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from graphprune.cost.counting import cost_after, count_layers
from graphprune.cost.latency.efficiency import efficiency
from graphprune.cost.metrics import cost_of, growing
from graphprune.errors import InternalError, NothingToPruneError, UsageError, quote
from graphprune.model.finite import check_finite
from graphprune.plan.schema import Budget, Certificate, Plan, SolverRecord
from graphprune.plan.structure import structure_digest
from graphprune.planning.adaptive_choice import Candidates, adapt
from graphprune.planning.constraints.bounds import Bounds, WidthRules
from graphprune.planning.constraints.constraints import Constraints
from graphprune.planning.constraints.reach import held_by, unreachable
from graphprune.planning.constraints.start import kept_by, ranked, solve_from
from graphprune.planning.emptying import best_attempt
from graphprune.planning.records import describe_model, recorded_choices
from graphprune.rewrites.merge import Inherit, inherit
from graphprune.solvers import criteria, widths
from graphprune.solvers.bounds.certify import certify
from graphprune.solvers.criteria import Aggregate
from graphprune.solvers.filters import coupled_filters
from graphprune.solvers.moves.levels import rule_for
from graphprune.solvers.problem import Limit, Problem, ensure_sound
from graphprune.solvers.registry import Setting, chosen, settings
from graphprune.solvers.saliency import importance

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from graphprune.analysis.analysis import Analysis
    from graphprune.cost.latency.latency_cost import LatencyCost
    from graphprune.plan.budget import BudgetRequest
    from graphprune.solvers.evidence import Evidence
    from graphprune.solvers.problem import Cost, Solution
    from graphprune.solvers.saliency import Scores

__all__ = [
    "SolveOptions",
    "make_plan",
    "make_problem",
    "score_groups",
]


@dataclass(frozen=True)
class SolveOptions:
    """How a plan is found.

    Parameters
    ----------
    solver : str
        How widths are chosen: a name in :mod:`graphprune.solvers.widths`.
    criterion : str
        How important a channel is: a name in :mod:`graphprune.solvers.criteria`.
    round_to : int or str
        Widths are multiples of this number of channels, 1 switches alignment off; or what a kind of machine likes: a
        rule of :mod:`graphprune.solvers.moves.levels`, "auto" for that of this machine.
    min_keep : int
        The fewest channels that a group keeps; a narrower group stays whole.
    seed : int
        For criteria and solvers that draw.
    aggregate : {"", "sum", "mean", "max", "first"}
        How the scores of a group's members become one; "" leaves it to the criterion.
    settings : mapping of str to bool, int, float or str
        Settings that a solver or criterion has of its own, by name.
    constraints : Constraints
        What may become of single groups.
    threads : int
        With how many threads of onnxruntime a latency is measured.
    certify : bool
        Say how much more saliency any widths within the budgets could keep at most.
    inherit : {"keep", "merge"}
        What becomes of the weights that read a removed channel: they go, or are added to those that read the most
        similar kept channel.
    lossless : bool
        Remove only what changes nothing, whatever that saves; there is no budget then.
    allow_empty : bool
        Let groups go as a whole, with all layers that depend on them, where a residual branch or an operand of a
        concatenation can do without.
    adapt : tuple of str
        Criteria that compete for the choice of channels once widths are chosen
        (:mod:`graphprune.planning.adaptive_choice`).
    """

    solver: str = "bisection"
    criterion: str = "bn-scale"
    round_to: int | str = "auto"
    min_keep: int = 1
    seed: int = 0
    aggregate: Aggregate = ""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    constraints: Constraints = field(default_factory=Constraints)
    threads: int = 1
    certify: bool = False
    inherit: Inherit = "keep"
    lossless: bool = False
    allow_empty: bool = False
    adapt: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.min_keep < 1:
            raise UsageError(f"a group keeps at least one channel, min_keep is {self.min_keep}")
        if self.seed < 0:
            raise UsageError(f"the seed is {self.seed}, but must not be negative")
        if self.threads < 1:
            raise UsageError(f"a latency is measured with at least one thread, threads is {self.threads}")
        if self.aggregate not in get_args(Aggregate):
            known = ", ".join(name for name in get_args(Aggregate) if name)
            raise UsageError(f"scores of members cannot be aggregated by {quote(self.aggregate)}: there are {known}")
        if self.allow_empty and (self.min_keep > 1 or self.constraints.max_prune < 1 or self.constraints.start):
            raise UsageError(
                "groups cannot go as a whole where a least width, a largest share or a plan to start from is given"
            )
        if self.allow_empty and (self.adapt or widths.needs_samples(self.solver)):
            raise UsageError("groups cannot go as a whole where networks are tried out", hint="leave out --allow-empty")

    @property
    def contest(self) -> Candidates:
        """Who competes for the choice of channels."""
        return Candidates(self.adapt, self.criterion, self.solver)

    @property
    def rules(self) -> WidthRules:
        """What is said about widths."""
        return WidthRules(self.round_to, self.min_keep, self.constraints)


def make_plan(
    analysis: Analysis,
    requests: Sequence[BudgetRequest],
    options: SolveOptions,
    latency: LatencyCost | None = None,
    scores: Scores | None = None,
    evidence: Evidence | None = None,
) -> Plan:
    """Choose what to remove so that all budgets hold and no further step of any group fits into them.

    Parameters
    ----------
    analysis : Analysis
    requests : sequence of BudgetRequest
        The first one leads.
    options : SolveOptions
    latency : LatencyCost, optional
        What was measured, where a request limits the latency.
    scores : Scores, optional
        From :func:`score_groups` with the same options, if they are there already.
    evidence : Evidence, optional
        What samples say, for criteria and solvers that need some.

    Raises
    ------
    UnsupportedModelError
        If a weight that may lose channels holds NaN or infinity.
    UsageError
        If there is no such solver, criterion, setting or rounding, or a metric is limited twice.
    NothingToPruneError
        If a budget asks for less and the model has no group.
    BudgetUnreachableError
        If even the narrowest allowed widths cost more.

    Complexity: that of the criterion (each weight is read once) and of the solver.
    """
    score, solve = criteria.get(options.criterion), widths.get(options.solver)
    for_solver, *_ = chosen(options.settings, solve, score, *map(criteria.get, options.adapt))
    options = replace(options, round_to=rule_for(options.round_to))
    limited = _limits(analysis, requests, latency)
    limits = tuple(limit for limit, _ in limited)
    if scores is None:
        scores = score_groups(analysis, options, evidence)
    problem, relaxed = make_problem(analysis, scores, limits, options, evidence=evidence)
    find = partial(_solution, analysis, solve=partial(solve, **for_solver), options=options)
    start, emptied = analysis, frozenset[int]()
    if options.allow_empty:
        if latency is not None:
            raise UsageError("a latency budget cannot be met with --allow-empty", hint="use --flops, or leave one out")
        build = partial(_with_empty, analysis, scores, options)
        found = best_attempt(analysis, problem, build, find)
        if found is not None:
            problem, solution, start, emptied = found.problem, found.solution, found.rest, found.emptied
    if not problem.fits(problem.narrowest):
        raise unreachable(analysis, problem, requests, options.rules)
    if not options.allow_empty:
        solution = find(problem)
    ensure_sound(problem, solution, options.solver)
    kept, adapted = adapt(problem, solution, options.contest, partial(_scores_by, analysis, options, evidence))
    groups, inherited = inherit(analysis, kept, options.inherit)
    spent = [_spent(analysis, start, limit.metric, latency)(solution.widths) for limit in limits]
    budget, *further = (
        Budget(request.metric, request.target, limit.limit, before, after)
        for request, (limit, before), after in zip(requests, limited, spent, strict=True)
    )
    return Plan(
        model=describe_model(analysis),
        budget=budget,
        solver=SolverRecord(
            name=options.solver,
            criterion=options.criterion,
            seed=options.seed,
            options=_record(analysis, options, scores, relaxed=relaxed)
            | adapted
            | inherited
            | ({"emptied": [analysis.groups[number].id for number in sorted(emptied)]} if options.allow_empty else {}),
            trace=tuple(solution.trace),
            certificate=_certificate(problem, solution, options, for_solver),
        ),
        groups=groups,
        layers=count_layers(analysis, start, solution.widths),
        further=tuple(further),
    )


def score_groups(analysis: Analysis, options: SolveOptions, evidence: Evidence | None = None) -> Scores:
    """Return what the criterion says of the atoms of each group.

    Raises
    ------
    UnsupportedModelError
        If a weight that may lose channels holds NaN or infinity.
    UsageError
        If there is no such criterion, or one of its settings is no value for it.
    """
    score = criteria.get(options.criterion)
    (own,) = chosen({name: value for name, value in options.settings.items() if name in settings(score)}, score)
    # A channel with NaN in it would look like the most important or the least important one, by chance.
    check_finite(analysis.model, {member.initializer for group in analysis.groups for member in group.members})
    material = criteria.Material(analysis.groups, analysis.read, options.seed, options.aggregate, evidence)
    return score(material, **own)


def _scores_by(
    analysis: Analysis, options: SolveOptions, evidence: Evidence | None, criterion: str
) -> tuple[npt.NDArray[np.float64], ...]:
    """Return the scores of another criterion, in the order that a plan to start from demands."""
    found, start = score_groups(analysis, replace(options, criterion=criterion), evidence), options.constraints.start
    return found.per_group if start is None else ranked(found.per_group, kept_by(analysis, start))


def _limits(
    analysis: Analysis, requests: Sequence[BudgetRequest], latency: LatencyCost | None
) -> tuple[tuple[Limit, int], ...]:
    """Return what the requests limit, and what the model costs now."""
    metrics = [request.metric for request in requests]
    for metric in metrics:
        if metrics.count(metric) > 1:
            raise UsageError(f"two budgets are given for {metric}", hint="give one for each metric")
    limits = []
    for request in requests:
        cost = _cost(analysis, request.metric, latency)
        before = cost(analysis.cost.sizes)
        limit = request.limit(before)
        if request.target != 1 and not (analysis.groups and before):
            nothing = f"the model has no {request.metric} to save"
            what = nothing if analysis.groups else "no channel of this model may be removed"
            raise NothingToPruneError(what, hint=held_by(analysis))
        limits.append((Limit(request.metric, growing(cost), limit), before))
    return tuple(limits)


def _spent(analysis: Analysis, start: Analysis, metric: str, latency: LatencyCost | None) -> Cost:
    return _cost(analysis, metric, latency) if metric == "latency" else cost_after(analysis, start, metric)


def _cost(analysis: Analysis, metric: str, latency: LatencyCost | None) -> Cost:
    if metric != "latency":
        return cost_of(analysis, metric)
    if latency is None:
        raise InternalError("a latency has to be measured before it can be limited")
    return latency


def make_problem(
    analysis: Analysis,
    scores: Scores,
    limits: tuple[Limit, ...],
    options: SolveOptions,
    emptied: frozenset[int] = frozenset(),
    evidence: Evidence | None = None,
) -> tuple[Problem, bool]:
    """Return the problem to solve, and whether its levels were relaxed to reach the budgets.

    Parameters
    ----------
    emptied : frozenset of int
        Groups whose width is given: nothing.
    """
    nothing = np.zeros(1, dtype=np.int64)
    bounds, start = Bounds(analysis, options.rules), options.constraints.start
    limits = _exact_at_full_width(limits, analysis, bounds.levels())
    for relaxed in (False, True):
        problem = Problem(
            groups=tuple(group.id for group in analysis.groups),
            sizes=analysis.cost.sizes,
            scores=scores.per_group if start is None else ranked(scores.per_group, kept_by(analysis, start)),
            importance=importance(scores),
            limits=limits,
            levels=tuple(
                nothing if number in emptied else levels for number, levels in enumerate(bounds.levels(relaxed=relaxed))
            ),
            seed=options.seed,
            filters=lambda index: coupled_filters(analysis.groups[index], analysis.read),
            comparable=scores.comparable,
            efficiency=efficiency(analysis) if isinstance(options.round_to, str) else None,
            evidence=evidence,
        )
        if problem.fits(problem.narrowest):
            break
    return problem, relaxed


def _exact_at_full_width(
    limits: tuple[Limit, ...], analysis: Analysis, levels: tuple[npt.NDArray[np.int64], ...]
) -> tuple[Limit, ...]:
    """Let every cost be that of the original at full width, if all limits allow that.

    The written size of a pruned model is bounded from above, which would not let the model stay as it is.
    """
    sizes = analysis.cost.sizes
    allowed = all(own[-1] == size for own, size in zip(levels, sizes, strict=True))
    exact = [replace(limit, cost=growing(limit.cost, whole=True)) for limit in limits]
    return tuple(exact) if allowed and all(limit.cost(sizes) <= limit.limit for limit in exact) else limits


def _with_empty(
    analysis: Analysis, scores: Scores, options: SolveOptions, limits: tuple[Limit, ...], emptied: frozenset[int]
) -> Problem:
    """Return the problem in which some groups are empty."""
    problem, _ = make_problem(analysis, scores, limits, options, emptied)
    return problem


def _solution(
    analysis: Analysis, problem: Problem, solve: Callable[[Problem], Solution], options: SolveOptions
) -> Solution:
    """Solve a problem, from a given plan if there is one."""
    start = options.constraints.start
    return solve(problem) if start is None else solve_from(problem, kept_by(analysis, start), solve)


def _certificate(
    problem: Problem, solution: Solution, options: SolveOptions, settings: Mapping[str, Setting]
) -> Certificate | None:
    """Return how good a solution is, if that is asked for or the solver knows it."""
    if not options.certify and solution.bound is None:
        return None
    proof = certify(problem, solution, str(settings.get("normalize", "auto")))
    return Certificate(proof.objective, proof.bound, proof.gap)


def _record(analysis: Analysis, options: SolveOptions, scores: Scores, *, relaxed: bool) -> dict[str, Any]:
    """Return what else is needed to follow or repeat the choice."""
    return {
        "round_to": options.round_to,
        "min_keep": options.min_keep,
        **({"aggregate": options.aggregate} if options.aggregate else {}),
        **({"settings": dict(sorted(options.settings.items()))} if options.settings else {}),
        **({"constraints": constraints} if (constraints := options.constraints.record()) else {}),
        "relaxed": relaxed,
        "attention": analysis.attention,
        "approximate": analysis.approximate,
        "scores_from": dict(sorted(Counter(scores.source).items())),
        "choices": recorded_choices(analysis),
        "structure": structure_digest(analysis.model.proto),
    }
