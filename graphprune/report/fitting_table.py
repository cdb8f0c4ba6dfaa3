# SPDX-License-Identifier: Apache-2.0
"""Tables of figures that leave columns out on a narrow terminal: half of a figure says nothing, or something else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.measure import Measurement
from rich.text import Text

from graphprune.report.tables import table

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table

__all__ = ["FittingTable"]

_ANY = 10_000


class FittingTable:
    """A table that is as wide as it needs to be, with as many of its columns as there is room for.

    Parameters
    ----------
    columns : mapping of str to sequence of renderable
        The cells of each column, by its head.
    right : collection of str
        Columns of numbers, aligned to the right.
    spare : sequence of str
        Columns that may be left out, those first that are missed least.
    """

    def __init__(
        self, columns: Mapping[str, Sequence[RenderableType]], right: Collection[str], spare: Sequence[str]
    ) -> None:
        self._columns = columns
        self._right = right
        self._spare = [head for head in spare if head in columns]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        anything = options.update(width=_ANY)
        for count in range(len(self._spare) + 1):
            gone = self._spare[:count]
            shown = self._table(gone)
            if Measurement.get(console, anything, shown).maximum <= options.max_width:
                break
        yield shown
        if gone:
            yield Text(f"left out, for want of room: {', '.join(gone)}; a wider terminal or --json shows them")

    def _table(self, gone: Collection[str]) -> Table:
        shown = {head: cells for head, cells in self._columns.items() if head not in gone}
        result = table(*shown, right=[head for head in self._right if head in shown])
        for row in zip(*shown.values(), strict=True):
            result.add_row(*row)
        return result
