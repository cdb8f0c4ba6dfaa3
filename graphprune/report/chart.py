# SPDX-License-Identifier: Apache-2.0
"""The chart of a sweep: what is kept at which cost, a panel per criterion and a line per solver, as SVG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from graphprune.report import text

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from matplotlib.axes import Axes

    from graphprune.report.trials import Trial

__all__ = ["chart"]

_PANEL = (5.0, 4.0)  # inches
_MARKERS = "osD^vP*Xp<>h"


def chart(model: str, trials: Sequence[Trial], front: Collection[tuple[str, str, str]]) -> bytes:
    """Return a drawing as SVG: equal trials give equal bytes.

    Parameters
    ----------
    model : str
        For the title; untrusted text.
    trials : sequence of Trial
    front : collection of tuple of str
        Solver, criterion and budget of the trials on the Pareto front; they get filled marks.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    criteria = list(dict.fromkeys(trial.criterion for trial in trials))
    with rc_context({"svg.hashsalt": "graphprune", "svg.fonttype": "none"}):
        figure = Figure(figsize=(_PANEL[0] * len(criteria), _PANEL[1]), layout="constrained")
        panels = figure.subplots(1, len(criteria), squeeze=False)[0]
        for axes, criterion in zip(panels, criteria, strict=True):
            _panel(axes, [trial for trial in trials if trial.criterion == criterion and not trial.note], front)
            axes.set_title(text.name(criterion, 40), parse_math=False)
            axes.set_xlabel(f"{trials[0].metric}, % of the original", parse_math=False)
        panels[0].set_ylabel(f"{_quality(trials)}, %")
        figure.suptitle(text.name(model), parse_math=False)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def _panel(axes: Axes, trials: Sequence[Trial], front: Collection[tuple[str, str, str]]) -> None:
    """Draw the trials of one criterion."""
    axes.grid(visible=True, alpha=0.3)
    for number, solver in enumerate(dict.fromkeys(trial.solver for trial in trials)):
        own = sorted((trial for trial in trials if trial.solver == solver), key=lambda trial: trial.cost[1])
        color, marker = f"C{number % 10}", _MARKERS[number % len(_MARKERS)]
        x, y = [_percent(trial) for trial in own], [100 * trial.quality for trial in own]
        best = [(trial.solver, trial.criterion, trial.budget) in front for trial in own]
        axes.plot(x, y, color=color, linewidth=1, label=text.name(solver, 24))
        axes.scatter(x, y, color=color, marker=marker, s=25, facecolors=[color if good else "white" for good in best])
    if trials:
        before = next((100 * trial.accuracy[0] for trial in trials if trial.accuracy), 100.0)
        axes.scatter([100.0], [before], color="black", marker="*", s=60, label="original", zorder=3)
        axes.legend(title="filled: on the front", fontsize="small", title_fontsize="small")


def _quality(trials: Sequence[Trial]) -> str:
    """Return what the height of a mark means."""
    if any(trial.accuracy for trial in trials):
        return "accuracy"
    if any(trial.agreement is not None for trial in trials):
        return "agreement with the original"
    return "outputs of the original" if any(trial.explained is not None for trial in trials) else "kept saliency"


def _percent(trial: Trial) -> float:
    before, after = trial.cost
    return 100 * after / before if before else 100.0
