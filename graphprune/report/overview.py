# SPDX-License-Identifier: Apache-2.0
"""The overview of a model: its coupled channel groups, what they cost, and what is frozen and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Group as Stack
from rich.text import Text

from graphprune.analysis.network import savings
from graphprune.model.write import file_bytes
from graphprune.report import text
from graphprune.report.summary import analysis_notes
from graphprune.report.tables import cell, grid, table
from graphprune.solvers import criteria

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from graphprune.analysis.analysis import Analysis, Frozen
    from graphprune.analysis.groups import Group
    from graphprune.model.load import Model

__all__ = ["model_json", "model_tables"]

_CRITERION = "bn-scale"
_LARGEST = 8
_LARGEST_OF_KIND = 3
_LONGEST_REASON = 240
_NEARLY_ALL = 0.9995
_MUCH = 1 << 31
"""Bytes of a model of which the digest is not shown: a plan has it."""
_GROUP_COLUMNS = (
    "width: channels that stay or go one by one; members: axes of weights that lose them; FLOPs: what the group can "
    "save by itself (a layer between two groups counts for both, so these add up to more than 100 %)\n"
)
_FROZEN_COLUMNS = (
    "touched: FLOPs of layers that must keep one side or both for this reason; held: of those that must keep both, and "
    "so all of their FLOPs\n"
)


def model_json(analysis: Analysis) -> dict[str, Any]:
    """Return the overview as one JSON object."""
    cost, sizes = analysis.cost, analysis.cost.sizes
    shares = savings(analysis)
    return {
        "command": "inspect",
        "model": {
            "name": analysis.model.name,
            "sha256": analysis.model.sha256,
            "inputs": {name: list(shape) for name, shape in analysis.input_shapes.items()},
        },
        "flops": cost.flops(sizes),
        "params": cost.params(sizes),
        "bytes": cost.size(sizes),
        "prunable": analysis.prunable,
        "reachable": _reachable(analysis),
        "scores_from": _sources(analysis),
        "groups": [_group(group, saved) for group, saved in zip(analysis.groups, shares, strict=True)],
        "frozen": [asdict(entry) for entry in analysis.frozen],
        "rest": [asdict(held) for held in analysis.rest],
    }


def model_tables(analysis: Analysis, *, members: bool = False) -> RenderableType:
    """Return the overview as tables.

    Parameters
    ----------
    analysis : Analysis
        Of the model.
    members : bool
        List the members of every group, too.
    """
    cost, sizes = analysis.cost, analysis.cost.sizes
    inputs = ", ".join(f"{text.name(name)} {'x'.join(map(str, dims))}" for name, dims in analysis.input_shapes.items())
    flops = text.count(cost.flops(sizes), "FLOPs")
    least = f"{100 * _reachable(analysis):.3g} % of the FLOPs"
    sources = ", ".join(f"{source} ({text.plural(count, 'group')})" for source, count in _sources(analysis).items())
    head = [
        ("model", f"{text.name(analysis.model.name)} ({_identity(analysis.model)})"),
        ("inputs", inputs or "none"),
        *_assumption(analysis),
        ("cost", f"{flops}, {text.count(cost.params(sizes))} params, {text.file_size(cost.size(sizes))} of tensors"),
        ("reachable", f"{least} stay where every group is as narrow as it can be"),
        (_CRITERION, f"reads {sources}" if sources else "has nothing to read"),
    ]
    parts: list[RenderableType] = [grid(head), _groups(analysis), Text(_GROUP_COLUMNS)]
    if members:
        parts.append(_members(analysis.groups))
    if analysis.frozen:
        why = [(f"{text.name(entry.kind, 30)}:", text.name(entry.text, _LONGEST_REASON)) for entry in analysis.frozen]
        parts += [_frozen(analysis.frozen, cost.flops(sizes)), grid([*why, ("", "")]), Text(_FROZEN_COLUMNS)]
    parts.append(grid(_ending(analysis)))
    return Stack(*parts)


def _assumption(analysis: Analysis) -> list[tuple[str, str]]:
    """Return a line about sizes that nobody gave."""
    if not analysis.assumed:
        return []
    name = next(iter(analysis.assumed))
    shape = "x".join(map(str, analysis.input_shapes[name]))
    return [("sizes", f"open ones were chosen; costs are for them; others: --input-shape {text.name(name)}={shape}")]


def _ending(analysis: Analysis) -> list[tuple[str, str]]:
    """Return the last lines: how much can be pruned, and which layers are the rest."""
    total = analysis.cost.flops(analysis.cost.sizes)
    rows = [("prunable", f"{_share(analysis.prunable)} of the FLOPs are in layers that can lose channels on some side")]
    rows += [("note", note) for note in analysis_notes(analysis)]
    largest = analysis.rest[:_LARGEST]
    for index, held in enumerate(largest):
        what = f"{text.percent(held.flops, total)}  {text.name(held.op, 20)} {text.name(held.node)}"
        rows.append(("the rest" if index == 0 else "", what))
    if len(analysis.rest) > len(largest):
        flops = sum(held.flops for held in analysis.rest[_LARGEST:])
        rows.append(
            ("", f"{text.percent(flops, total)}  {text.plural(len(analysis.rest) - len(largest), 'more layer')}")
        )
    if analysis.rest:
        rows.append(("", "`graphprune inspect MODEL --why NAME` says why a layer stays"))
    return rows


def _identity(model: Model) -> str:
    """Return the digest of a model, or its size where reading all of it would take longer than the analysis."""
    size = file_bytes(model)
    return f"{text.file_size(size)} with its data" if size > _MUCH else f"sha256 {model.sha256[:12]}…"


def _share(share: float) -> str:
    """Return a percentage that is 100 only where nothing is left out."""
    return f"{100 * share:.1f} %" if share == 1 or share < _NEARLY_ALL else "almost 100 %"


def _group(group: Group, saved: float) -> dict[str, Any]:
    members = [
        {
            "initializer": member.initializer,
            "axis": member.axis,
            "role": member.role,
            "op": member.op,
            "node": member.node,
            "masked": member.masked,
            "positions": len(member.positions),
        }
        for member in group.members
    ]
    return {
        "id": group.id,
        "name": group.name,
        "size": group.size,
        "channels": group.channels,
        "exact": group.exact,
        "flops_share": saved,
        "members": members,
    }


def _reachable(analysis: Analysis) -> float:
    flops, sizes = analysis.cost.flops, analysis.cost.sizes
    total = flops(sizes)
    return flops(np.ones_like(sizes)) / total if total else 1.0


def _sources(analysis: Analysis) -> dict[str, int]:
    """Return what the default criterion reads, and for how many groups."""
    scores = criteria.get(_CRITERION)(criteria.Material(analysis.groups, analysis.read))
    return dict(sorted(Counter(scores.source).items()))


def _groups(analysis: Analysis) -> Table:
    result = table(
        "group", "name", "width", "members", "FLOPs", "exact", right=("width", "members", "FLOPs"), names=["name"]
    )
    for group, saved in zip(analysis.groups, savings(analysis), strict=True):
        width = str(group.size) if group.channels == 1 else f"{group.size} x {group.channels}"
        result.add_row(
            group.id,
            cell(group.name),
            width,
            str(len(group.members)),
            f"{100 * saved:.1f} %",
            "yes" if group.exact else "no",
        )
    return result


def _members(groups: Sequence[Group]) -> Table:
    result = table("group", "member", "axis", "role", "read by", "op", right=["axis"], names=["member", "read by"])
    for group in groups:
        for index, member in enumerate(group.members):
            result.add_row(
                group.id if index == 0 else "",
                cell(member.initializer),
                str(member.axis),
                member.role,
                cell(member.node),
                cell(member.op, 20),
            )
    return result


def _frozen(entries: Sequence[Frozen], total: int) -> Table:
    columns = ("frozen by", "layers", "touched", "held", "largest layers", "of FLOPs")
    result = table(*columns, right=("layers", "touched", "held", "of FLOPs"), names=["largest layers"])
    for entry in entries:
        shares = text.percent(entry.flops, total), text.percent(entry.whole, total)
        first = (cell(entry.kind, 30), str(entry.layers), *shares)
        for index, held in enumerate(entry.largest[:_LARGEST_OF_KIND]):
            layer = cell(held.node, 40), text.percent(held.flops, total)
            result.add_row(*(first if index == 0 else ("", "", "", "")), *layer)
    return result
