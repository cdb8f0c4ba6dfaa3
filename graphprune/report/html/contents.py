# SPDX-License-Identifier: Apache-2.0
"""What a report shows of a plan, as rows of text and figures; nothing here knows how a page looks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from graphprune.model.write import file_bytes
from graphprune.plan.schema import digest
from graphprune.report import text
from graphprune.report.channel_choice import channel_choice
from graphprune.report.tables import amount, step_line
from graphprune.solvers.saliency import select
from graphprune.surgery.marks import PLAN, VERIFIED, weights_changed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.labels.space import Reason
    from graphprune.model.load import Model
    from graphprune.plan.schema import GroupPlan, LayerPlan, Plan
    from graphprune.report.channel_choice import ChannelChoice
    from graphprune.report.trials import Trial
    from graphprune.solvers.saliency import Scores

__all__ = ["Contents", "Tile", "plan_contents"]

_NAME = 200
"""Letters of a name that a page shows; it wraps them."""

_MOST_SALIENCIES = 40_000
"""Channels of which a page of less than 3 MB shows the saliencies."""


@dataclass(frozen=True)
class Tile:
    """One figure that somebody looks for first."""

    label: str
    value: str
    note: str = ""


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
    steps : list of str
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
    steps: list[str] = field(default_factory=list)
    saliencies: list[dict[str, Any]] = field(default_factory=list)
    unshown: int = 0
    deciding: str = ""
    front: list[Trial] = field(default_factory=list)


def plan_contents(
    plan: Plan, analysis: Analysis | None = None, pruned: Model | None = None, scores: Scores | None = None
) -> Contents:
    """Return what there is to show of a plan.

    Parameters
    ----------
    plan : Plan
    analysis : Analysis, optional
        Of the model that it was made for: says what is frozen and why.
    pruned : Model, optional
        What became of it: says how large its file is and whether it was verified.
    scores : Scores, optional
        Of the groups of the analysis, by the criterion of the plan.
    """
    choice = channel_choice(plan)
    shown = _saliencies(plan, scores, choice) if scores else []
    return Contents(
        name=text.name(plan.model.name, 80),
        tiles=[*_tiles(plan, analysis, pruned)],
        facts=[*_facts(plan)],
        lost=[_lost(layer) for layer in sorted(plan.layers, key=_flops_lost, reverse=True)[:5] if _flops_lost(layer)],
        layers=[*_layers(plan.layers, analysis)],
        groups=[_group(group, choice) for group in plan.groups],
        budgets=[_budget(plan, index) for index in range(len(plan.budgets))],
        frozen=_frozen(analysis) if analysis else [],
        steps=[f"{step.name}: {step_line(step)}" for step in plan.steps],
        saliencies=shown,
        unshown=len(plan.groups) - len(shown) if scores else 0,
        deciding=_deciding(shown, choice) if shown else "",
    )


def _tiles(plan: Plan, analysis: Analysis | None, pruned: Model | None) -> Iterator[Tile]:
    for label, before, after in (
        ("FLOPs", sum(each.flops_before for each in plan.layers), sum(each.flops_after for each in plan.layers)),
        ("parameters", sum(each.params_before for each in plan.layers), sum(each.params_after for each in plan.layers)),
    ):
        yield Tile(label, text.percent(after, before), f"{text.count(before)} → {text.count(after)}")
    if analysis is not None and pruned is not None:
        before, after = file_bytes(analysis.model), file_bytes(pruned)
        yield Tile("file", text.percent(after, before), f"{text.file_size(before)} → {text.file_size(after)}")
    for budget in plan.budgets:
        if budget.metric in ("memory", "latency"):
            after = budget.after if budget.measured is None else budget.measured
            how = "" if budget.metric == "memory" else " measured" if budget.measured is not None else " predicted"
            change = f"{amount(budget.metric, budget.before)} → {amount(budget.metric, after)}{how}"
            yield Tile(budget.metric, text.percent(after, budget.before), change)
    for step in plan.steps:
        note = f"before: {step.before:.4g}" if step.applied else "no gain: weights stayed as they were"
        yield Tile(f"{step.name}: {step.measure}", f"{step.after:.4g}", note)
    if pruned is not None:
        yield _verification(plan, pruned)


def _verification(plan: Plan, pruned: Model) -> Tile:
    """Return what the file says of its verification; a mark is no proof, which `graphprune verify` gives anew."""
    marks = {entry.key: entry.value for entry in pruned.proto.metadata_props}
    if marks.get(PLAN) != digest(plan):
        return Tile("verification", "unknown", "the pruned file was made by another plan")
    changed = weights_changed(pruned.proto)
    if changed:
        note = f"as the file says; then weights were {text.name(changed, 60)}"
        return Tile("verification", "surgery verified", note)
    said = marks.get(VERIFIED, "")
    return Tile("verification", "verified" if said == "true" else text.name(said or "unknown", 40), "as the file says")


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
        "node": text.name(layer.node, _NAME),
        "width": f"{layer.width} → {layer.pruned_width}",
        "flops": f"{text.count(_flops_lost(layer))}FLOPs" if _flops_lost(layer) >= 1000 else str(_flops_lost(layer)),
        "left": text.percent(layer.flops_after, layer.flops_before),
    }


def _layers(layers: Sequence[LayerPlan], analysis: Analysis | None) -> Iterator[dict[str, Any]]:
    """Yield the layers; those of the same name are numbered, since charts know rows by their names."""
    seen: Counter[str] = Counter()
    reasons: Sequence[tuple[Reason, ...]] = analysis.layer_reasons if analysis else [()] * len(layers)
    for layer, why in zip(layers, reasons, strict=True):
        name = text.name(layer.node, _NAME)
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
            "why": "; ".join(text.name(reason.text, _NAME) for reason in why),
        }


def _group(group: GroupPlan, choice: ChannelChoice) -> dict[str, Any]:
    return {
        "id": group.id,
        "name": text.name(group.name, _NAME),
        "size": group.size,
        "kept": len(group.kept),
        "by": text.name(choice.ways.get(group.id, ""), 80),
        "exact": group.exact,
        "channels": _ranges(group.kept),
        "members": [
            f"{text.name(member.initializer, _NAME)}, axis {member.axis} ({member.role})"
            for member in group.members[:50]
        ],
        "more": max(0, len(group.members) - 50),
        "merged": len(group.merged),
        "folded": len(group.folded),
    }


def _ranges(kept: Sequence[int]) -> list[list[int]]:
    """Return which atoms stay as pairs of the first one and how many: far shorter than their numbers."""
    atoms = np.asarray(kept, dtype=np.int64)
    if not len(atoms):
        return []
    starts = np.flatnonzero(np.diff(atoms, prepend=atoms[0] - 2) != 1)
    counts = np.diff(starts, append=len(atoms))
    return [[first, count] for first, count in zip(atoms[starts].tolist(), counts.tolist(), strict=True)]


def _budget(plan: Plan, index: int) -> dict[str, Any]:
    budget = plan.budgets[index]
    return {
        "metric": budget.metric,
        "asked": str(budget.target),
        "limit": amount(budget.metric, budget.limit),
        "before": amount(budget.metric, budget.before),
        "after": amount(budget.metric, budget.after),
        "measured": "" if budget.measured is None else amount(budget.metric, budget.measured),
        "used": text.percent(budget.after, budget.limit),
        "share": budget.after / budget.limit if budget.limit else 1.0,
    }


def _deciding(shown: Sequence[dict[str, Any]], choice: ChannelChoice) -> str:
    """Say whose saliencies are shown, and what decided which channels stay."""
    chosen = [row for row in shown if 0 < sum(row["stays"]) < len(row["stays"])]
    decided = sum(not row["by"] for row in chosen)
    head = f"What the criterion {text.name(choice.criterion, 40)} says of the channels of one group."
    line = "a line shows the lowest saliency that stays"
    if decided == len(chosen):
        return f"{head} The most salient ones stay; {line}."
    if not decided:
        return f"{head} It did not decide which of them stay: channels were chosen by {choice.line}."
    return (
        f"{head} It decided in {decided} of {text.plural(len(chosen), 'narrower group')}, where {line}; "
        f"channels were chosen by {choice.line}."
    )


def _frozen(analysis: Analysis) -> list[dict[str, Any]]:
    total = sum(layer.flops(analysis.grouping.sizes) for layer in analysis.layers)
    return [
        {
            "kind": text.name(entry.kind, 60),
            "why": text.name(entry.text, 300),
            "layers": entry.layers,
            "touched": text.percent(entry.flops, total),
            "held": text.percent(entry.whole, total),
            "largest": [f"{text.name(held.node, _NAME)} ({text.percent(held.flops, total)})" for held in entry.largest],
        }
        for entry in analysis.frozen
    ]


def _saliencies(plan: Plan, scores: Scores, choice: ChannelChoice) -> list[dict[str, Any]]:
    """Return the atoms of as many groups as a page has room for, in the order of their saliency."""
    rows: list[dict[str, Any]] = []
    room = _MOST_SALIENCIES
    for group, values in zip(plan.groups, scores.per_group, strict=True):
        if group.size > room:
            continue
        room -= group.size
        stays = np.zeros(group.size, dtype=np.int64)
        stays[list(group.kept)] = 1
        mean = float(np.mean(values[np.isfinite(values)])) if np.isfinite(values).any() else 0.0
        scaled = np.nan_to_num(values / mean if mean else values)
        order = np.argsort(-scaled, kind="stable")
        decided = choice.by_saliency(group.id) and np.array_equal(select(values, len(group.kept)), group.kept)
        rows.append(
            {
                "group": f"{group.id} {text.name(group.name, 60)}",
                "atom": order.tolist(),
                "saliency": [float(f"{value:.4g}") for value in scaled[order]],
                "stays": stays[order].tolist(),
                "by": "" if decided else text.name(choice.ways.get(group.id, "all or none of them stay"), 60),
            }
        )
    return rows
