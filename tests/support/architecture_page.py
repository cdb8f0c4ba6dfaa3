# SPDX-License-Identifier: Apache-2.0
"""What docs/architecture.md says of folders and imports, read from its drawings."""

from __future__ import annotations

import functools
import re

from source_tree import ROOT

__all__ = ["folders_and_files", "layers"]

_PAGE = ROOT / "docs" / "architecture.md"
_INDENT = 2


def _drawing(heading: str) -> list[str]:
    """Return the lines of the first code block behind a heading."""
    section = _PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines: list[str] = section.split("```")[1].strip("\n").split("\n")
    return lines


@functools.cache
def layers() -> tuple[tuple[str, ...], ...]:
    """Return the modules and packages of each layer by their full names, the highest layer first."""
    return tuple(
        tuple(name if name == "graphprune" else f"graphprune.{name}" for name in line.split())
        for line in _drawing("Which way imports point")
    )


@functools.cache
def folders_and_files() -> tuple[str, ...]:
    """Return the paths in the tree, those of folders with a slash behind them."""
    above: list[str] = []
    paths = []
    for line in _drawing("The tree"):
        entry = re.match(r"( *)(\S+)  ", line)
        assert entry, f"{_PAGE.name} has a line in its tree that names nothing: {line!r}"
        depth, name = divmod(len(entry[1]), _INDENT)[0], entry[2]
        above[depth:] = [name]
        paths.append("".join(above[: depth + 1]))
    return tuple(paths)
