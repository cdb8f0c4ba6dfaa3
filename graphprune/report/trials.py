# SPDX-License-Identifier: Apache-2.0
"""Trials: what solvers and criteria make of one model under a budget, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rich.console import Group as Stack

from graphprune.report import text
from graphprune.report.fitting_table import FittingTable
from graphprune.report.tables import cell, grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

__all__ = ["Trial", "sparkline", "trial_json", "trial_tables"]

_LEVELS = "▁▂▃▄▅▆▇█"
_LONGEST = 32
_NOTHING = "–"
_SPARE = ("seconds", "gap", "kept saliency", "params", "widths")
"""Columns that a narrow terminal does without, those first that are missed least."""
_WITHIN = "kept saliency and gap compare results of one criterion with one another; they are no measure of accuracy"


@dataclass(frozen=True)
class Trial:
    """What one solver with one criterion makes of a model.

    Attributes
    ----------
    solver, criterion : str
    budget : str
        What was asked for: "flops 0.5".
    metric : str
        What the leading budget limits.
    cost, flops, params : tuple of int
        What the leading budget limits, FLOPs and parameters, each before and after.
    widths : tuple of tuple of int
        For each group the atoms that stay, and those that there were.
    kept : float
        Saliency that stays, as a share of all, each group on the scale on which groups compete. Comparable between
        solvers, not between criteria.
    bound : float, optional
        What any widths within the budgets can keep at most, on the scale of `kept`, if that was proved.
    seconds : float
        For scoring and solving.
    latency : tuple of float, optional
        Seconds for one inference before and after, and their ratio, measured in pairs.
    accuracy : tuple of float, optional
        Share of samples whose class comes first, before and after.
    agreement : float, optional
        Share of samples for which the original and the pruned model choose the same class.
    explained : float, optional
        Share of the variance of the original's outputs that is there, where they are no classes.
    judged : str
        On which samples these three were measured; or why on none.
    note : str
        Why there is no plan; all figures are then 0.
    """

    solver: str
    criterion: str
    budget: str
    metric: str
    cost: tuple[int, int] = (0, 0)
    flops: tuple[int, int] = (0, 0)
    params: tuple[int, int] = (0, 0)
    widths: tuple[tuple[int, int], ...] = ()
    kept: float = 0.0
    bound: float | None = None
    seconds: float = 0.0
    latency: tuple[float, float, float] | None = None
    accuracy: tuple[float, float] | None = None
    agreement: float | None = None
    explained: float | None = None
    judged: str = ""
    note: str = ""

    @property
    def quality(self) -> float:
        """The best of what is known of the result: what was measured of it, or the saliency kept."""
        measured = self.measured
        return self.kept if measured is None else measured

    @property
    def measured(self) -> float | None:
        """Accuracy, agreement with the original, or the share of its outputs that is there; None if not measured."""
        if self.accuracy:
            return self.accuracy[1]
        return self.explained if self.agreement is None else self.agreement

    @property
    def gap(self) -> float | None:
        """How much more any widths could keep at most, as a share of the bound."""
        if self.bound is None:
            return None
        return max(0.0, (self.bound - self.kept) / self.bound) if self.bound > 0 else 0.0


def sparkline(widths: Sequence[tuple[int, int]], longest: int = _LONGEST) -> str:
    """Return a bar per group, as high as the share of its atoms that stays; many groups share bars.

    Examples
    --------
    >>> sparkline([(8, 8), (4, 8), (1, 8)])
    '█▄▁'
    """
    if not widths:
        return ""
    bars = min(longest, len(widths))
    cut = [round(index * len(widths) / bars) for index in range(bars + 1)]
    parts = [widths[start:end] for start, end in pairwise(cut)]
    shares = [sum(kept / size for kept, size in part) / len(part) for part in parts]
    return "".join(_LEVELS[max(0, min(len(_LEVELS) - 1, round(share * len(_LEVELS)) - 1))] for share in shares)


def trial_tables(model: str, trials: Sequence[Trial]) -> RenderableType:
    """Return trials as a table; columns of which nothing is known are left out.

    Under one budget the best come first, if anything was measured of them; else they stay in their order.
    """
    several = len({trial.budget for trial in trials}) > 1
    if not several and any(trial.measured is not None for trial in trials):
        trials = sorted(trials, key=lambda trial: -1.0 if trial.measured is None else trial.measured, reverse=True)
    columns = {"budget": [trial.budget for trial in trials]} if several else {}
    columns |= _columns(trials)
    names: dict[str, Sequence[RenderableType]] = {
        "solver": [cell(trial.solver, 24) for trial in trials],
        "criterion": [cell(trial.criterion, 24) for trial in trials],
    }
    result = FittingTable({**names, **columns}, [name for name in columns if name not in ("budget", "widths")], _SPARE)
    head = [("model", text.name(model)), *(() if several else (("budget", trials[0].budget),))]
    done = [trial for trial in trials if not trial.note]
    head += [("measured", f"on {trial.judged}" if trial.measured is not None else trial.judged) for trial in done][:1]
    head = [(label, line) for label, line in head if line]
    head += [("original", f"{_percent(trial.accuracy[0])} accuracy") for trial in done if trial.accuracy][:1]
    notes = [
        ("note", f"{trial.budget}, {trial.solver}, {trial.criterion}: {trial.note}") for trial in trials if trial.note
    ]
    return Stack(grid(head), result, grid([("note", _WITHIN), *notes]))


def _columns(trials: Sequence[Trial]) -> dict[str, list[str]]:
    """Return what is known of trials by columns: first what they are worth, then what they cost."""
    columns = {}
    if any(trial.accuracy for trial in trials):
        columns["accuracy"] = [_percent(trial.accuracy[1] if trial.accuracy else None) for trial in trials]
    if any(trial.agreement is not None for trial in trials):
        columns["agreement"] = [_percent(trial.agreement) for trial in trials]
    if any(trial.explained is not None for trial in trials):
        columns["outputs"] = [_percent(trial.explained) for trial in trials]
    columns |= {
        "widths": [sparkline(trial.widths) for trial in trials],
        "FLOPs": [_share(trial.flops) for trial in trials],
        "params": [_share(trial.params) for trial in trials],
    }
    if any(trial.metric not in ("flops", "params") for trial in trials):
        columns[trials[0].metric] = [_share(trial.cost) for trial in trials]
    if any(trial.latency for trial in trials):
        columns["latency"] = [_latency(trial) for trial in trials]
    columns["kept saliency"] = [_percent(None if trial.note else trial.kept) for trial in trials]
    if any(trial.gap is not None for trial in trials if not trial.note):
        columns["gap"] = [_percent(trial.gap) for trial in trials]
    columns["seconds"] = [f"{trial.seconds:.2f}" for trial in trials]
    return columns


def trial_json(trial: Trial) -> dict[str, Any]:
    """Return a trial as a JSON object."""
    entry: dict[str, Any] = {"solver": trial.solver, "criterion": trial.criterion, "budget": trial.budget}
    if trial.note:
        return {**entry, "note": trial.note}
    figures = {"flops": trial.flops, "params": trial.params, trial.metric: trial.cost}
    entry |= {name: {"before": before, "after": after} for name, (before, after) in figures.items()}
    entry |= {"widths": [kept for kept, _ in trial.widths], "sizes": [size for _, size in trial.widths]}
    entry |= {"kept_saliency": trial.kept, "bound": trial.bound, "gap": trial.gap}
    if trial.latency:
        entry["latency"] = dict(zip(("before", "after", "ratio"), trial.latency, strict=True))
    if trial.accuracy:
        entry["accuracy"] = dict(zip(("before", "after"), trial.accuracy, strict=True))
    entry |= {"agreement": trial.agreement, "explained": trial.explained, "judged": trial.judged}
    return {**entry, "seconds": trial.seconds}


def _share(cost: tuple[int, int]) -> str:
    return text.percent(cost[1], cost[0])


def _percent(share: float | None) -> str:
    return _NOTHING if share is None else f"{100 * share:.2f} %"


def _latency(trial: Trial) -> str:
    if trial.latency is None:
        return _NOTHING
    _, after, ratio = trial.latency
    return f"{100 * ratio:.1f} % ({1000 * after:.3g} ms)"
