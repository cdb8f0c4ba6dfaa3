# SPDX-License-Identifier: Apache-2.0
"""A drawing as one self-contained page: point at a group to see its members and neighbours, click to keep it."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from graphprune.report import text
from graphprune.report.arcs import svg

if TYPE_CHECKING:
    from graphprune.report.drawing import Drawing

__all__ = ["box_records", "explore_script", "page"]

_LONGEST = 300

_TEMPLATE = "page.html"


def page(drawing: Drawing) -> str:
    """Return the drawing as an HTML page that loads nothing and asks nobody.

    Parameters
    ----------
    drawing : Drawing
        What to show. Its names are untrusted: they are escaped in the picture, and reach the script
        as data that is only ever shown as text.
    """
    data = json.dumps(box_records(drawing), ensure_ascii=True, separators=(",", ":"))
    data = data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    template = Template(files("graphprune.report").joinpath(_TEMPLATE).read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(text.name(drawing.name, 80)),
        drawing=svg(drawing, standalone=False),
        boxes=data,
        explore=explore_script(),
    )


def explore_script() -> str:
    """Return the script that lets people point at rows of a drawing, which every page with one shares."""
    return files("graphprune.report").joinpath("explore.js").read_text(encoding="utf-8")


def box_records(drawing: Drawing) -> dict[str, dict[str, object]]:
    """Return by the id of a box what a page says of it."""
    records: dict[str, dict[str, object]] = {}
    for box in drawing.boxes:
        group = box.kind == "group"
        exact = "" if box.exact else "; not exact"
        saved = (
            f"alone saves {100 * box.flops:.1f} % of the FLOPs" if group else f"in {100 * box.flops:.1f} % of the FLOPs"
        )
        wide = f"{box.width} wide" if box.kept is None else f"{box.kept} of {box.width} stay"
        detail = f"{text.name(box.detail, _LONGEST)}; " if box.detail else ""
        records[box.id] = {
            "name": f"{box.id} {text.name(box.title, _LONGEST)}"
            if group
            else f"stays: {text.name(box.title, _LONGEST)}",
            "facts": f"{detail}{wide}, {saved}{exact}",
            "list": "members" if group else "layers",
            "members": [text.name(member, _LONGEST) for member in box.members],
        }
    return records
