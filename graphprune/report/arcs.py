# SPDX-License-Identifier: Apache-2.0
"""A drawing as SVG: one row per box, in the order of the network, and arcs for the layers between them.

Rows never overlap and arcs cross no text, however many groups there are; a chain, the rungs of a
residual stream and the fans of dense connections each have a pattern that the eye finds at once.
"""

from __future__ import annotations

from html import escape
from math import sqrt
from typing import TYPE_CHECKING

from graphprune.report import text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from graphprune.report.drawing import Arrow, Box, Drawing

__all__ = ["svg"]

_ROW = 24
_TOP = 96
_ARCS = 250  # width of the space for arcs
_STEP = 16  # how far the shortest arc reaches out
_NAME, _WIDTH, _SHARE, _END = 62, 420, 635, 800  # left edges of the columns, from the end of the arcs
_BAR = 100
_LETTERS = 50  # that fit into the column of names
_LONGEST = 1000
_LEGEND = (
    "Arcs are layers, thick where they cost much: blue ones read the upper row, orange ones the lower one, "
    "grey ones touch what stays."
)

_STYLE = """
svg{background:#fff;font:13px ui-sans-serif,system-ui,"Segoe UI","DejaVu Sans",sans-serif;fill:#1d2733}
.big{font-size:17px;font-weight:600}.head,.note{fill:#697586;font-size:12px}.num{font-variant-numeric:tabular-nums}
.id{font-weight:600;fill:#0b4f8a}.frozen text{fill:#8a919b}.frozen .id{fill:#8a919b;font-weight:400}
.back{fill:#fff}.odd .back{fill:#f5f7fa}.dot{fill:#0b6fc2}.frozen .dot{fill:#b3b9c2}.rest{fill:#e3e8ef}
.was{fill:#c3d9f0}
.width{fill:#7fb2e5}.share{fill:#0b6fc2}.frozen .share,.frozen .width{fill:#c3c8d0}.rough .id{fill:#a34b00}
.arc{fill:none;stroke:#2f7fc7}.arc.up{stroke:#e0822f}.arc.cold{stroke:#aab1bb}
"""


def svg(drawing: Drawing, *, standalone: bool = True) -> str:
    """Return the drawing as an SVG document.

    Parameters
    ----------
    drawing : Drawing
        What to draw. Its names are untrusted: they are escaped, and shortened for people.
    standalone : bool
        Add the XML namespace, which a file needs and an HTML page does not.

    Complexity: O(boxes + arrows).
    """
    rows = {box.id: at for at, box in enumerate(drawing.boxes)}
    height = _TOP + _ROW * len(rows) + 16
    width = _ARCS + _END
    space = ' xmlns="http://www.w3.org/2000/svg"' if standalone else ""
    lines = [
        f'<svg{space} viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="{"img" if standalone else "group"}" aria-label="groups and the layers between them">',
        f"<title>{_safe(drawing.name, 80)}</title><style>{_STYLE}</style>",
        *_head(drawing),
        *(line for at, box in enumerate(drawing.boxes) for line in _row(box, at, _widest(drawing))),
        '<g id="arcs">',
        *(_arc(arrow, rows, drawing) for arrow in sorted(drawing.arrows, key=lambda arrow: arrow.flops)),
        "</g>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _widest(drawing: Drawing) -> int:
    return max((box.width for box in drawing.boxes), default=1)


def _safe(name: str, width: int = 46) -> str:
    return escape(text.name(name, width))


def _head(drawing: Drawing) -> Iterator[str]:
    groups = sum(box.kind == "group" for box in drawing.boxes)
    summary = (
        f"{text.plural(groups, 'coupled group')}, {text.count(drawing.flops, 'FLOPs')}, "
        f"{100 * drawing.prunable:.1f} % of them in layers that can lose channels"
    )
    yield '<rect width="100%" height="100%" fill="#fff"/>'
    yield f'<text class="big" x="16" y="24">{_safe(drawing.name, 60)}</text>'
    yield f'<text class="head" x="16" y="44">{summary}</text>'
    yield f'<text class="head" x="16" y="60">{_LEGEND}</text>'
    columns = (("group", 16), ("first made by, or what keeps it", _NAME), ("width", _WIDTH), ("FLOPs", _SHARE))
    for name, left in columns:
        yield f'<text class="head" x="{_ARCS + left}" y="{_TOP - 10}">{name}</text>'


def _row(box: Box, at: int, widest: int) -> Iterator[str]:
    y = _TOP + at * _ROW
    odd = " odd" if at % 2 else ""
    rough = "" if box.exact else " rough"
    base = y + 16
    yield f'<g class="row {box.kind}{odd}{rough}" id="row-{box.id}" data-box="{box.id}">'
    yield f"<title>{escape(_hover(box))}</title>"
    yield f'<rect class="back" x="{_ARCS}" y="{y}" width="{_END - 8}" height="{_ROW}"/>'
    yield f'<circle class="dot" cx="{_ARCS + 4}" cy="{y + _ROW // 2}" r="4"/>'
    yield f'<text class="id" x="{_ARCS + 16}" y="{base}">{box.id if box.kind == "group" else "stays"}</text>'
    mark = "" if box.exact else " (not exact)"
    yield f'<text x="{_ARCS + _NAME}" y="{base}">{_title(box)}{mark}</text>'
    yield from _width(box, y, sqrt(box.width / widest))
    yield from _bar("share", _SHARE, y, box.flops, f"{100 * box.flops:.1f} %")
    yield "</g>"


def _title(box: Box) -> str:
    """Return the name of a group, or what keeps the slices: of that the beginning says most."""
    if box.kind == "group":
        return _safe(box.title)
    full = text.name(f"{box.title}: {box.detail}", _LONGEST)
    return escape(full if len(full) <= _LETTERS else f"{full[: _LETTERS - 1]}…")


def _width(box: Box, y: int, filled: float) -> Iterator[str]:
    """Yield the width of a box; where a plan narrows it, what stays as a part of the bar."""
    if box.kept is None:
        yield from _bar("width", _WIDTH, y, filled, str(box.width))
        return
    yield from _bar("was", _WIDTH, y, filled, f"{box.kept} of {box.width}")
    length = filled * _BAR * box.kept / max(1, box.width)
    yield f'<rect class="width" x="{_ARCS + _WIDTH}" y="{y + 7}" width="{length:.1f}" height="10" rx="2"/>'


def _bar(kind: str, left: int, y: int, filled: float, label: str) -> Iterator[str]:
    x, top = _ARCS + left, y + 7
    length = min(1.0, max(0.0, filled)) * _BAR
    yield f'<rect class="rest" x="{x}" y="{top}" width="{_BAR}" height="10" rx="2"/>'
    yield f'<rect class="{kind}" x="{x}" y="{top}" width="{length:.1f}" height="10" rx="2"/>'
    yield f'<text class="num" x="{x + _BAR + 8}" y="{y + 16}">{label}</text>'


def _hover(box: Box) -> str:
    """Return what a viewer shows when the pointer rests on a row."""
    lines = [f"{text.name(box.title, 80)}", *([text.name(box.detail, 160)] if box.detail else [])]
    shown = box.members[:_SHOWN]
    lines += [text.name(member, 100) for member in shown]
    if len(box.members) > len(shown):
        lines.append(f"and {len(box.members) - len(shown)} more")
    return "\n".join(lines)


_SHOWN = 20


def _arc(arrow: Arrow, rows: dict[str, int], drawing: Drawing) -> str:
    """Return a half ellipse from the row that is read to the row that is made."""
    start, end = (_TOP + rows[name] * _ROW + _ROW // 2 for name in (arrow.tail, arrow.head))
    span = abs(rows[arrow.tail] - rows[arrow.head])
    longest = max(2, len(drawing.boxes))
    reach = _STEP + (_ARCS - 48 - _STEP) * (span / longest) ** 0.6
    kind = ""
    if end < start:
        kind, reach = " up", reach + 9  # beside the arc that goes the other way
    if "f" in (arrow.tail[0], arrow.head[0]):
        kind = " cold"
    thick = 0.8 + 9 * sqrt(min(1.0, arrow.flops))
    faint = max(0.16, min(0.75, 12 / sqrt(1 + len(drawing.arrows)) / 2))
    x = _ARCS - 2
    names = escape("\n".join(text.name(name, 80) for name in arrow.layers[:_SHOWN]))
    sweep = 0 if end > start else 1
    path = f"M{x} {start}A{reach:.1f} {abs(end - start) / 2:.1f} 0 0 {sweep} {x} {end}"
    return (
        f'<path class="arc{kind}" data-from="{arrow.tail}" data-to="{arrow.head}" d="{path}" '
        f'stroke-width="{thick:.2f}" opacity="{faint:.2f}"><title>{names}</title></path>'
    )
