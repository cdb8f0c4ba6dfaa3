# SPDX-License-Identifier: Apache-2.0
"""Tables with names: what is shown of a name depends on the others of its column, and is found out once."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from graphprune.report import text
from graphprune.report.name_table import NameCell, NameTable

_ROWS = 40


def test_the_names_of_a_column_are_told_apart_once_for_each_width(monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[int] = []
    distinct = text.distinct

    def watch(names: list[str], width: int) -> dict[str, str]:
        widths.append(width)
        return distinct(names, width)

    monkeypatch.setattr(text, "distinct", watch)
    table = NameTable("layer", "size")
    for row in range(_ROWS):
        table.add_row(NameCell(f"/stages/stages.0/blocks.{row}/conv/Conv", 20), str(row))
    console = Console(file=io.StringIO(), width=60)
    console.print(table)
    shown = console.file.getvalue()  # type: ignore[attr-defined]  # it is the one of above
    assert len(widths) == len(set(widths))
    assert len({line.split()[1] for line in shown.splitlines() if "Conv" in line}) == _ROWS


def test_a_row_that_comes_later_counts_as_well() -> None:
    table = NameTable("layer")
    first, second = NameCell("/a/a/a/a/a/a/one/b/b/b/b/b/b", 12), NameCell("/a/a/a/a/a/a/two/b/b/b/b/b/b", 12)
    table.add_row(first)
    before = first.column.shown(12)
    table.add_row(second)
    after = first.column.shown(12)
    assert len(before) == 1
    assert len({*after.values()}) == len(after) == 2
