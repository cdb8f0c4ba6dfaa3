# SPDX-License-Identifier: Apache-2.0
"""Records: what a plan says of its model, of the choices that its groups rest on, and of how it came about."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from graphprune.cost.counting import count_layers
from graphprune.data.providers import current
from graphprune.labels.rules.convolution import EACH_GROUP
from graphprune.plan.schema import Budget, Certificate, Plan, PlanModel, SolverRecord
from graphprune.plan.structure import outline, structure_digest
from graphprune.solvers import criteria
from graphprune.solvers import widths as width_solvers
from graphprune.solvers.bounds.certify import certify

if TYPE_CHECKING:
    from collections.abc import Mapping

    from graphprune.analysis.analysis import Analysis
    from graphprune.planning.choose_channels import ChosenChannels
    from graphprune.planning.choose_widths import ChosenWidths
    from graphprune.planning.planning_task import PlanningTask
    from graphprune.solvers.registry import Setting

__all__ = ["describe_model", "record_plan", "recorded_choices"]


def record_plan(
    task: PlanningTask, widths: ChosenWidths, channels: ChosenChannels, settings: Mapping[str, Setting]
) -> Plan:
    """Return the plan that says what was chosen, and how.

    Parameters
    ----------
    task : PlanningTask
    widths : ChosenWidths
    channels : ChosenChannels
    settings : mapping of str to bool, int, float or str
        Settings that the solver was called with.
    """
    options = task.options
    budget, *further = (
        Budget(limited.request.metric, limited.request.target, limited.limit, limited.cost.before, after)
        for limited, after in zip(task.budgets, widths.spent, strict=True)
    )
    return Plan(
        model=describe_model(task.analysis),
        budget=budget,
        solver=SolverRecord(
            name=options.solver,
            criterion=options.criterion,
            seed=options.seed,
            options=_options(task, widths) | channels.record | _emptied(task, widths),
            trace=tuple(widths.solution.trace),
            certificate=_certificate(task, widths, settings),
        ),
        groups=channels.groups,
        layers=count_layers(task.analysis, widths.start, widths.solution.widths),
        further=tuple(further),
    )


def _options(task: PlanningTask, widths: ChosenWidths) -> dict[str, Any]:
    """Return what is needed to follow or repeat the choice."""
    analysis, options = task.analysis, task.options
    return {
        "round_to": options.round_to,
        "min_keep": options.min_keep,
        **({"aggregate": options.aggregate} if options.aggregate else {}),
        **({"settings": dict(sorted(options.settings.items()))} if options.settings else {}),
        **({"constraints": constraints} if (constraints := options.constraints.record()) else {}),
        **({"device": current().name} if _measured(task) else {}),
        "relaxed": widths.relaxed,
        "attention": analysis.attention,
        "approximate": analysis.approximate,
        "scores_from": dict(sorted(Counter(task.scores.source).items())),
        "choices": recorded_choices(analysis),
        "structure": structure_digest(analysis.model.proto),
        "outline": outline(analysis.model.proto),
    }


def _measured(task: PlanningTask) -> bool:
    """Whether networks were run for the choice of widths or channels."""
    options = task.options
    named = (options.criterion, *options.adapt)
    return task.evidence is not None and (
        width_solvers.needs_samples(options.solver) or bool(options.adapt) or any(map(criteria.needs_samples, named))
    )


def _emptied(task: PlanningTask, widths: ChosenWidths) -> dict[str, Any]:
    """Return which groups go as a whole, if any were allowed to."""
    if not task.options.allow_empty:
        return {}
    return {"emptied": [task.analysis.groups[number].id for number in sorted(widths.emptied)]}


def _certificate(task: PlanningTask, widths: ChosenWidths, settings: Mapping[str, Setting]) -> Certificate | None:
    """Return how good a solution is, if that is asked for or the solver knows it."""
    if not task.options.certify and widths.solution.bound is None:
        return None
    proof = certify(widths.problem, widths.solution, str(settings.get("normalize", "auto")))
    return Certificate(proof.objective, proof.bound, proof.gap)


def recorded_choices(analysis: Analysis) -> list[dict[str, Any]]:
    """Say which axes carry the channels wherever there was a choice, and which outputs of conv groups go together."""
    entries: list[dict[str, Any]] = [
        {"node": choice.node.label, "carried": None if taken is None else taken.name}
        for choice, taken in analysis.resolution.committed
        if len(choice.alternatives) > 1 and choice.node.label not in analysis.ranks
    ]
    ranked = analysis.ranks.items()
    return [*entries, *({"node": name, "carried": EACH_GROUP, "ranks": ranks.tolist()} for name, ranks in ranked)]


def describe_model(analysis: Analysis) -> PlanModel:
    """Return what a plan records of its model."""
    model = analysis.model
    opset = max((entry.version for entry in model.proto.opset_import if entry.domain in ("", "ai.onnx")), default=1)
    inputs = {name: tuple(int(size) for size in shape) for name, shape in analysis.input_shapes.items()}
    return PlanModel(model.name, model.sha256, int(model.proto.ir_version), int(opset), inputs)
