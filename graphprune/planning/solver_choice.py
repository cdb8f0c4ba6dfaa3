# SPDX-License-Identifier: Apache-2.0
"""Which solver chooses widths where nobody names one: the best that measures and whose work stays within a bound.

Work is counted, not timed: multiply-adds of the passes that a solver makes of the network over the samples. So the same
file, samples and budget give the same choice on every machine.

==============  ====================================================================================
solver          passes over all samples that are used
==============  ====================================================================================
`sensitivity`   in each of two stages one that reads, and for each of up to four widths of every group
                one of a quarter of the samples through what lies behind it; between them a recovery
`stage-wise`    five: stages are run for some candidates on a part of the samples
`bisection`     none
==============  ====================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphprune.report import text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.plan.budget import BudgetRequest

__all__ = [
    "MOST_WORK",
    "STAGE_WISE_PASSES",
    "UNMEASURED",
    "SolverChoice",
    "choose_made_solver",
    "choose_solver",
    "sensitivity_passes",
]

MOST_WORK = 8_000_000_000_000
"""Multiply-adds that are spent where nobody says how much may be: minutes on two cores."""
STAGE_WISE_PASSES = 5
UNMEASURED = "bisection"
"""Chooses widths without looking at samples."""

_STAGES = 2
_RECOVERY = 2
_FEWEST = 8
_ROUNDS = 4
"""How often widths are chosen anew at most where a latency is limited."""


@dataclass(frozen=True)
class SolverChoice:
    """A solver, and why it is this one.

    Attributes
    ----------
    name : str
    reason : str
        With what more work, or less, would take.
    """

    name: str
    reason: str


def choose_solver(
    analysis: Analysis, samples: int, requests: Sequence[BudgetRequest] = (), most_work: int = MOST_WORK
) -> SolverChoice:
    """Choose how widths are chosen where there are samples.

    Parameters
    ----------
    analysis : Analysis
    samples : int
        How many of them the solver looks at.
    requests : sequence of BudgetRequest
        What is limited.
    most_work : int
        Multiply-adds.
    """
    if samples < _FEWEST:
        return SolverChoice(
            UNMEASURED,
            f"{text.plural(samples, 'sample')} {'is' if samples == 1 else 'are'} too few to measure widths on; "
            f"{_FEWEST} and more would be measured",
        )
    macs = analysis.cost.flops(analysis.cost.sizes) // 2
    rounds = _ROUNDS if any(request.metric == "latency" for request in requests) else 1
    work = {
        name: round(samples * macs * passes * rounds)
        for name, passes in (("sensitivity", sensitivity_passes(analysis)), ("stage-wise", STAGE_WISE_PASSES))
    }
    best = next((name for name, needed in work.items() if needed <= most_work), UNMEASURED)
    return SolverChoice(best, _reason(best, work, most_work))


def choose_made_solver(*, measures: bool) -> SolverChoice:
    """Choose how widths are chosen on samples that are made.

    What the outputs make of such samples says less than what single stages make of them: a CIFAR-10 ResNet-20 keeps
    77 % at half of its FLOPs by `sensitivity`, and 82 % by `stage-wise`.

    Parameters
    ----------
    measures : bool
        Whether that is within the bound of work.
    """
    if measures:
        return SolverChoice("stage-wise", f"widths are measured on samples that are made; less: --solver {UNMEASURED}")
    return SolverChoice(UNMEASURED, "more: --solver stage-wise measures widths, beyond the work of the default")


def _reason(best: str, work: dict[str, int], most_work: int) -> str:
    """Say what a choice costs, and how to spend more or less."""
    parts = []
    if best in work:
        parts.append(f"widths are measured, for {text.count(work[best])} multiply-adds")
    more = [name for name, needed in work.items() if needed > most_work]
    if more:
        shown = " and ".join(f"--solver {name} would take {text.count(work[name])}" for name in more)
        parts.append(f"more: {shown}, beyond the {text.count(most_work)} of the default")
    if best in work:
        less = ["stage-wise"] if best == "sensitivity" else []
        parts.append(f"less: {' or '.join(f'--solver {name}' for name in (*less, UNMEASURED))}")
    return "; ".join(parts)


def sensitivity_passes(analysis: Analysis) -> float:
    """Return how often `sensitivity` passes all samples through the network, with its default settings.

    Four widths on a quarter of the samples are one pass through what lies behind a group, which is counted as all
    layers from the first one on that reads it.
    """
    place = {layer.node: at for at, layer in reversed([*enumerate(analysis.layers)])}
    costs = [layer.flops(analysis.cost.sizes) for layer in analysis.layers]
    whole = sum(costs) or 1
    behind = 0.0
    for group in analysis.groups:
        read = [place[member.node] for member in group.members if member.role == "in" and member.node in place]
        if read:
            behind += sum(costs[min(read) :]) / whole
    return _STAGES * (1 + behind) + _RECOVERY
