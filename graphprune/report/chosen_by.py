# SPDX-License-Identifier: Apache-2.0
"""By what the channels of a plan were chosen: the saliencies of a criterion, or something else that the solver did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphprune.plan.schema import CHOSEN_BY
from graphprune.report import text
from graphprune.solvers.widths import needs_samples

if TYPE_CHECKING:
    from collections.abc import Mapping

    from graphprune.plan.schema import Plan

__all__ = ["ChannelChoice", "channel_choice"]

_TRAINED = "trained"
"""The criterion that a plan names whose channels were chosen while the network was trained."""


@dataclass(frozen=True)
class ChannelChoice:
    """By what channels were chosen.

    Attributes
    ----------
    ways : mapping of str to str
        By the id of a narrower group, unless it is gone as a whole; untrusted text.
    criterion : str
        Whose saliencies decided, or could have; empty if there is none.
    """

    ways: Mapping[str, str]
    criterion: str

    def by_saliency(self, group: str) -> bool:
        """Whether the most salient channels of a group were to stay."""
        return bool(self.criterion) and self.ways.get(group) == self.criterion

    @property
    def line(self) -> str:
        """All of it in a line, the most frequent way first."""
        names = [*self.ways.values()]
        ways = sorted(dict.fromkeys(names), key=lambda way: -names.count(way))
        shown = [text.name(self._said(way), 80) for way in ways]
        if len(ways) < 2:
            return shown[0] if shown else "all stay"
        return ", ".join(
            f"{name} in {text.plural(names.count(way), 'group')}" for name, way in zip(shown, ways, strict=True)
        )

    def _said(self, way: str) -> str:
        return f"saliency ({way})" if way == self.criterion else way


def channel_choice(plan: Plan) -> ChannelChoice:
    """Return by what the channels of a plan were chosen, as far as it says so.

    Plans that do not say it, of solvers that try networks out, are taken to have been chosen by these alone.
    """
    solver, options = plan.solver, plan.solver.options
    contest = options.get("adapt")
    criterion = solver.criterion
    won = str(contest.get("chosen", "")) if isinstance(contest, dict) else ""
    if won and won != solver.name:
        criterion = won
    usual = criterion
    if plan.lossless:
        usual, criterion = "nothing changes without those that went", ""
    elif criterion == _TRAINED:
        usual, criterion = f"training ({solver.name})", ""
    elif won in ("", solver.name) and CHOSEN_BY not in options and needs_samples(solver.name):
        usual = f"what {solver.name} measured on samples"
    ways = {group.id: usual for group in plan.groups if 0 < len(group.kept) < group.size}
    said = options.get(CHOSEN_BY) if criterion == solver.criterion and won in ("", solver.name) else None
    for way, groups in said.items() if isinstance(said, dict) else ():
        for group in groups if isinstance(groups, list) else ():
            if isinstance(group, str) and group in ways:
                ways[group] = str(way)
    return ChannelChoice(ways, criterion)
