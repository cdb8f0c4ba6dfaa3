# SPDX-License-Identifier: Apache-2.0
"""The summary of a run: what was planned, what it saves, whether it is proven, and where the files are."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from graphprune.cost.counting import count_costs
from graphprune.model.write import file_bytes
from graphprune.plan.schema import digest
from graphprune.report import text
from graphprune.report.chosen_by import channel_choice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from graphprune.analysis.analysis import Analysis
    from graphprune.model.load import Model
    from graphprune.plan.schema import Budget, Plan
    from graphprune.rewrites.reference import Reference
    from graphprune.verification.verify import Verification

__all__ = [
    "MEASURED",
    "TOLERANCE",
    "Outlook",
    "PruningSummary",
    "Total",
    "analysis_notes",
    "count_totals",
    "gated_notes",
    "plan_json",
    "plan_notes",
    "summary_json",
    "uncounted_notes",
]

_BN_SCALE = "bn-scale"
_SCALES = "BatchNormalization scale"
MEASURED = "eval"
"""The step of a plan that only measures."""
TOLERANCE = 0.05
"""Share by which a measured latency may exceed its budget without a word."""


@dataclass(frozen=True)
class Total:
    """One total, before and after."""

    before: int
    after: int

    @property
    def ratio(self) -> float:
        """The share that is left; 1 where there was nothing."""
        return self.after / self.before if self.before else 1.0

    def as_json(self) -> dict[str, Any]:
        """Return the total as a JSON object."""
        return {"before": self.before, "after": self.after, "ratio": self.ratio}


@dataclass(frozen=True)
class Outlook:
    """What is not known of a result, or not done to it, and what to do next.

    Parameters
    ----------
    unmeasured : str
        Why nothing is known of its accuracy; empty where something is.
    unrecovered : str
        That weights are those of the original; empty where they are not, or where that costs nothing.
    command : str
        What to do next, as it is typed; empty where there is nothing to do, or nothing was written.
    """

    unmeasured: str = ""
    unrecovered: str = ""
    command: str = ""


@dataclass(frozen=True)
class PruningSummary:
    """Everything that `solve` and `apply` report.

    Parameters
    ----------
    command : str
        Name of the command.
    plan : Plan
        The plan that was carried out, and what followed; the timing is of now, or none.
    totals : mapping of str to Total
        "flops", "params", "memory" where it is limited, and "file size" (bytes).
    verification : Verification
        The comparison with the masked original.
    files : mapping of str to str or None
        Paths of "model", "output" and "plan"; None for what was not written.
    notes : tuple of str
        What the user should know besides.
    outlook : Outlook
        What is not known or not done.
    """

    command: str
    plan: Plan
    totals: Mapping[str, Total]
    verification: Verification
    files: Mapping[str, str | None]
    notes: tuple[str, ...] = ()
    outlook: Outlook = field(default_factory=Outlook)


def count_totals(reference: Reference, plan: Plan, pruned: Model | None) -> dict[str, Total]:
    """Return the totals of a run.

    Parameters
    ----------
    reference : Reference
        Where the surgery started.
    plan : Plan
        What was carried out.
    pruned : Model or None
        The result, in memory or as loaded from its file; without it nothing is said of the size of its file.
    """
    metrics = ("flops", "params", *(budget.metric for budget in plan.budgets if budget.metric == "memory"))
    atoms = [len(group.kept) for group in plan.groups]
    costs = count_costs(reference.original, atoms, metrics, reference.start)
    totals = {metric: Total(*costs.totals[metric]) for metric in metrics}
    if pruned is None:
        return totals
    return {**totals, "file size": Total(file_bytes(reference.original.model), file_bytes(pruned))}


def summary_json(summary: PruningSummary) -> dict[str, Any]:
    """Return a summary as one JSON object."""
    return {
        "command": summary.command,
        **summary.files,
        **{key.replace(" ", "_"): total.as_json() for key, total in summary.totals.items()},
        "verification": asdict(summary.verification),
        "bench": asdict(summary.plan.timing) if summary.plan.timing else None,
        "notes": list(summary.notes),
        "accuracy": _accuracy(summary),
        "recovered": any(step.applied and step.name != MEASURED for step in summary.plan.steps),
        "next": summary.outlook.command or None,
        **_widths(summary.plan),
    }


def _accuracy(summary: PruningSummary) -> dict[str, Any]:
    """Return what was measured of accuracy, or why nothing was."""
    for step in summary.plan.steps:
        if step.name == MEASURED:
            return {"measure": step.measure, "before": step.before, "after": step.after, **step.facts}
    return {"measure": None, "why": summary.outlook.unmeasured or None}


def plan_notes(plan: Plan) -> tuple[str, ...]:
    """Return what a user should know of how a plan came about."""
    options = plan.solver.options
    notes = []
    if plan.is_identity and not plan.lossless and plan.budget.before <= plan.budget.limit:
        notes.append(_nothing_to_do(plan.budget))
    if options.get("relaxed"):
        notes.append(
            "the budget needs widths below the narrowest aligned ones; such layers may be slower than they look"
        )
    sources = {str(source): groups for source, groups in dict(options.get("scores_from", {})).items()}
    if len(sources) > 1 or (plan.solver.criterion == _BN_SCALE and sources.keys() != {_SCALES}):
        shown = ", ".join(f"{source} ({text.plural(groups, 'group')})" for source, groups in sources.items())
        notes.append(f"{plan.solver.criterion} reads {shown}")
    notes += _contest_notes(plan) + _merge_notes(plan) + _lossless_notes(plan) + _empty_notes(plan) + gated_notes(plan)
    notes += _unmeasured_notes(plan) + [_missed(plan, budget) for budget in plan.budgets if _is_missed(budget)]
    return tuple(notes)


def _nothing_to_do(budget: Budget) -> str:
    """Say that a model is as small as it was to become."""
    write = text.duration if budget.metric == "latency" else text.count
    cost = f"{write(budget.before)} of {budget.metric}"
    return f"nothing had to be done: the model has {cost}, and {write(budget.limit)} were allowed; it stays as it is"


def _unmeasured_notes(plan: Plan) -> list[str]:
    """Say that layers do not run alone in the runtime in which a latency was measured."""
    record = dict(plan.solver.options.get("latency", {}))
    left = int(record.get("layers", 0)) - int(record.get("alone", 0))
    if left <= 0:
        return []
    do, whose = ("does", "its") if left == 1 else ("do", "their")
    return [
        f"{left} of {record['layers']} layers {do} not run alone in {text.name(str(record.get('runtime', '')), 20)}: "
        f"{whose} time is taken to be in proportion to {whose} work; the network was measured as a whole"
    ]


def _is_missed(budget: Budget) -> bool:
    return budget.metric == "latency" and (budget.measured or 0) > (1 + TOLERANCE) * budget.limit


def _missed(plan: Plan, budget: Budget) -> str:
    """Say that a latency budget is not met, and what that means."""
    measured, limit = text.duration(budget.measured or 0), text.duration(budget.limit)
    rounds = dict(plan.solver.options.get("latency", {})).get("rounds", 1)
    tried = f", and of {rounds} plans none came nearer" if rounds > 1 else ""
    return (
        f"the latency budget of {limit} is not met: the pruned model takes {measured} here{tried}; "
        "the tables of single layers do not tell what this network takes as a whole, so ask for less"
    )


def _contest_notes(plan: Plan) -> list[str]:
    """Say which criterion won the contest for the choice of channels, and against what."""
    contest = plan.solver.options.get("adapt")
    if not contest:
        return []
    shown = ", ".join(f"{entry['name']} {_score(contest['measure'], entry)}" for entry in contest["contest"])
    return [
        f"channels by {contest['chosen']}: {contest['measure']} on {contest['samples']} held-out samples, "
        f"recalibrated: {shown}"
    ]


def _score(measure: str, entry: Mapping[str, Any]) -> str:
    return f"{entry['error']:.3g}" if measure == "error" else f"{entry['score']:.2%}"


def _merge_notes(plan: Plan) -> list[str]:
    """Say how many removed channels were merged, and why the others were not."""
    if plan.solver.options.get("inherit") != "merge":
        return []
    removed = sum(group.size - len(group.kept) for group in plan.groups)
    merged = sum(len(group.merged) for group in plan.groups)
    reasons = dict(plan.solver.options.get("not_merged", {}))
    shown = "; ".join(f"{count} not, as {text.name(str(why), 80)}" for why, count in reasons.items())
    return [f"{merged} of {removed} removed channels are merged into kept ones{'; ' if shown else ''}{shown}"]


def _empty_notes(plan: Plan) -> list[str]:
    """Say which groups are gone as a whole."""
    empty = [text.name(group.name, 40) for group in plan.groups if not group.kept]
    layers = sum(1 for layer in plan.layers if layer.flops_before and not layer.flops_after)
    shown = ", ".join(empty[:3]) + (", ..." if len(empty) > 3 else "")
    if not empty:
        return []
    return [f"{_count(len(empty), 'group')} and {_count(layers, 'layer')} with FLOPs are gone as a whole: {shown}"]


def gated_notes(plan: Plan) -> list[str]:
    """Tell what the gated network of `train --method fbs` would cost if what is switched off were skipped."""
    gated = [entry for entry in plan.solver.trace if entry.get("stage") == "gated"]
    return [
        f"expected FLOPs of the gated network: {text.count(entry['expected_flops'])} per sample, those of the channels "
        f"that are on; its static FLOPs are {text.count(entry['static_flops'])} and more, and no runtime skips any"
        for entry in gated
    ]


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _lossless_notes(plan: Plan) -> list[str]:
    """Say what a lossless plan removes."""
    if not plan.lossless:
        return []
    removed = sum(group.size - len(group.kept) for group in plan.groups)
    if not removed:
        return ["no channel can go without changing what the model computes; the result is the original"]
    merged = sum(len(group.merged) for group in plan.groups)
    folded = sum(len(group.folded) for group in plan.groups)
    unread = removed - merged - folded
    parts = (
        f"{unread} {'is' if unread == 1 else 'are'} zero or never read",
        f"{folded} constant (now in biases)",
        f"{merged} equal to another one",
    )
    what = "channel changes" if removed == 1 else "channels change"
    notes = [f"{removed} {what} nothing: {', '.join(parts)}"]
    if any(layer.pruned_width % 4 for layer in plan.layers if layer.pruned_width != layer.width):
        notes.append("some widths are no multiple of 4 now, which runtimes may execute more slowly (try --bench)")
    return notes


def uncounted_notes(analysis: Analysis) -> tuple[str, ...]:
    """Say which nodes do work that no figure contains, and how much of the model they hold."""
    nodes = analysis.uncounted
    if not nodes:
        return ()
    named = [f"{text.name(item.op, 30)} {text.name(item.node, 40)}" for item in nodes[:3]]
    shown = ", ".join(named) + (", ..." if len(nodes) > 3 else "")
    weights, stored = sum(item.weights for item in nodes), analysis.cost.params(analysis.cost.sizes)
    held = f"{text.count(weights)} weights" + (f" ({text.percent(weights, stored)} of all)" if stored else "")
    count = _count(len(nodes), "node")
    known = any(item.known for item in nodes)
    why = "for which there is no formula" if known else "whose shapes are not known before the model runs"
    share = analysis.uncounted_time
    took = "" if share is None else f" and about {100 * share:.0f} % of the time of a run,"
    return (f"not in the FLOPs, and not pruned: {count} with {held}{took or ','} {why}: {shown}",)


def analysis_notes(analysis: Analysis) -> tuple[str, ...]:
    """Return what a user should know of how a model was read."""
    return (*uncounted_notes(analysis), *_inside_heads_notes(analysis))


def _inside_heads_notes(analysis: Analysis) -> tuple[str, ...]:
    """Say where whole heads were asked for, and a part of each head goes."""
    nodes, reason = analysis.inside_heads
    if not nodes:
        return ()
    at = f"at {text.name(nodes[0], 40)}"
    if len(nodes) > 1:
        at += f" and {text.plural(len(nodes) - 1, 'more node')}"
    why = f" ({reason.kind}: {reason.text})" if reason else ""
    return (f"{at} whole heads cannot go{why}, so a part of each head does, as by --attention head-dim",)


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return what `inspect` shows of a plan as one JSON object."""
    chosen = channel_choice(plan).ways
    return {
        "command": "inspect",
        "model": asdict(plan.model),
        "digest": digest(plan),
        "channels_chosen_by": dict(chosen),
        "timing": asdict(plan.timing) if plan.timing else None,
        **_widths(plan),
    }


def _widths(plan: Plan) -> dict[str, Any]:
    return {
        "budget": asdict(plan.budget),
        "further_budgets": [asdict(budget) for budget in plan.further],
        "solver": {
            "name": plan.solver.name,
            "criterion": plan.solver.criterion,
            "seed": plan.solver.seed,
            "certificate": asdict(plan.solver.certificate) if plan.solver.certificate else None,
        },
        "steps": [asdict(step) for step in plan.steps],
        "layers": [asdict(layer) for layer in plan.layers],
        "groups": [
            {
                "id": group.id,
                "name": group.name,
                "size": group.size,
                "kept": len(group.kept),
                "exact": group.exact,
                "members": len(group.members),
            }
            for group in plan.groups
        ],
    }
