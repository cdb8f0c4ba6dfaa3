# SPDX-License-Identifier: Apache-2.0
"""The budget request: which cost is limited, and to which share of what the model costs now, or to which amount."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real
from typing import TYPE_CHECKING, cast

from graphprune.errors import UsageError, did_you_mean, quote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from graphprune.plan.schema import Metric

__all__ = ["BudgetRequest", "given_requests", "parse_amount", "parse_target", "requests"]

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_AMOUNT = re.compile(r"(?P<number>\d+\.?\d*|\.\d+) ?(?P<unit>[A-Za-zµ]+)", re.ASCII)

_COUNTS = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BYTES = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
_TIMES = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9}
_UNITS: Mapping[str, tuple[str, Mapping[str, int]]] = {
    "flops": ("300M", _COUNTS),
    "params": ("2M", _COUNTS),
    "size": ("5MB", _BYTES),
    "memory": ("5MB", _BYTES),
    "latency": ("8ms", _TIMES),
}
"""By metric an example, and the factor of each unit: counts, bytes or nanoseconds."""


@dataclass(frozen=True)
class BudgetRequest:
    """Keep at most ``target`` of the metric ``metric``.

    Parameters
    ----------
    metric : {"flops", "params", "size", "memory", "latency"}
        The cost that is limited.
    target : float or str
        The share to keep, ``0 < target <= 1``, as a number or a text; or an amount with its unit: "300M", "5MB", "8ms".

    Raises
    ------
    UsageError
        If there is no such metric, or ``target`` is neither.
    """

    metric: Metric
    target: float | str

    def __post_init__(self) -> None:
        if self.metric not in _UNITS:
            raise UsageError(
                f"no cost is called {quote(self.metric)}: there are {', '.join(_UNITS)}",
                hint=did_you_mean(self.metric, _UNITS),
            )
        if isinstance(self.target, str) and not _NUMBER.fullmatch(self.target.strip()):
            parse_amount(self.metric, self.target)
            return
        share = _share(self.target)
        if not 0 < share <= 1:
            raise UsageError(f"the budget for {self.metric} is {self.target!r}", hint=_form(self.metric))
        object.__setattr__(self, "target", share)

    def limit(self, before: int) -> int:
        """Return the largest allowed cost of a model that costs ``before`` now.

        A share is taken as the decimal number that was written, so 0.29 of 100 is 29
        although the nearest binary number is a little smaller than 0.29.
        """
        if isinstance(self.target, str):
            return parse_amount(self.metric, self.target)
        return int(Fraction(repr(float(self.target))) * before)


def _share(given: object) -> float:
    """Return a share as a number of Python's own; callers of the Python API may pass anything."""
    number = isinstance(given, str | Real) and not isinstance(given, bool)
    return float(cast("float | str", given)) if number else math.nan


def parse_amount(metric: str, text: str) -> int:
    """Return the amount that ``text`` names: counts, bytes or nanoseconds, rounded down.

    Units are known in capitals and small letters; no metric has two that differ in nothing else.

    Raises
    ------
    UsageError
        Unless ``text`` is a positive number with a unit of the metric.
    """
    match = _AMOUNT.fullmatch(text.strip())
    _, units = _UNITS[metric]
    factor = {name.lower(): factor for name, factor in units.items()}.get(match["unit"].lower()) if match else None
    amount = int(Fraction(match["number"]) * factor) if match and factor else 0
    if not amount:
        known = ", ".join(units)
        raise UsageError(f"the budget for {metric} is {quote(text)}", hint=f"{_form(metric)} (units: {known})")
    return amount


def parse_target(text: str, metric: Metric) -> float | str:
    """Return the share or the amount that the option ``--METRIC`` names.

    Raises
    ------
    UsageError
        Unless ``text`` is a plain decimal number with ``0 < share <= 1``, or an amount with a unit.
    """
    text = text.strip()
    if _AMOUNT.fullmatch(text) and not _NUMBER.fullmatch(text):
        parse_amount(metric, text)
        return text
    share = float(text) if _NUMBER.fullmatch(text) else float("nan")
    if not 0 < share <= 1:
        raise UsageError(f"--{metric} cannot be {quote(text)}", hint=_form(metric))
    return share


def requests(targets: Mapping[Metric, str | None]) -> tuple[BudgetRequest, ...]:
    """Return the budgets that are set among the texts of options, by metric; the first one leads.

    Raises
    ------
    UsageError
        If none is set, or a text means nothing.
    """
    budgets = tuple(
        BudgetRequest(metric, parse_target(text, metric)) for metric, text in targets.items() if text is not None
    )
    if not budgets:
        options = ", ".join(f"--{metric}" for metric in targets)
        raise UsageError("no budget is given", hint=f"say how much may stay with one of {options}, e.g. --flops 0.5")
    return budgets


def given_requests(
    budget: BudgetRequest | Sequence[BudgetRequest], limits: Mapping[str, float | str]
) -> tuple[BudgetRequest, ...]:
    """Return all budgets that Python gives, those of keywords (``flops=0.5``) last.

    Raises
    ------
    UsageError
        If something else is given, or there is no such cost.
    """
    given: object = (budget,) if isinstance(budget, BudgetRequest) else budget
    if not isinstance(given, Sequence) or not all(isinstance(each, BudgetRequest) for each in given):
        raise UsageError(
            f"a budget cannot be {quote(budget)}", hint='give BudgetRequest("flops", 0.5), or in short flops=0.5'
        )
    return (*given, *(BudgetRequest(cast("Metric", metric), target) for metric, target in limits.items()))


def _form(metric: str) -> str:
    example, _ = _UNITS[metric]
    return (
        "give the share to keep, a number with 0 < share <= 1, e.g. 0.5 for half, "
        f"or an amount with its unit, e.g. {example}"
    )
