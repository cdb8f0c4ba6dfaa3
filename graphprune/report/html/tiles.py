# SPDX-License-Identifier: Apache-2.0
"""The figures of a plan that somebody looks for first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graphprune.plan.schema import digest
from graphprune.report import text
from graphprune.report.summary import MEASURED
from graphprune.report.tables import amount, latency_runtime
from graphprune.surgery.marks import PLAN, VERIFIED, weights_changed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan, Step, Timing
    from graphprune.report.summary import Total

__all__ = ["KnownFigures", "Tile", "plan_tiles"]


@dataclass(frozen=True)
class Tile:
    """One figure that somebody looks for first."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class KnownFigures:
    """What is known of a plan that it does not say itself.

    Attributes
    ----------
    totals : mapping of str to Total
        Costs of the whole model: "flops", "params", "file size". What is missing is added up from the layers.
    further : tuple of Tile
        What became of it in lower precision.
    """

    totals: Mapping[str, Total] = field(default_factory=dict)
    further: tuple[Tile, ...] = ()


def plan_tiles(plan: Plan, pruned: Model | None, figures: KnownFigures) -> Iterator[Tile]:
    """Yield the figures of a plan, and of what became of it where that is known."""
    yield from _costs(plan, figures)
    for budget in plan.budgets:
        if budget.metric in ("memory", "latency"):
            after = budget.after if budget.measured is None else budget.measured
            how = "" if budget.metric == "memory" else " measured" if budget.measured is not None else " predicted"
            change = f"{amount(budget.metric, budget.before)} → {amount(budget.metric, after)}{how}"
            where = f" in {latency_runtime(plan)}" if budget.metric == "latency" else ""
            yield Tile(f"{budget.metric}{where}", text.percent(after, budget.before), change)
    if plan.timing is not None:
        yield _timed(plan.timing)
    for step in plan.steps:
        yield _brought(step)
    yield from figures.further
    if pruned is not None:
        yield _verification(plan, pruned)


def _costs(plan: Plan, figures: KnownFigures) -> Iterator[Tile]:
    """Yield what the model costs, as the command line has it where the model is at hand."""
    layers = plan.layers
    summed = {
        "flops": (sum(each.flops_before for each in layers), sum(each.flops_after for each in layers)),
        "params": (sum(each.params_before for each in layers), sum(each.params_after for each in layers)),
    }
    summed |= {budget.metric: (budget.before, budget.after) for budget in plan.budgets if budget.metric in summed}
    known = {budget.metric for budget in plan.budgets} | figures.totals.keys()
    for metric, label in (("flops", "FLOPs"), ("params", "parameters")):
        total = figures.totals.get(metric)
        before, after = (total.before, total.after) if total else summed[metric]
        where = "" if metric == "flops" or metric in known else " in the layers below"
        yield Tile(label, text.percent(after, before), f"{text.count(before)} → {text.count(after)}{where}")
    if (size := figures.totals.get("file size")) is not None:
        change = f"{text.file_size(size.before)} → {text.file_size(size.after)}"
        yield Tile("file", text.percent(size.after, size.before), change)


def _timed(timing: Timing) -> Tile:
    before, after = (text.duration(1e9 * seconds) for seconds in (timing.before, timing.after))
    pairs = text.plural(timing.pairs, "pair")
    label = f"time in {text.name(timing.runtime, 20)}"
    return Tile(label, f"{100 * timing.ratio:.1f} %", f"{before} → {after}, median of {pairs}")


def _brought(step: Step) -> Tile:
    """Return what a step brought; shares of samples as such."""
    share = step.measure in ("accuracy", "agreement")
    before, after = (f"{100 * value:.2f} %" if share else f"{value:.4g}" for value in (step.before, step.after))
    label = step.measure if step.name == MEASURED else f"{step.name}: {step.measure}"
    if step.name == MEASURED and step.measure == "agreement":
        return Tile(label, after, "of the classes are those of the original")
    return Tile(label, after, f"before: {before}" if step.applied else "no gain: weights stayed as they were")


def _verification(plan: Plan, pruned: Model) -> Tile:
    """Return what the file says of its verification; a mark is no proof, which `graphprune verify` gives anew."""
    marks = {entry.key: entry.value for entry in pruned.proto.metadata_props}
    if marks.get(PLAN) != digest(plan):
        other = "was made by another plan" if PLAN in marks else "does not say by which plan it was made"
        return Tile("verification", "unknown", f"the pruned file {other}")
    changed = weights_changed(pruned.proto)
    if changed:
        note = f"as the file says; then weights were {text.name(changed, 60)}"
        return Tile("verification", "surgery verified", note)
    said = marks.get(VERIFIED, "")
    return Tile("verification", "verified" if said == "true" else text.name(said or "unknown", 40), "as the file says")
