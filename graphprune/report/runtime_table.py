# SPDX-License-Identifier: Apache-2.0
"""Runtimes as a table: what each makes of a pruned network, and beside it what it makes of the original."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group as Stack
from rich.text import Text

from graphprune.report.fitting_table import FittingTable
from graphprune.report.tables import grid, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from graphprune.export.deployment import Deployment, RuntimeCheck, RuntimeOutcome
    from graphprune.plan.schema import Timing

__all__ = ["deployment_tables", "outcome_line", "timing_line"]

_NOTHING = "–"
_STEPS = {"convert": "does not convert", "load": "does not load", "run": "does not run"}


def deployment_tables(deployment: Deployment) -> RenderableType:
    """Return a line for each runtime, why where one fails, and what was fed."""
    cells = zip(*(_row(check) for check in deployment.checks), strict=True)
    rows = FittingTable(dict(zip(_HEADS, map(list, cells), strict=True)), _NUMBERS, ("version", *_NUMBERS[:2]))
    reasons = [
        (check.runtime, Text(f"{which} {_STEPS.get(outcome.step, 'differs')}: {outcome.reason}", overflow="fold"))
        for check in deployment.checks
        for which, outcome in (("pruned", check.pruned), ("original", check.dense))
        if outcome is not None and outcome.reason
    ]
    sizes = ", ".join(f"{name} {'x'.join(map(str, shape)) or 'a scalar'}" for name, shape in deployment.inputs.items())
    parts: list[RenderableType] = [rows]
    absent: dict[str, list[str]] = {}
    for check in deployment.checks:
        if check.missing:
            absent.setdefault(check.advice or f"it needs {check.missing}", []).append(check.runtime)
    if reasons:
        why = table("runtime", "why", names=["why"])
        for row in reasons:
            why.add_row(*row)
        parts.append(why)
    lines = [("fed", f"{deployment.fed}: {sizes}")]
    lines += [("to add", f"{', '.join(names)}: {advice}") for advice, names in absent.items()]
    return Stack(*parts, grid(lines))


_NUMBERS = ("original ms", "pruned ms", "time")
_HEADS = ("runtime", "version", "pruned", "original", *_NUMBERS)


def _row(check: RuntimeCheck) -> tuple[str, ...]:
    if check.missing:
        return check.runtime, _NOTHING, "not installed", _NOTHING, _NOTHING, _NOTHING, _NOTHING
    return (
        check.runtime,
        check.version or _NOTHING,
        outcome_line(check.pruned),
        outcome_line(check.dense),
        *timing_line(check.timing),
    )


def outcome_line(outcome: RuntimeOutcome | None) -> str:
    """Return what a runtime makes of a network in a few words."""
    if outcome is None:
        return _NOTHING
    if outcome.status == "fails":
        return _STEPS[outcome.step]
    if outcome.error is None:
        return "differs in shape"
    return f"{'ok' if outcome.status == 'ok' else 'differs by'} {outcome.error:.0e}" if outcome.error else "ok"


def timing_line(timing: Timing | None) -> tuple[str, str, str]:
    """Return milliseconds of both networks, and their ratio."""
    if timing is None:
        return _NOTHING, _NOTHING, _NOTHING
    return f"{1e3 * timing.before:.2f}", f"{1e3 * timing.after:.2f}", f"x {timing.ratio:.2f}"
