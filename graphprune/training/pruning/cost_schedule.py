# SPDX-License-Identifier: Apache-2.0
"""A schedule of costs: how much of the way to the budget has been gone at each point of training."""

from __future__ import annotations

from dataclasses import dataclass

from graphprune.errors import UsageError, quote

__all__ = ["SHAPES", "CostSchedule"]

SHAPES = ("cubic", "linear")


@dataclass(frozen=True)
class CostSchedule:
    """When channels go, and how many.

    Parameters
    ----------
    shape : {"cubic", "linear"}
        Cubic takes most of the way early, while there is much to choose from.
    begin, end : float
        Shares of the steps, ``0 <= begin < end <= 1``.
    times : int
        How often something goes.

    Source: the cubic form is that of Zhu and Gupta, To prune, or not to prune, arXiv:1710.01878, eq. 1.

    Raises
    ------
    UsageError
        If a parameter has no meaning.
    """

    shape: str = "cubic"
    begin: float = 0.0
    end: float = 1 / 3
    times: int = 4

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise UsageError(f"a schedule cannot be {quote(self.shape)}: there are {', '.join(SHAPES)}")
        if not 0 <= self.begin < self.end <= 1:
            raise UsageError(f"pruning cannot last from {self.begin:g} to {self.end:g} of the steps")
        if self.times < 1:
            raise UsageError(f"channels go at least once, not {self.times} times")

    def steps(self, total: int) -> tuple[int, ...]:
        """Return after how many of `total` steps something goes: increasing, the last time at `end`."""
        width = (self.end - self.begin) / self.times
        stops = {min(total, max(1, round((self.begin + width * k) * total))) for k in range(1, self.times + 1)}
        return tuple(sorted(stops))

    def way(self, step: int, total: int) -> float:
        """Return which share of the way from the full cost to the budget has been gone after `step` steps.

        Examples
        --------
        >>> CostSchedule("cubic", 0.0, 0.5).way(25, 100)
        0.875
        """
        gone = (step / max(1, total) - self.begin) / (self.end - self.begin)
        gone = min(1.0, max(0.0, gone))
        return 1.0 - (1.0 - gone) ** 3 if self.shape == "cubic" else gone
