# SPDX-License-Identifier: Apache-2.0
"""Which solver chooses widths where nobody names one: the best that measures and whose work stays within a bound.

Work is counted, not timed: multiply-adds of the passes that a solver makes of the network over the samples. So the same
file, samples and budget give the same choice on every machine.

==============  ====================================================================================
solver          passes over all samples that are used
==============  ====================================================================================
`sensitivity`   in each of two stages one that reads, and for each of up to three widths of every group
                one of a quarter of the samples through what lies behind it; between them a recovery
`stage-wise`    five: stages are run for some candidates on a part of the samples
`bisection`     none
==============  ====================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from graphprune.report import text
from graphprune.solvers.widths import AUTO

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.plan.budget import BudgetRequest
    from graphprune.planning.solve_options import SolveOptions

__all__ = [
    "BOUNDS",
    "MADE_SOLVER",
    "MOST_WORK",
    "STAGE_WISE_PASSES",
    "UNMEASURED",
    "SolverChoice",
    "choose_made_solver",
    "choose_solver",
    "decides_channels",
    "sensitivity_passes",
    "settled_solver",
]

MOST_WORK = 8_000_000_000_000
"""Multiply-adds that are spent where nobody says how much may be: minutes on two cores."""
STAGE_WISE_PASSES = 5
BOUNDS: Mapping[str, int] = MappingProxyType({"sensitivity": 4_000_000_000_000, "stage-wise": MOST_WORK})
"""The same for each solver, the best first. Counts of one are not those of another: what `stage-wise` does for its
candidates is not in its five passes. MobileNetV2 (224 pixels, 250 photographs, 0.7 of the FLOPs) takes `sensitivity`
1.7 T and three minutes of processor time with recovery, `stage-wise` five, and the error on held-out photographs is
0.177 instead of 0.193. A CIFAR-10 ResNet-56 with 1,024 images takes 3.5 T and a minute and a half."""
MADE_SOLVER = "stage-wise"
"""Measures widths on samples that are made."""
UNMEASURED = "bisection"
"""Chooses widths without looking at samples."""

_STAGES = 2
_WIDTHS = 3
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
    analysis: Analysis,
    samples: int,
    requests: Sequence[BudgetRequest] = (),
    bounds: Mapping[str, int] = BOUNDS,
) -> SolverChoice:
    """Choose how widths are chosen where there are samples.

    Parameters
    ----------
    analysis : Analysis
    samples : int
        How many of them the solver looks at.
    requests : sequence of BudgetRequest
        What is limited.
    bounds : mapping of str to int
        The most multiply-adds of each solver that measures.
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
    best = next((name for name, needed in work.items() if needed <= bounds[name]), UNMEASURED)
    return SolverChoice(best, _reason(best, work, bounds))


def settled_solver(
    analysis: Analysis, samples: int | None, requests: Sequence[BudgetRequest], options: SolveOptions
) -> SolveOptions:
    """Return options with a solver in place of "auto".

    Parameters
    ----------
    samples : int or None
        How many of them a solver can look at, if there are any.
    """
    if options.solver != AUTO:
        return options
    set_otherwise = options.settings or options.allow_empty or options.certify or decides_channels(options)
    measures = samples is not None and not set_otherwise
    choice = choose_solver(analysis, samples or 0, requests).name if measures else UNMEASURED
    return replace(options, solver=choice)


def decides_channels(options: SolveOptions) -> SolverChoice | None:
    """Return the solver for those who say which channels stay; None where nobody does.

    Solvers that measure choose the channels themselves, and would pass over a criterion without a word.
    """
    if options.adapt:
        who = f"--adapt {','.join(options.adapt)}"
    elif options.criterion != type(options)().criterion:
        who = f"--criterion {options.criterion}"
    else:
        return None
    reason = f"{who} decides which channels stay; solvers that measure widths ({MADE_SOLVER}) choose them themselves"
    return SolverChoice(UNMEASURED, reason)


def choose_made_solver(general: SolverChoice, *, matched: bool, measures: bool) -> SolverChoice:
    """Choose how widths are chosen on samples that are made.

    Where the network is matched to them, what its outputs make of such samples says less than what single stages make
    of them: a CIFAR-10 ResNet-20 keeps 77 % at half of its FLOPs by `sensitivity`, and 82 % by `stage-wise`. Where the
    file keeps no statistics to match, stages are far from what they were in training: a MobileNetV2 whose
    BatchNormalization is folded is left at an error on held-out made images of 0.154 by `stage-wise`, and of 0.126 by
    `sensitivity`.

    Parameters
    ----------
    general : SolverChoice
        As of :func:`choose_solver`, whatever the samples are.
    matched : bool
        Whether the network is matched to the samples.
    measures : bool
        Whether measuring is within the bound of work.
    """
    if not matched and general.name in BOUNDS:
        return general
    if measures:
        return SolverChoice(MADE_SOLVER, f"widths are measured on samples that are made; less: --solver {UNMEASURED}")
    return SolverChoice(UNMEASURED, f"more: --solver {MADE_SOLVER} measures widths, beyond the work of the default")


def _reason(best: str, work: Mapping[str, int], bounds: Mapping[str, int]) -> str:
    """Say what a choice costs, and how to spend more or less."""
    parts = []
    if best in work:
        parts.append(f"widths are measured, for {text.count(work[best])} multiply-adds")
    more = [
        f"--solver {name} would take {text.count(needed)}, by default at most {text.count(bounds[name])}"
        for name, needed in work.items()
        if needed > bounds[name]
    ]
    if more:
        parts.append(f"more: {' and '.join(more)}")
    if best in work:
        less = ["stage-wise"] if best == "sensitivity" else []
        parts.append(f"less: {' or '.join(f'--solver {name}' for name in (*less, UNMEASURED))}")
    return "; ".join(parts)


def sensitivity_passes(analysis: Analysis) -> float:
    """Return how often `sensitivity` passes all samples through the network, with its default settings.

    Each width on a quarter of the samples is a quarter of a pass through what lies behind a group, which is counted as
    all layers from the first one on that reads it.
    """
    place = {layer.node: at for at, layer in reversed([*enumerate(analysis.layers)])}
    costs = [layer.flops(analysis.cost.sizes) for layer in analysis.layers]
    whole = sum(costs) or 1
    behind = 0.0
    for group in analysis.groups:
        read = [place[member.node] for member in group.members if member.role == "in" and member.node in place]
        if read:
            behind += sum(costs[min(read) :]) / whole
    return _STAGES * (1 + _WIDTHS / 4 * behind) + _RECOVERY
