# SPDX-License-Identifier: Apache-2.0
"""A drawing as one self-contained page: point at a group to see its members and neighbours, click to keep it."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING

from graphprune.report import text
from graphprune.report.arcs import svg

if TYPE_CHECKING:
    from graphprune.report.drawing import Drawing

__all__ = ["page"]

_LONGEST = 300

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>@TITLE@ – graphprune</title>
<style>
body{margin:0;display:flex;align-items:flex-start;background:#fff;
  font:13px ui-sans-serif,system-ui,"Segoe UI","DejaVu Sans",sans-serif;color:#1d2733}
main{flex:none}
aside{position:sticky;top:0;flex:1;min-width:16em;max-height:100vh;overflow:auto;box-sizing:border-box;padding:16px;
  overflow-wrap:anywhere}
aside h2{font-size:15px;margin:0 0 4px}aside p{margin:4px 0 12px;color:#697586}
aside ul{margin:0 0 12px;padding-left:18px}
.row{cursor:pointer}.row,.arc{transition:opacity .1s}
.dim .row{opacity:.28}.dim .arc{opacity:.04}.dim .row.near{opacity:1}.dim .arc.near{opacity:.9}
.row.here .back{fill:#dcebfa}
</style>
</head>
<body>
<main>
@DRAWING@</main>
<aside id="side" aria-live="polite"><p>Point at a row to see what belongs to it; click to keep it.</p></aside>
<script type="application/json" id="boxes">@BOXES@</script>
<script>
"use strict";
(() => {
  const boxes = JSON.parse(document.getElementById("boxes").textContent);
  const svg = document.querySelector("svg"), side = document.getElementById("side");
  const rows = new Map([...svg.querySelectorAll(".row")].map(row => [row.dataset.box, row]));
  const arcs = [...svg.querySelectorAll(".arc")];
  let kept = null;
  const put = (kind, text, parent = side) => {
    const element = document.createElement(kind);
    element.textContent = text;
    parent.append(element);
    return element;
  };
  const list = (title, lines) => {
    if (!lines.length) return;
    put("h2", title);
    const all = put("ul", "");
    for (const line of lines) put("li", line, all);
  };
  const show = id => {
    for (const element of [...rows.values(), ...arcs]) element.classList.remove("near", "here");
    svg.classList.toggle("dim", id !== null);
    if (id === null) return;
    rows.get(id).classList.add("near", "here");
    const read = [], made = [];
    for (const arc of arcs) {
      const {from, to} = arc.dataset;
      if (from !== id && to !== id) continue;
      arc.classList.add("near");
      const other = from === id ? to : from;
      rows.get(other).classList.add("near");
      (from === id ? made : read).push(boxes[other].name);
    }
    const box = boxes[id];
    side.replaceChildren();
    put("h2", box.name);
    put("p", box.facts);
    list(box.list, box.members);
    list("made from", read);
    list("read to make", made);
  };
  for (const [id, row] of rows) {
    row.addEventListener("mouseenter", () => kept === null && show(id));
    row.addEventListener("mouseleave", () => kept === null && show(null));
    row.addEventListener("click", event => {
      kept = kept === id ? null : id;
      show(kept === null ? id : kept);
      event.stopPropagation();
    });
  }
  document.addEventListener("click", event => {
    if (side.contains(event.target)) return;
    kept = null;
    show(null);
  });
})();
</script>
</body>
</html>
"""


def page(drawing: Drawing) -> str:
    """Return the drawing as an HTML page that loads nothing and asks nobody.

    Parameters
    ----------
    drawing : Drawing
        What to show. Its names are untrusted: they are escaped in the picture, and reach the script
        as data that is only ever shown as text.
    """
    data = json.dumps(_boxes(drawing), ensure_ascii=True, separators=(",", ":"))
    data = data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    parts = {
        "@TITLE@": escape(text.name(drawing.name, 80)),
        "@DRAWING@": svg(drawing, standalone=False),
        "@BOXES@": data,
    }
    result = ""
    rest = _PAGE
    for mark, part in parts.items():  # in order, so that a mark inside a name stays a name
        before, _, rest = rest.partition(mark)
        result += before + part
    return result + rest


def _boxes(drawing: Drawing) -> dict[str, dict[str, object]]:
    records: dict[str, dict[str, object]] = {}
    for box in drawing.boxes:
        group = box.kind == "group"
        exact = "" if box.exact else "; not exact"
        saved = (
            f"alone saves {100 * box.flops:.1f} % of the FLOPs" if group else f"in {100 * box.flops:.1f} % of the FLOPs"
        )
        detail = f"{text.name(box.detail, _LONGEST)}; " if box.detail else ""
        records[box.id] = {
            "name": f"{box.id} {text.name(box.title, _LONGEST)}"
            if group
            else f"stays: {text.name(box.title, _LONGEST)}",
            "facts": f"{detail}{box.width} wide, {saved}{exact}",
            "list": "members" if group else "layers",
            "members": [text.name(member, _LONGEST) for member in box.members],
        }
    return records
