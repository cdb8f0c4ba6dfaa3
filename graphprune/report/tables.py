# SPDX-License-Identifier: Apache-2.0
"""Tables for the terminal: the outcome of a run, and the widths of a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from rich import box
from rich.console import Group as Stack
from rich.table import Table
from rich.text import Text

from graphprune.cost.latency.environment import ONNXRUNTIME
from graphprune.plan.schema import digest
from graphprune.report import text
from graphprune.report.chosen_by import channel_choice
from graphprune.report.name_table import NameCell, NameTable
from graphprune.report.summary import MEASURED, gated_notes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from graphprune.plan.schema import Budget, Certificate, GroupPlan, LayerPlan, Plan, Step, Timing
    from graphprune.report.summary import PruningSummary, Total
    from graphprune.verification.verify import Verification

__all__ = [
    "amount",
    "cell",
    "certificate_line",
    "grid",
    "latency_runtime",
    "plan_tables",
    "step_line",
    "summary_tables",
    "table",
]

_UNITS = {"flops": "FLOPs", "params": "", "file size": "B", "memory": "B"}


def table(*columns: str, right: Iterable[str] = (), names: Iterable[str] = ()) -> Table:
    """Return an empty table with a light rule under its head.

    Parameters
    ----------
    *columns : str
        Heads of the columns.
    right : iterable of str
        Columns of numbers, aligned to the right.
    names : iterable of str
        Columns that give way on a narrow terminal, for cells made by :func:`cell`.
    """
    result = NameTable(box=box.SIMPLE_HEAD, pad_edge=False)
    numbers, flexible = set(right), set(names)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in numbers else "left"
        result.add_column(column, justify=justify, no_wrap=column not in flexible)
    return result


def cell(name: str, width: int = 56) -> NameCell:
    """Return a name from a model as a cell that gives way where the terminal is too narrow."""
    return NameCell(name, width)


def grid(rows: Iterable[tuple[str, ...]]) -> Table:
    """Return rows of text without lines: a label and what belongs to it."""
    result = Table.grid(padding=(0, 2))
    for index, row in enumerate(rows):
        if index == 0:
            result.add_column(style="bold", no_wrap=True)
            for _ in row[1:]:
                result.add_column(overflow="fold")
        result.add_row(*(Text(cell) for cell in row))
    return result


def summary_tables(summary: PruningSummary, *, verbose: bool = False) -> RenderableType:
    """Return the report of `solve` and `apply`: layers, totals, verification, accuracy, timing, files, notes."""
    rows = [_total(name, total) for name, total in summary.totals.items()]
    rows += [
        ("latency", _latency(budget, summary.plan)) for budget in summary.plan.budgets if budget.metric == "latency"
    ]
    if summary.plan.solver.certificate:
        rows.append(("certificate", certificate_line(summary.plan.solver.certificate)))
    rows.append((check_label(summary.verification), check_line(summary.verification, verbose=verbose)))
    rows += [(step_label(step), step_line(step)) for step in summary.plan.steps]
    rows += [("recover", summary.outlook.unrecovered)] if summary.outlook.unrecovered else []
    rows += [("accuracy", summary.outlook.unmeasured)] if summary.outlook.unmeasured else []
    if summary.plan.timing:
        rows.append(("time", _timing(summary.plan.timing)))
    rows += [(role, path) for role, path in summary.files.items() if path and role != "model"]
    rows += [("note", note) for note in summary.notes]
    return Stack(_layers(summary.plan.layers), grid(rows))


def check_text(verification: Verification, *, verbose: bool = False) -> str:
    """Return what a verification has shown, and how far, as one line."""
    if verification.status == "surgery":
        head = "surgery verified; weights are not those of the original, so nothing is said of them"
        return f"{head}; {check_line(verification, verbose=verbose)}"
    return f"{check_label(verification)}  {check_line(verification, verbose=verbose)}"


def check_label(verification: Verification) -> str:
    """Return in two words at most what a verification has shown."""
    return "verified" if verification.status in ("verified", "identity") else "not proven"


def check_line(verification: Verification, *, verbose: bool = False) -> str:
    """Return the outcome of a verification as one line.

    How far masking moves the outputs shows that there was something to see; it is no measure of what is lost, so it is
    left to those who ask.
    """
    if verification.status == "identity":
        return "nothing is removed, the result is the original"
    if verification.status == "unverified":
        return "NO: onnxruntime does not know operators of this model, so nothing was compared"
    error, allowed = f"{verification.error:.1e}", f"({verification.tolerance:.1e} allowed)"
    if verification.lossless:
        compared = text.plural(verification.compared, "comparison")
        equal = f"{compared} of outputs: equal to the original's to {error} {allowed}"
        return "; ".join(part for part in (equal, verification.note) if part)
    vacuous = verification.status == "vacuous"
    effect = f"masking moves the outputs by {100 * verification.effect:.3g} %" if verbose or vacuous else ""
    if vacuous:
        effect += ", so little that this proves nothing"
    equal = f"{_tensors(verification.compared)} the masked original to {error} {allowed}"
    return "; ".join(part for part in (equal, effect, verification.note) if part)


def _tensors(count: int) -> str:
    return f"{text.plural(count, 'tensor')} {'equals' if count == 1 else 'equal'}"


def step_label(step: Step) -> str:
    """Return what a step is called in front of its line."""
    return (
        {"accuracy": "accuracy", "agreement": "agreement"}.get(step.measure, "outputs") if _judges(step) else step.name
    )


def _judges(step: Step) -> bool:
    return step.name == MEASURED


def step_line(step: Step) -> str:
    """Return what a step after pruning brought as one line."""
    if _judges(step):
        return _measured(step)
    change = f"{step.method}: {step.measure} {step.before:.4g} -> {step.after:.4g}"
    facts = dict(step.facts)
    held_out = facts.get("held_out")
    apart = text.plural(held_out, "sample") if isinstance(held_out, int) else "? samples"
    counts = f"{apart} held out, {facts.get('samples', '?')} used"
    return f"{change} ({counts}){'' if step.applied else '; no gain, so the model stayed as it was'}"


def _measured(step: Step) -> str:
    """Return what a result is worth as one line, and on which samples."""
    facts = dict(step.facts)
    kind = "held-out sample" if facts.get("held_out") else "sample"
    on = f"on {text.plural(int(facts.get('samples', 0)), kind)} of {text.name(str(facts.get('data', '?')))}"
    doubt = text.caution(step.after, int(facts.get("samples", 0)))
    on_few = f"{on}, {doubt}" if doubt else on
    if step.measure == "accuracy":
        return f"{_share(step.before)} -> {_share(step.after)} of the classes are right, {on_few}"
    if step.measure == "agreement":
        return f"{_share(step.after)} of the classes are those of the original, {on_few}"
    return f"{100 * step.after:.3g} % of their variance away from the original's, {on}"


def _share(value: float) -> str:
    return f"{100 * value:.2f} %"


def certificate_line(certificate: Certificate) -> str:
    """Return how good the chosen widths are as one line."""
    kept, most = f"{certificate.objective:,.6g}", f"{certificate.bound:,.6g}"
    return (
        f"keeps a saliency of {kept}; no widths within the budget keep more than {most} (gap {_small(certificate.gap)})"
    )


def _small(share: float) -> str:
    return "below 0.001 %" if share < 1e-5 else f"{100 * share:.3g} %"


def plan_tables(plan: Plan) -> RenderableType:
    """Return what `inspect` shows of a plan: the budget, the width of each layer as a bar, the groups."""
    solver = plan.solver
    inputs = ", ".join(f"{text.name(key)} {'x'.join(map(str, shape))}" for key, shape in plan.model.inputs.items())
    head = [
        ("model", f"{text.name(plan.model.name)} (sha256 {plan.model.sha256[:12]}…, opset {plan.model.opset})"),
        ("inputs", inputs or "none"),
        *(("budget", _budget(budget)) for budget in plan.budgets),
        ("solver", f"{text.name(solver.name)}, criterion {text.name(solver.criterion)}, seed {solver.seed}"),
        ("channels", channel_choice(plan).line),
        *([("certificate", certificate_line(solver.certificate))] if solver.certificate else []),
        *((text.name(step_label(step)), text.name(step_line(step), 160)) for step in plan.steps),
        *([("time", text.name(_timing(plan.timing), 160))] if plan.timing else []),
        *(("gated", note) for note in gated_notes(plan)),
        ("digest", digest(plan)),
    ]
    return Stack(grid(head), _bars(plan.layers), _group_plans(plan.groups))


def _budget(budget: Budget) -> str:
    before, after, limit = (amount(budget.metric, value) for value in (budget.before, budget.after, budget.limit))
    line = f"{budget.metric} {before} -> {after} ({text.percent(budget.after, budget.before)}), limit {limit}"
    return line if budget.measured is None else f"{line}, measured {amount(budget.metric, budget.measured)}"


def _latency(budget: Budget, plan: Plan) -> str:
    before, after = (amount("latency", value) for value in (budget.before, budget.after))
    line = f"{before} -> {after} predicted ({text.percent(budget.after, budget.before)})"
    if budget.measured is None:
        return line
    duration = amount("latency", budget.measured)
    runtime = latency_runtime(plan)
    where = "" if runtime == ONNXRUNTIME else f" in {runtime}"
    return f"{line}, {duration} measured in pairs{where} ({text.percent(budget.measured, budget.before)})"


def latency_runtime(plan: Plan) -> str:
    """Return in which runtime the latency was measured that a plan limits."""
    return text.name(str(dict(plan.solver.options.get("latency", {})).get("runtime", ONNXRUNTIME)), 20)


def amount(metric: str, value: int) -> str:
    """Return a cost in the unit of its metric."""
    return text.duration(value) if metric == "latency" else text.count(value, _UNITS.get(metric, "B"))


def _layers(layers: tuple[LayerPlan, ...]) -> Table:
    result = table(
        "layer", "op", "width", "", "FLOPs", " ", "left", right=("width", "FLOPs", " ", "left"), names=["layer"]
    )
    for layer in layers:
        changed = layer.pruned_width != layer.width
        result.add_row(
            cell(layer.node),
            cell(layer.op, 20),
            str(layer.width),
            f"-> {layer.pruned_width}" if changed else "",
            text.count(layer.flops_before),
            f"-> {text.count(layer.flops_after)}",
            text.percent(layer.flops_after, layer.flops_before),
        )
    return result


def _total(name: str, total: Total) -> tuple[str, str]:
    unit = _UNITS[name]
    before, after = text.count(total.before, unit), text.count(total.after, unit)
    return name, f"{before} -> {after} ({text.percent(total.after, total.before)})"


def _timing(timing: Timing) -> str:
    return (
        f"{text.duration(timing.before * 1e9)} -> {text.duration(timing.after * 1e9)} ({100 * timing.ratio:.1f} %) "
        f"in {timing.runtime} on one thread, median of {text.plural(timing.pairs, 'pair')}"
    )


def _bars(layers: tuple[LayerPlan, ...]) -> Table:
    result = table("layer", "width", "of", "kept", "FLOPs left", right=("width", "of", "FLOPs left"), names=["layer"])
    for layer in layers:
        share = layer.pruned_width / layer.width if layer.width else 1.0
        result.add_row(
            cell(layer.node),
            str(layer.pruned_width),
            str(layer.width),
            text.bar(share),
            text.percent(layer.flops_after, layer.flops_before),
        )
    return result


def _group_plans(groups: tuple[GroupPlan, ...]) -> Table:
    result = table("group", "name", "kept", "of", "members", "exact", right=("kept", "of", "members"), names=["name"])
    for group in groups:
        exact = "yes" if group.exact else "no"
        numbers = (str(len(group.kept)), str(group.size), str(len(group.members)))
        result.add_row(cell(group.id, 12), cell(group.name), *numbers, exact)
    return result
