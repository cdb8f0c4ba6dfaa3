# SPDX-License-Identifier: Apache-2.0
"""Tables with names from a model, which give way on a narrow terminal so that no two of a column become the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from graphprune.report import text

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

__all__ = ["NameCell", "NameTable"]

_NARROWEST = 12


class NameCell:
    """A name in a column of a :class:`NameTable`.

    Parameters
    ----------
    name : str
        As it stands in the model.
    width : int
        The most characters that are shown, however wide the terminal is.
    """

    def __init__(self, name: str, width: int) -> None:
        self.name = name
        self.width = width
        self.column: list[NameCell] = [self]

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        longest = min(len(repr(self.name)) - 2, self.width)
        return Measurement(min(longest, _NARROWEST), longest).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(1, min(self.width, options.max_width))
        names = [cell.name for cell in self.column if cell.name]
        yield Text(text.distinct(names, width).get(self.name, ""), no_wrap=True, overflow="ellipsis")


class NameTable(Table):
    """A table that tells the names of a column of each other."""

    def __init__(self, *headers: Any, **options: Any) -> None:
        super().__init__(*headers, **options)
        self._names: dict[int, list[NameCell]] = {}

    def add_row(self, *renderables: RenderableType | None, **options: Any) -> None:
        """Add a row; its names are told apart from those above and below."""
        for at, each in enumerate(renderables):
            if isinstance(each, NameCell):
                each.column = self._names.setdefault(at, [])
                each.column.append(each)
        super().add_row(*renderables, **options)
