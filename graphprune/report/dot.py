# SPDX-License-Identifier: Apache-2.0
"""A drawing in graphviz' language, and laid out by its program where that is installed."""

from __future__ import annotations

import shutil
import subprocess
from math import sqrt
from typing import TYPE_CHECKING

from graphprune.report import text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from graphprune.report.drawing import Arrow, Box, Drawing

__all__ = ["dot", "laid_out"]

_SECONDS = 20
_MOST_ARROWS = 150
"""Beyond that no layout of boxes and arrows can be read."""

_FULL = (111, 174, 230)
"""Colour of a group that is all of the cost."""

_HEAD = """\
  rankdir=TB; bgcolor="white"; nodesep=0.25; ranksep=0.4;
  node [shape=box, style="rounded,filled", fontname="DejaVu Sans,sans-serif", fontsize=11, color="#0b6fc2"];
  edge [color="#2f7fc7", arrowsize=0.6];"""


def dot(drawing: Drawing) -> str:
    """Return the drawing in graphviz' language; every name in it is quoted, and shortened for people."""
    kinds = {box.id: box.kind for box in drawing.boxes}
    lines = [
        f"digraph {_quoted(text.name(drawing.name, 80))} {{",
        _HEAD,
        *(_box(box) for box in drawing.boxes),
        *(_arrow(arrow, kinds) for arrow in drawing.arrows),
        "}",
    ]
    return "\n".join(lines) + "\n"


def laid_out(drawing: Drawing) -> str | None:
    """Return the drawing as SVG made by graphviz, or None if it is not installed, fails, or could not help.

    The program gets the drawing on its standard input and writes to its standard output; it is
    given no file.
    """
    program = shutil.which("dot")
    if program is None or len(drawing.arrows) > _MOST_ARROWS:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command line; all names are quoted text on stdin
            [program, "-Tsvg"], input=dot(drawing).encode(), capture_output=True, timeout=_SECONDS, check=True
        )
        result = done.stdout.decode()
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return result if "</svg>" in result else None


def _quoted(*lines: str) -> str:
    """Return a quoted string; a backslash in a name must not start one of graphviz' own escapes."""
    return '"' + "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines) + '"'


def _box(box: Box) -> str:
    share = f"{100 * box.flops:.1f} % of the FLOPs"
    tooltip = _quoted(*_hover(box))
    if box.kind == "frozen":
        label = _quoted(f"stays: {text.name(box.title, 60)}", _start(box.detail), f"{box.width} wide, {share}")
        return (
            f'  {box.id} [label={label}, tooltip={tooltip}, color="#b3b9c2", fillcolor="#eef0f3", fontcolor="#6b7280"];'
        )
    mark = "" if box.exact else ", not exact"
    label = _quoted(f"{box.id}  {text.name(box.title, 46)}", f"{box.width} wide, {share}{mark}")
    fill = "#" + "".join(f"{round(255 - (255 - part) * min(1.0, sqrt(box.flops))):02x}" for part in _FULL)
    edge = "" if box.exact else ', color="#e0822f"'
    return f'  {box.id} [label={label}, tooltip={tooltip}, fillcolor="{fill}"{edge}];'


def _start(full: str, letters: int = 60) -> str:
    shown = text.name(full, 1000)
    return shown if len(shown) <= letters else f"{shown[: letters - 1]}…"


def _hover(box: Box, most: int = 20) -> Iterator[str]:
    yield from (text.name(member, 100) for member in box.members[:most])
    if len(box.members) > most:
        yield f"and {len(box.members) - most} more"


def _arrow(arrow: Arrow, kinds: Mapping[str, str]) -> str:
    cold = ', color="#aab1bb"' if "frozen" in (kinds[arrow.tail], kinds[arrow.head]) else ""
    tooltip = _quoted(*(text.name(layer, 80) for layer in arrow.layers[:20]))
    thick = 0.8 + 7 * sqrt(min(1.0, arrow.flops))
    return f"  {arrow.tail} -> {arrow.head} [penwidth={thick:.2f}, tooltip={tooltip}{cold}];"
