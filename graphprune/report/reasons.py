# SPDX-License-Identifier: Apache-2.0
"""Explanations as tables: what goes together and through what, or the way to what keeps it."""

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

__all__ = ["explanation_json", "explanation_tables"]

_ENDS = 4
_NAME = 44
_SHORT = 36
_ROWS = 40


def explanation_json(explanation: Explanation) -> dict[str, Any]:
    """Return an explanation as one JSON object."""
    return {"command": "inspect", **asdict(explanation)}


def explanation_tables(explanation: Explanation, *, everything: bool = False) -> RenderableType:
    """Return an explanation as tables.

    Parameters
    ----------
    explanation : Explanation
        What `graphprune.analysis.explain.explain` returned.
    everything : bool
        Show long chains and large groups in full.
    """
    kinds = {"node": "node", "tensor": "constant", "value": "activation"}
    parts: list[RenderableType] = [grid([(kinds[explanation.kind], text.name(explanation.name))])]
    if not explanation.axes:
        parts.append(Text("nothing in it belongs to a channel"))
    parts.append(
        grid(
            [
                row
                for axis in _telling(explanation.axes)
                for row in _axis(axis, explanation.groups, everything=everything)
            ]
        )
    )
    parts += [part for group in explanation.groups for part in _group(group, everything=everything)]
    return Stack(*parts)


def _telling(axes: tuple[AxisExplanation, ...]) -> list[AxisExplanation]:
    """Leave the axes of kernels out, of which nobody expects channels, unless there is nothing else."""
    telling = [axis for axis in axes if {cause.kind for cause in axis.causes} != {_KERNEL}]
    return telling or list(axes)


_KERNEL = "convolution kernel"


def _axis(axis: AxisExplanation, groups: Sequence[GroupExplanation], *, everything: bool) -> Iterator[tuple[str, str]]:
    """Yield rows about one axis: what may go, and what stays and why."""
    label = f"{text.name(axis.tensor, _NAME)} axis {axis.axis}"
    sizes = {group.id: group.size for group in groups}
    for id_, slices in axis.groups.items():
        atoms = f" in {text.plural(sizes[id_], 'atom')}" if sizes[id_] != slices else ""
        yield label, f"prunable: group {id_} ({_slices(slices, axis)}{atoms})"
        label = ""
    for cause in axis.causes:
        yield label, "\n".join(_cause(cause, axis, everything=everything))
        label = ""


def _slices(slices: int, axis: AxisExplanation) -> str:
    return text.plural(slices, "slice") if slices == axis.size else f"{slices} of {axis.size} slices"


def _cause(cause: Cause, axis: AxisExplanation, *, everything: bool) -> Iterator[str]:
    """Yield what keeps slices of an axis, the way there, and what else would keep them."""
    where = f" at {_hop(Hop(cause.node, cause.op))}" if cause.node else ""
    yield f"frozen ({_slices(cause.slices, axis)}), {text.name(cause.kind, 30)}{where}: {text.name(cause.text, 100)}"
    if len(cause.chain) > _SHORTEST:
        yield _chain(cause.chain, everything=everything)
    if cause.others:
        counts = (f"{count} x {text.name(kind, 30)}" for kind, count in cause.others.items())
        yield f"and for other reasons: {', '.join(counts)}"


_SHORTEST = 2
"""A chain of an axis and a node says nothing that its first line does not."""


def _chain(hops: tuple[Hop, ...], *, everything: bool, width: int = _NAME) -> str:
    """Return the way in one line; of a long one, both ends."""
    named = [_hop(hop, width) for hop in hops if hop.name]
    if len(named) > 2 * _ENDS + 1 and not everything:
        named = [*named[:_ENDS], f"({len(named) - 2 * _ENDS} more)", *named[-_ENDS:]]
    return " -> ".join(named)


def _hop(hop: Hop, width: int = _NAME) -> str:
    name = text.name(hop.name, width)
    if not hop.op:
        return f"{name} axis {hop.axis}"
    return name if hop.op.lower() in hop.name.lower() else f"{text.name(hop.op, 20)} {name}"


def _group(group: GroupExplanation, *, everything: bool) -> Iterator[RenderableType]:
    """Yield the members of one group in the order in which they are reached."""
    rows = group.companions if everything else group.companions[:_ROWS]
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
    for row in rows:
        same = len(row.through) == 1 and row.through[0] == last
        result.add_row(
            cell(row.tensor, _SHORT),
            str(row.axis),
            row.role.replace("_", " "),
            cell("" if same else row.after.name if row.after else "the start", _SHORT),
            Text("the same node" if same else _chain(row.through, everything=everything, width=_SHORT)),
        )
        last = row.through[-1] if row.through else None
    yield result
    if len(group.companions) > len(rows):
        yield Text(f"and {text.plural(len(group.companions) - len(rows), 'more member')} (-v shows all)\n")
