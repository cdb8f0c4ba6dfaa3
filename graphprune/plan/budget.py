# SPDX-License-Identifier: Apache-2.0
"""The budget request: which cost is limited, and to which share of what the model costs now."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from graphprune.errors import UsageError, quote

if TYPE_CHECKING:
    from graphprune.plan.schema import Metric

__all__ = ["BudgetRequest", "one_budget", "parse_share"]

_FORM = "give the share to keep, a number with 0 < share <= 1, e.g. 0.5 for half"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class BudgetRequest:
    """Keep at most the share ``target`` of the metric ``metric``.

    Parameters
    ----------
    metric : {"flops", "params", "size"}
        The cost that is limited.
    target : float
        The share to keep, ``0 < target <= 1``.

    Raises
    ------
    UsageError
        If ``target`` is not a number in that range.
    """

    metric: Metric
    target: float

    def __post_init__(self) -> None:
        target: object = self.target  # callers of the Python API may pass anything
        if isinstance(target, bool) or not isinstance(target, (int, float)) or not 0 < target <= 1:
            raise UsageError(f"the budget for {self.metric} is {self.target!r}", hint=_FORM)

    def limit(self, before: int) -> int:
        """Return the largest allowed cost of a model that costs ``before`` now.

        The target is taken as the decimal number that was written, so 0.29 of 100 is 29
        although the nearest binary number is a little smaller than 0.29.
        """
        return int(Fraction(repr(float(self.target))) * before)


def parse_share(text: str, option: str) -> float:
    """Return the share that ``text`` names.

    Raises
    ------
    UsageError
        Unless ``text`` is a plain decimal number with ``0 < share <= 1``.
    """
    text = text.strip()
    share = float(text) if _NUMBER.fullmatch(text) else float("nan")
    if not 0 < share <= 1:
        raise UsageError(f"{option} cannot be {quote(text)}", hint=_FORM)
    return share


def one_budget(**targets: float | None) -> BudgetRequest:
    """Return the one budget that is set among ``targets``, by metric.

    Raises
    ------
    UsageError
        If none is set, or more than one.
    """
    requests = [(metric, target) for metric, target in targets.items() if target is not None]
    options = " or ".join(f"--{metric}" for metric in targets)
    if not requests:
        raise UsageError("no budget is given", hint=f"say how much may stay with {options}, e.g. --flops 0.5")
    if len(requests) > 1:
        given = " and ".join(f"{metric}={target:g}" for metric, target in requests)
        raise UsageError(f"two budgets are given: {given}", hint=f"give one of {options}")
    metric, target = requests[0]
    return BudgetRequest(metric, target)  # type: ignore[arg-type]  # keyword names are metrics
