# SPDX-License-Identifier: Apache-2.0
"""The charts of a report, as Vega-Lite: widths and FLOPs by layer, saliencies by group, the front of a sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphprune.report import text

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from graphprune.report.html.contents import Contents
    from graphprune.report.trials import Trial

__all__ = ["comparison_chart", "front_chart", "layer_charts", "saliency_chart"]

BEFORE, AFTER, OTHER = "#b9c6d6", "#2f6fb0", "#e0822f"
_ROW = 16
"""Pixels per layer."""

_WIDTH = 340


def layer_charts(contents: Contents) -> dict[str, Any]:
    """Return the charts of widths and FLOPs: a row per layer in the order of the graph, on linear axes."""
    import altair as alt

    rows = alt.Data(values=contents.layers)
    charts = [
        _bars(alt, rows, "width", "kept", "output channels", names=True, count=len(contents.layers)),
        _bars(alt, rows, "flops", "flops_kept", "FLOPs", names=False, count=len(contents.layers)),
    ]
    return _spec(alt.hconcat(*charts, spacing=12))


def _bars(alt: Any, rows: Any, before: str, after: str, title: str, *, names: bool, count: int) -> Any:
    """Return bars of what was, with those of what stays on top of them."""
    axis = alt.Axis(labelLimit=260, title=None, ticks=False) if names else None
    tooltip = [
        alt.Tooltip("node:N", title="layer"),
        alt.Tooltip("op:N", title="operator"),
        alt.Tooltip("width:Q", title="channels"),
        alt.Tooltip("kept:Q", title="channels kept"),
        alt.Tooltip("flops:Q", title="FLOPs", format=",d"),
        alt.Tooltip("flops_kept:Q", title="FLOPs kept", format=",d"),
        alt.Tooltip("left:N", title="FLOPs left"),
        alt.Tooltip("why:N", title="a side stays, since it"),
    ]
    base = alt.Chart(rows).encode(y=alt.Y("node:N", sort=None, axis=axis), tooltip=tooltip)
    # Its own format would bring all labels of an axis to one prefix: "0.1k".
    style = alt.Axis(title=title, labelExpr="format(datum.value, '~s')", tickMinStep=1, grid=True)
    both = [
        base.mark_bar(color=color).encode(x=alt.X(f"{name}:Q", axis=style, stack=None))
        for name, color in ((before, BEFORE), (after, AFTER))
    ]
    return alt.layer(*both).properties(width=_WIDTH, height=_ROW * max(count, 1), title=f"{title} by layer")


def saliency_chart(contents: Contents) -> dict[str, Any]:
    """Return the saliencies of one group, which is chosen from a list: what stays, and what went.

    A line shows the lowest that stays where that decided.
    """
    import altair as alt

    groups = [row["group"] for row in contents.saliencies]
    first = next((row["group"] for row in contents.saliencies if not all(row["stays"])), groups[0])
    choice = alt.binding_select(options=groups, name="group ")
    chosen = alt.selection_point(fields=["group"], bind=choice, value=first)
    stays = alt.Color(
        "stays:N",
        scale=alt.Scale(domain=["stays", "went"], range=[AFTER, OTHER]),
        legend=alt.Legend(title=None, orient="top"),
    )
    base = (
        alt.Chart(alt.Data(values=contents.saliencies))
        .transform_filter(chosen)
        .transform_flatten(["atom", "saliency", "stays"])
        .transform_window(rank="row_number()", frame=[None, 0])
        .transform_calculate(stays="datum.stays ? 'stays' : 'went'")
    )
    points = base.mark_point(size=56, filled=True, opacity=1).encode(
        x=alt.X("rank:Q", title="channels, the most salient first", axis=alt.Axis(format="d", tickMinStep=1)),
        y=alt.Y("saliency:Q", title="saliency, of the group's mean"),
        color=stays,
        shape=alt.Shape("stays:N", scale=alt.Scale(domain=["stays", "went"], range=["circle", "triangle-down"])),
        tooltip=[
            alt.Tooltip("atom:Q", title="channel"),
            alt.Tooltip("saliency:Q"),
            alt.Tooltip("stays:N"),
            alt.Tooltip("by:N", title="chosen by"),
        ],
    )
    layers = [points.add_params(chosen)]
    if any(not row["by"] for row in contents.saliencies):
        decided = base.transform_filter("datum.stays == 'stays' && !datum.by")
        lowest = decided.transform_aggregate(lowest="min(saliency)").encode(y="lowest:Q")
        words = lowest.mark_text(text="the lowest that stays", align="right", dx=-4, dy=-7, fontSize=11)
        layers += [lowest.mark_rule(strokeDash=[6, 3], strokeWidth=1.5), words.encode(x=alt.value(2 * _WIDTH))]
    return _spec(alt.layer(*layers).properties(width=2 * _WIDTH, height=260))


def comparison_chart(first: Contents, second: Contents) -> dict[str, Any]:
    """Return the widths that two plans of the same model leave, side by side."""
    import altair as alt

    others = {row["node"]: row for row in second.layers}
    rows = [
        {"node": row["node"], "plan": label, "kept": kept, "width": row["width"]}
        for row in first.layers
        if row["node"] in others
        for label, kept in (("first", row["kept"]), ("second", others[row["node"]]["kept"]))
    ]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar()
        .encode(
            x=alt.X("kept:Q", title="output channels kept", axis=alt.Axis(format="d", tickMinStep=1)),
            y=alt.Y("node:N", sort=None, title=None, axis=alt.Axis(labelLimit=260, ticks=False)),
            yOffset="plan:N",
            color=alt.Color(
                "plan:N", scale=alt.Scale(range=[AFTER, OTHER]), legend=alt.Legend(orient="top", title=None)
            ),
            tooltip=[
                "node:N",
                "plan:N",
                alt.Tooltip("kept:Q", title="channels kept"),
                alt.Tooltip("width:Q", title="of"),
            ],
        )
        .properties(width=2 * _WIDTH, height=2 * _ROW * max(len(rows) // 2, 1), title="widths of both plans by layer")
    )
    return _spec(chart)


def front_chart(trials: Sequence[Trial], best: Collection[tuple[str, str, str]]) -> dict[str, Any]:
    """Return what is kept at which cost; the Pareto front is filled, and the original is there, too."""
    import altair as alt

    known = [trial for trial in trials if not trial.note and trial.cost[0]]
    rows = [
        {
            "series": text.name(f"{trial.solver}, {trial.criterion}", 60),
            "budget": text.name(trial.budget, 40),
            "cost": 100 * trial.cost[1] / trial.cost[0],
            "quality": 100 * trial.quality,
            "front": (trial.solver, trial.criterion, trial.budget) in best,
        }
        for trial in known
    ]
    for trial in known[:1]:
        whole = trial.accuracy[0] if trial.accuracy else 1.0
        rows.append(
            {"series": "original", "budget": "nothing removed", "cost": 100.0, "quality": 100 * whole, "front": True}
        )
    measured = {
        "accuracy" if trial.accuracy else "agreement" if trial.agreement is not None else "" for trial in trials
    }
    quality = next(iter(measured - {""}), "kept saliency")
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("cost:Q", title=f"{trials[0].metric} left, %", scale=alt.Scale(zero=False)),
        y=alt.Y("quality:Q", title=f"{quality}, %", scale=alt.Scale(zero=False)),
        color=alt.Color("series:N", legend=alt.Legend(title=None, orient="bottom", columns=2, labelLimit=300)),
        tooltip=[
            "series:N",
            "budget:N",
            alt.Tooltip("cost:Q", format=".1f"),
            alt.Tooltip("quality:Q", format=".2f"),
        ],
    )
    marks = alt.layer(
        base.transform_filter("datum.front").mark_point(size=70, filled=True),
        base.transform_filter("!datum.front").mark_point(size=70),
    )
    return _spec(marks.properties(width=2 * _WIDTH, height=320))


def _spec(chart: Any) -> dict[str, Any]:
    """Return a chart as Vega-Lite that takes the colours of the page around it."""
    made: dict[str, Any] = chart.configure(background="transparent").configure_view(stroke=None).to_dict()
    return made
