# SPDX-License-Identifier: Apache-2.0
"""Tables for notebooks: what objects of the Python API show of themselves."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["html_table"]

_MOST_ROWS = 60


def html_table(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as HTML; names from models are text in it, never markup. Of long ones the first rows are shown.

    Parameters
    ----------
    caption : str
    head : sequence of str
        Names of the columns; none for a list of facts.
    rows : iterable of sequence

    Examples
    --------
    >>> html_table("a <b>", ["n"], [[1]])
    '<table><caption>a &lt;b&gt;</caption><tr><th>n</th></tr><tr><td>1</td></tr></table>'
    """
    all_rows = [*rows]
    lines = [_row("td", row) for row in all_rows[:_MOST_ROWS]]
    if head:
        lines.insert(0, _row("th", head))
    if len(all_rows) > _MOST_ROWS:
        lines.append(_row("td", [f"and {len(all_rows) - _MOST_ROWS} more"]))
    return f"<table><caption>{escape(caption)}</caption>{''.join(lines)}</table>"


def _row(tag: str, cells: Iterable[object]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(str(cell))}</{tag}>' for cell in cells)}</tr>"
