# SPDX-License-Identifier: Apache-2.0
"""What a report shows of a plan, as rows of text and figures; nothing here knows how a page looks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graphprune.plan.schema import digest
from graphprune.report import text
from graphprune.report.chosen_by import channel_choice
from graphprune.report.html.group_rows import LONGEST_NAME, deciding_line, group_rows, saliency_rows
from graphprune.report.html.tiles import KnownFigures, plan_tiles
from graphprune.report.summary import TOLERANCE, plan_notes
from graphprune.report.tables import amount, latency_runtime, step_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.labels.space import Reason
    from graphprune.model.load import Model
    from graphprune.plan.schema import LayerPlan, Plan
    from graphprune.report.html.tiles import Tile
    from graphprune.solvers.saliency import Scores

__all__ = ["Contents", "plan_contents"]


@dataclass(frozen=True)
class Contents:
    """What a report shows of one plan.

    Attributes
    ----------
    name : str
        Of the model. Untrusted text, as all names below.
    tiles : list of Tile
    facts : list of tuple of str
        How the plan came about.
    lost : list of dict
        Layers that lost most FLOPs, the first one most.
    layers, groups : list of dict
        In the order of the graph.
    budgets, frozen : list of dict
    notes, steps : list of str
        What one should know of it, and what recovery and training brought.
    saliencies : list of dict
        An entry per group with a list each, the most salient atom first: its number, its saliency on the scale of the
        group's mean, and whether it stays (1 or 0); and by what else channels were chosen, where saliency did not.
    unshown : int
        Groups whose saliencies are left out, because there are too many channels.
    deciding : str
        Which criterion the saliencies are of, and in how many of the groups they decided.
    """

    name: str
    tiles: list[Tile]
    facts: list[tuple[str, str]]
    lost: list[dict[str, Any]]
    layers: list[dict[str, Any]]
    groups: list[dict[str, Any]]
    budgets: list[dict[str, Any]]
    frozen: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    saliencies: list[dict[str, Any]] = field(default_factory=list)
    unshown: int = 0
    deciding: str = ""


def plan_contents(
    plan: Plan,
    analysis: Analysis | None = None,
    pruned: Model | None = None,
    scores: Scores | None = None,
    figures: KnownFigures | None = None,
) -> Contents:
    """Return what there is to show of a plan.

    Parameters
    ----------
    plan : Plan
    analysis : Analysis, optional
        Of the model that it was made for: says what is frozen and why.
    pruned : Model, optional
        What became of it: says whether it was verified.
    scores : Scores, optional
        Of the groups of the analysis, by the criterion of the plan.
    figures : KnownFigures, optional
        Costs of the whole model, and what was measured.
    """
    choice = channel_choice(plan)
    shown = saliency_rows(plan, scores, choice) if scores else []
    return Contents(
        name=text.name(plan.model.name, 80),
        tiles=[*plan_tiles(plan, pruned, figures or KnownFigures())],
        facts=[*_facts(plan)],
        lost=[_lost(layer) for layer in sorted(plan.layers, key=_flops_lost, reverse=True)[:5] if _flops_lost(layer)],
        layers=[*_layers(plan.layers, analysis)],
        groups=group_rows(plan, choice),
        budgets=[_budget(plan, index) for index in range(len(plan.budgets))],
        frozen=_frozen(analysis) if analysis else [],
        notes=[text.name(note, 600) for note in plan_notes(plan)],
        steps=[f"{step.name}: {step_line(step)}" for step in plan.steps],
        saliencies=shown,
        unshown=len(plan.groups) - len(shown) if scores else 0,
        deciding=deciding_line(shown, choice) if shown else "",
    )


def _facts(plan: Plan) -> Iterator[tuple[str, str]]:
    solver, options = plan.solver, plan.solver.options
    yield "model", f"{text.name(plan.model.name, 80)}, sha256 {plan.model.sha256[:16]}…, opset {plan.model.opset}"
    shapes = (f"{text.name(name, 40)} {'×'.join(map(str, shape))}" for name, shape in plan.model.inputs.items())
    yield "counted for", ", ".join(shapes)
    yield "widths", f"{text.name(solver.name, 40)}, multiples by {text.name(str(options.get('round_to', 1)), 20)}"
    yield "channels", f"{channel_choice(plan).line}, seed {solver.seed}"
    yield "plan", digest(plan)


def _flops_lost(layer: LayerPlan) -> int:
    return layer.flops_before - layer.flops_after


def _lost(layer: LayerPlan) -> dict[str, Any]:
    return {
        "node": text.name(layer.node, LONGEST_NAME),
        "width": f"{layer.width} → {layer.pruned_width}",
        "flops": f"{text.count(_flops_lost(layer))}FLOPs" if _flops_lost(layer) >= 1000 else str(_flops_lost(layer)),
        "left": text.percent(layer.flops_after, layer.flops_before),
    }


def _layers(layers: Sequence[LayerPlan], analysis: Analysis | None) -> Iterator[dict[str, Any]]:
    """Yield the layers; those of the same name are numbered, since charts know rows by their names."""
    seen: Counter[str] = Counter()
    reasons: Sequence[tuple[Reason, ...]] = analysis.layer_reasons if analysis else [()] * len(layers)
    for layer, why in zip(layers, reasons, strict=True):
        name = text.name(layer.node, LONGEST_NAME)
        seen[name] += 1
        yield {
            "node": name if seen[name] == 1 else f"{name} ({seen[name]})",
            "op": text.name(layer.op, 40),
            "width": layer.width,
            "kept": layer.pruned_width,
            "flops": layer.flops_before,
            "flops_kept": layer.flops_after,
            "params": layer.params_before,
            "params_kept": layer.params_after,
            "left": text.percent(layer.flops_after, layer.flops_before),
            "why": "; ".join(text.name(reason.text, LONGEST_NAME) for reason in why),
        }


def _budget(plan: Plan, index: int) -> dict[str, Any]:
    budget = plan.budgets[index]
    spent = budget.after if budget.measured is None else budget.measured
    runtime = f" in {latency_runtime(plan)}" if budget.metric == "latency" else ""
    return {
        "metric": f"{budget.metric}{runtime}",
        "asked": str(budget.target),
        "limit": amount(budget.metric, budget.limit),
        "before": amount(budget.metric, budget.before),
        "after": amount(budget.metric, budget.after),
        "measured": "" if budget.measured is None else amount(budget.metric, budget.measured),
        "used": text.percent(spent, budget.limit),
        "share": spent / budget.limit if budget.limit else 1.0,
        "verdict": _verdict(budget.metric, spent, budget.limit),
    }


def _verdict(metric: str, spent: int, limit: int) -> str:
    """Return whether a budget is met; what was measured varies."""
    if spent <= limit:
        return "met"
    close = metric == "latency" and spent <= (1 + TOLERANCE) * limit
    return f"met within {100 * TOLERANCE:.0f} %" if close else "not met"


def _frozen(analysis: Analysis) -> list[dict[str, Any]]:
    total = sum(layer.flops(analysis.grouping.sizes) for layer in analysis.layers)
    return [
        {
            "kind": text.name(entry.kind, 60),
            "why": text.name(entry.text, 300),
            "layers": entry.layers,
            "touched": text.percent(entry.flops, total),
            "held": text.percent(entry.whole, total),
            "largest": [
                f"{text.name(held.node, LONGEST_NAME)} ({text.percent(held.flops, total)})" for held in entry.largest
            ],
        }
        for entry in analysis.frozen
    ]
