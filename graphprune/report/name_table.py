# SPDX-License-Identifier: Apache-2.0
"""Tables with names from a model, which give way on a narrow terminal so that no two of a column become the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from graphprune.report import text

if TYPE_CHECKING:
    from collections.abc import Iterable

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
        self.column = _Column([name])

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        longest = min(len(repr(self.name)) - 2, self.width)
        return Measurement(min(longest, _NARROWEST), longest).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(1, min(self.width, options.max_width))
        yield Text(self.column.shown(width).get(self.name, ""), no_wrap=True, overflow="ellipsis")


class _Column:
    """The names of a column, told apart once for each width at which they are shown."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = list(names)
        self._shown: dict[int, dict[str, str]] = {}

    def add(self, name: str) -> None:
        """Add a name, by which others may have to be shown in another way."""
        self._names.append(name)
        self._shown.clear()

    def shown(self, width: int) -> dict[str, str]:
        """Return what is shown of each name."""
        if width not in self._shown:
            self._shown[width] = text.distinct([name for name in self._names if name], width)
        return self._shown[width]


class NameTable(Table):
    """A table that tells the names of a column of each other."""

    def __init__(self, *headers: Any, **options: Any) -> None:
        super().__init__(*headers, **options)
        self._columns: dict[int, _Column] = {}

    def add_row(self, *renderables: RenderableType | None, **options: Any) -> None:
        """Add a row; its names are told apart from those above and below."""
        for at, each in enumerate(renderables):
            if isinstance(each, NameCell):
                each.column = self._columns.setdefault(at, _Column())
                each.column.add(each.name)
        super().add_row(*renderables, **options)
