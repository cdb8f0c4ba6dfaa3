# SPDX-License-Identifier: Apache-2.0
"""The chart of a plan: for every layer its channels and FLOPs, before and after, as a picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from graphprune.errors import UsageError, quote
from graphprune.model.write import write_bytes_atomically
from graphprune.report import text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from graphprune.plan.schema import LayerPlan, Plan

__all__ = ["check_chart_format", "save_widths", "widths_chart"]

FORMATS = (".svg", ".png")
_BEFORE, _AFTER = "#c9d3df", "#2f6fb0"
_ROW = 0.24
"""Inches per layer."""

_TALLEST = 160
"""Inches; beyond that rows get narrower, and names are left out."""


def widths_chart(plan: Plan, kind: str = "svg") -> bytes:
    """Return a picture of a plan: equal plans give equal bytes.

    A row per counted layer, in the order of the graph. Pale bars are what the original has, dark ones what stays:
    output channels on the left, FLOPs on the right, both on linear axes.

    Parameters
    ----------
    plan : Plan
    kind : {"svg", "png"}
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    layers = plan.layers
    height = min(_ROW * max(len(layers), 1) + 1.1, _TALLEST)
    with rc_context({"svg.hashsalt": "graphprune", "svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(9, height), layout="constrained")
        channels, flops = figure.subplots(1, 2, sharey=True)
        _bars(channels, [(layer.width, layer.pruned_width) for layer in layers], "output channels")
        _bars(flops, [(layer.flops_before, layer.flops_after) for layer in layers], "FLOPs")
        flops.xaxis.set_major_formatter(EngFormatter())
        _names(channels, layers, named=height < _TALLEST)
        before, after = plan.budget.before, plan.budget.after
        share = f"{plan.budget.metric} {100 * after / before:.1f} %" if before else plan.budget.metric
        figure.suptitle(f"{text.name(plan.model.name)}: {share} of the original", parse_math=False)
        figure.legend(*channels.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
        stream = io.BytesIO()
        nothing = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(stream, format=kind, metadata=nothing)
    return stream.getvalue()


def _bars(axes: Axes, pairs: Sequence[tuple[int, int]], label: str) -> None:
    rows = range(len(pairs))
    axes.barh(rows, [before for before, _ in pairs], color=_BEFORE, height=0.8, label="original")
    axes.barh(rows, [after for _, after in pairs], color=_AFTER, height=0.8, label="pruned")
    axes.set_xlabel(label)
    axes.xaxis.grid(visible=True, alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _names(axes: Axes, layers: Sequence[LayerPlan], *, named: bool) -> None:
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.set_yticks(range(len(layers)) if named else [])
    if named:
        axes.set_yticklabels([text.name(layer.node, 36) for layer in layers], parse_math=False)


def check_chart_format(path: Path) -> None:
    """Refuse a name that does not say how to draw.

    Raises
    ------
    UsageError
        If the name ends neither in .svg nor in .png.
    """
    if path.suffix.lower() not in FORMATS:
        raise UsageError(
            f"the chart of a plan cannot be written as {quote(path.name)}",
            hint=f"let its name end in {' or '.join(FORMATS)}",
        )


def save_widths(plan: Plan, path: str | Path, *, force: bool = False) -> Path:
    """Draw a plan's widths and FLOPs before and after, as .svg or .png.

    Raises
    ------
    UsageError
        If the name of the file has another ending.
    OutputError
        If the file exists and `force` is false, or cannot be written.
    """
    path = Path(path)
    check_chart_format(path)
    write_bytes_atomically(widths_chart(plan, path.suffix.lower()[1:]), path, force=force)
    return path
