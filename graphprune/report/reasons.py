# SPDX-License-Identifier: Apache-2.0
"""Explanations: in two lines what can go and what stays; then, where it is asked for, through what and why."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Group as Stack
from rich.text import Text

from graphprune.analysis.explain import Hop
from graphprune.report import text
from graphprune.report.tables import cell, grid, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from graphprune.analysis.explain import AxisExplanation, Cause, Explanation, GroupExplanation

__all__ = ["explanation_json", "explanation_lines", "explanation_tables"]

_NAME = 44
_SHORT = 36
_MOST_NAMED = 3
_KINDS = {"node": "node", "tensor": "constant", "value": "activation", "group": "group"}


def explanation_json(explanation: Explanation) -> dict[str, Any]:
    """Return an explanation as one JSON object."""
    return {"command": "inspect", **asdict(explanation)}


def explanation_lines(explanation: Explanation) -> str:
    """Return in two lines what can go, and what stays and why."""
    axes = _telling(explanation.axes)
    sizes = {group.id: group for group in explanation.groups}
    going = [
        f"axis {axis.axis} of {text.name(axis.tensor, _NAME)} ({_slices(slices, axis)}, group {id_})"
        for axis in axes
        for id_, slices in axis.groups.items()
    ]
    if explanation.kind == "group":
        group = sizes[explanation.name]
        going = [f"{_atoms(group)} made by {text.name(group.name, _NAME)}, each in {_places(group)} at once"]
    staying = [
        f"axis {axis.axis} of {text.name(axis.tensor, _NAME)}: {_reason(cause)}"
        for axis in axes
        for cause in axis.causes
    ]
    nothing = "" if explanation.axes or explanation.groups else ", because nothing in it belongs to a channel"
    return "\n".join(
        (
            f"can go  {_some(going) or 'nothing' + nothing}",
            f"stays   {_some(staying) or ('at least one of them' if going else 'all of it')}; -v shows the way",
        )
    )


def _some(entries: list[str]) -> str:
    """Return the first entries as one text, and how many more there are."""
    unique = list(dict.fromkeys(entries))
    more = len(unique) - _MOST_NAMED
    return "; ".join(unique[:_MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")


def _atoms(group: GroupExplanation) -> str:
    channels = f" of {group.channels} channels" if group.channels > 1 else ""
    return f"{text.plural(group.size, 'atom')}{channels}" if channels else text.plural(group.size, "channel")


def _places(group: GroupExplanation) -> str:
    return f"{text.plural(len(group.companions), 'place')}"


def _reason(cause: Cause) -> str:
    where = f" at {_hop(Hop(cause.node, cause.op))}" if cause.node else ""
    return f"{text.name(cause.text, 100)}{where}"


def explanation_tables(explanation: Explanation) -> RenderableType:
    """Return an explanation in full, as tables: every way, and every member of the groups.

    Parameters
    ----------
    explanation : Explanation
        What `graphprune.analysis.explain.explain` returned.
    """
    parts: list[RenderableType] = [grid([(_KINDS[explanation.kind], text.name(explanation.name))])]
    if not explanation.axes and not explanation.groups:
        parts.append(Text("nothing in it belongs to a channel"))
    parts.append(grid([row for axis in _telling(explanation.axes) for row in _axis(axis, explanation.groups)]))
    parts += [part for group in explanation.groups for part in _group(group)]
    return Stack(*parts)


def _telling(axes: tuple[AxisExplanation, ...]) -> list[AxisExplanation]:
    """Leave the axes of kernels out, of which nobody expects channels, unless there is nothing else."""
    telling = [axis for axis in axes if {cause.kind for cause in axis.causes} != {_KERNEL}]
    return telling or list(axes)


_KERNEL = "convolution kernel"


def _axis(axis: AxisExplanation, groups: Sequence[GroupExplanation]) -> Iterator[tuple[str, str]]:
    """Yield rows about one axis: what may go, and what stays and why."""
    label = f"{text.name(axis.tensor, _NAME)} axis {axis.axis}"
    sizes = {group.id: group.size for group in groups}
    for id_, slices in axis.groups.items():
        atoms = f" in {text.plural(sizes[id_], 'atom')}" if sizes[id_] != slices else ""
        yield label, f"prunable: group {id_} ({_slices(slices, axis)}{atoms})"
        label = ""
    for cause in axis.causes:
        yield label, "\n".join(_cause(cause, axis))
        label = ""


def _slices(slices: int, axis: AxisExplanation) -> str:
    return text.plural(slices, "slice") if slices == axis.size else f"{slices} of {axis.size} slices"


def _cause(cause: Cause, axis: AxisExplanation) -> Iterator[str]:
    """Yield what keeps slices of an axis, the way there, and what else would keep them."""
    where = f" at {_hop(Hop(cause.node, cause.op))}" if cause.node else ""
    yield f"frozen ({_slices(cause.slices, axis)}), {text.name(cause.kind, 30)}{where}: {text.name(cause.text, 100)}"
    if len(cause.chain) > _SHORTEST:
        yield _chain(cause.chain)
    if cause.others:
        counts = (f"{count} x {text.name(kind, 30)}" for kind, count in cause.others.items())
        yield f"and for other reasons: {', '.join(counts)}"


_SHORTEST = 2
"""A chain of an axis and a node says nothing that its first line does not."""


def _chain(hops: tuple[Hop, ...], width: int = _NAME) -> str:
    """Return the way in one line."""
    return " -> ".join(_hop(hop, width) for hop in hops if hop.name)


def _hop(hop: Hop, width: int = _NAME) -> str:
    name = text.name(hop.name, width)
    if not hop.op:
        return f"{name} axis {hop.axis}"
    return name if hop.op.lower() in hop.name.lower() else f"{text.name(hop.op, 20)} {name}"


def _group(group: GroupExplanation) -> Iterator[RenderableType]:
    """Yield the members of one group in the order in which they are reached."""
    channels = f" of {group.channels} channels" if group.channels > 1 else ""
    exact = "" if group.exact else ", not exact"
    yield grid(
        [
            (
                group.id,
                f"{text.name(group.name)}: {text.plural(group.size, 'atom')}{channels}{exact}; what goes together:",
            )
        ]
    )
    names = ("member", "hangs on", "through")
    result = table("member", "axis", "role", "hangs on", "through", right=("axis",), names=names)
    result.columns[-1].overflow = "fold"
    last: Hop | None = None
    for row in group.companions:
        same = len(row.through) == 1 and row.through[0] == last
        result.add_row(
            cell(row.tensor, _SHORT),
            str(row.axis),
            row.role.replace("_", " "),
            cell("" if same else row.after.name if row.after else "the start", _SHORT),
            Text("the same node" if same else _chain(row.through, width=_SHORT)),
        )
        last = row.through[-1] if row.through else None
    yield result
