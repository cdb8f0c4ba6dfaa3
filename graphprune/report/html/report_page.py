# SPDX-License-Identifier: Apache-2.0
"""A report as one self-contained page: contents and charts put into a template that loads nothing and asks nobody."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from graphprune.errors import UsageError, quote
from graphprune.extras import require
from graphprune.report import text
from graphprune.report.arcs import svg
from graphprune.report.html.contents import Contents, plan_contents
from graphprune.report.html.vega_charts import comparison_chart, front_chart, layer_charts, saliency_chart
from graphprune.report.page import box_records, explore_script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan
    from graphprune.report.drawing import Drawing
    from graphprune.report.html.tiles import KnownFigures
    from graphprune.report.trials import Trial
    from graphprune.solvers.saliency import Scores

__all__ = ["ReportSubject", "report_page"]

_TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class ReportSubject:
    """What a report is about.

    Attributes
    ----------
    plans : sequence of Plan
        One, or two of the same model that are to be compared; none for a sweep.
    analysis : Analysis, optional
        Of the model of the first plan.
    pruned : Model, optional
        What the first plan made of it.
    scores : Scores, optional
        Of the analysis, by the criterion of the first plan.
    figures : KnownFigures, optional
        Costs of the whole model, and what was measured, of the first plan.
    trials : sequence of Trial
        Of a sweep.
    best : collection of tuple of str
        Solver, criterion and budget of the trials on the Pareto front.
    samples : bytes
        A picture (PNG) of the samples that were made for it; empty where there is none.
    """

    plans: Sequence[Plan] = ()
    analysis: Analysis | None = None
    pruned: Model | None = None
    scores: Scores | None = None
    figures: KnownFigures | None = None
    trials: Sequence[Trial] = ()
    best: frozenset[tuple[str, str, str]] = frozenset()
    samples: bytes = b""


def report_page(title: str, subject: ReportSubject) -> str:
    """Return a report as HTML.

    Parameters
    ----------
    title : str
        Untrusted text.
    subject : ReportSubject

    Raises
    ------
    UsageError
        If the packages of the extra ``report`` are not installed, there is nothing to show, or two plans are of
        different models.
    """
    require("report", "reports")
    _check(subject)
    import vl_convert
    from jinja2 import Environment, PackageLoader, StrictUndefined

    first = (subject.analysis, subject.pruned, subject.scores, subject.figures)
    contents = [plan_contents(plan, *(first if index == 0 else ())) for index, plan in enumerate(subject.plans)]
    charts, drawing = _charts(contents, subject), _drawn(subject)
    environment = Environment(
        loader=PackageLoader("graphprune.report.html", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(_TEMPLATE).render(
        title=text.name(title, 80),
        plans=contents,
        drawing=svg(drawing, standalone=False) if drawing else "",
        specs=_embedded(charts),
        charts=charts,
        groups=_embedded({"groups": contents[0].groups if contents else []}),
        boxes=_embedded(box_records(drawing) if drawing else {}),
        vega=vl_convert.javascript_bundle(),  # type: ignore[call-arg]  # its stub demands what has a default
        trials=subject.trials,
        samples=base64.b64encode(subject.samples).decode(),
        explore=explore_script(),
        script=files("graphprune.report.html").joinpath("report.js").read_text(encoding="utf-8"),
        style=files("graphprune.report.html").joinpath("report.css").read_text(encoding="utf-8"),
    )


def _check(subject: ReportSubject) -> None:
    """Refuse what a page cannot show."""
    if not subject.plans and not subject.trials:
        raise UsageError("there is nothing to report on", hint="give a plan, or the table of a sweep")
    structures = [[(layer.node, layer.op, layer.width) for layer in plan.layers] for plan in subject.plans]
    if any(other != structures[0] for other in structures[1:]):
        names = " and ".join(quote(plan.model.name) for plan in subject.plans)
        raise UsageError(
            f"the plans are of different models, {names}, so their layers cannot stand side by side",
            hint="give two plans of the same model, or make a report of each",
        )


def _charts(contents: Sequence[Contents], subject: ReportSubject) -> dict[str, dict[str, Any]]:
    charts: dict[str, dict[str, Any]] = {}
    if contents:
        charts["layers"] = layer_charts(contents[0])
        if contents[0].saliencies:
            charts["saliencies"] = saliency_chart(contents[0])
        for other in contents[1:2]:
            charts["both"] = comparison_chart(contents[0], other)
    if subject.trials:
        charts["front"] = front_chart(subject.trials, subject.best)
    return charts


def _drawn(subject: ReportSubject) -> Drawing | None:
    """Return the group graph of the first plan, with the widths that it leaves."""
    from graphprune.report.drawing import draw, with_kept

    return with_kept(draw(subject.analysis), subject.plans[0]) if subject.analysis and subject.plans else None


def _embedded(data: object) -> str:
    """Return data for a script element: no text in it can end the element."""
    made = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return made.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
