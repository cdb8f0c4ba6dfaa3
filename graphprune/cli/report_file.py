# SPDX-License-Identifier: Apache-2.0
"""The report as a file, for `report` and for `solve --report`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphprune.errors import GraphPruneError, UsageError, quote
from graphprune.report import text
from graphprune.report.chosen_by import channel_choice

if TYPE_CHECKING:
    from pathlib import Path

    from graphprune.analysis.analysis import Analysis
    from graphprune.cli.quantized_report import QuantizedFile
    from graphprune.data.source import Source
    from graphprune.plan.schema import Plan
    from graphprune.report.html.report_page import ReportSubject
    from graphprune.report.html.tiles import Tile
    from graphprune.solvers.saliency import Scores

__all__ = ["check_page_name", "known_scores", "quantized_tiles", "samples_picture", "write_report"]

_PAGES = (".html", ".htm")


def check_page_name(target: Path) -> None:
    """Refuse a page whose name is not that of one: with --force it could take the place of a model.

    Raises
    ------
    UsageError
    """
    if target.suffix.lower() not in _PAGES:
        raise UsageError(f"the report cannot be written as {quote(str(target))}", hint="let its name end in .html")


def write_report(target: Path, title: str, subject: ReportSubject, *, force: bool) -> None:
    """Draw a report and write it, atomically.

    Raises
    ------
    OutputError
        If it cannot be written, or is there and ``force`` is false.
    """
    from graphprune.model.write import write_bytes_atomically
    from graphprune.report.html.report_page import report_page

    page = report_page(text.name(title, 80), subject)
    write_bytes_atomically(page.encode(), target, force=force)


def known_scores(analysis: Analysis, plan: Plan) -> Scores | None:
    """Return what the criterion says that chose channels, or could have; None of one that looks at samples."""
    from graphprune.planning.make_plan import SolveOptions
    from graphprune.planning.score_groups import score_groups

    solver = plan.solver
    kinds = (("aggregate", str), ("settings", dict))
    how: dict[str, Any] = {name: value for name, kind in kinds if isinstance(value := solver.options.get(name), kind)}
    try:
        return score_groups(analysis, SolveOptions(criterion=channel_choice(plan).criterion, seed=solver.seed, **how))
    except GraphPruneError:  # samples, a plugin that is not installed, weights that are no numbers
        return None


def quantized_tiles(written: QuantizedFile | None) -> tuple[Tile, ...]:
    """Return what became of a model in lower precision, if it was written."""
    from graphprune.report.html.tiles import Tile

    if written is None or written.result is None:
        return ()
    result = written.result
    before, after = result.size
    kind = "made samples" if written.made else "samples"
    size = f"{text.file_size(before)} → {text.file_size(after)}"
    if result.floating:
        size = f"{size}, {len(result.floating)} of {result.parts} parts in float"
    tiles = (Tile(f"{result.precision} file", text.percent(after, before), f"{size}; of the pruned one"),)
    against = f"against the float one, on {result.held_out} {kind} held out"
    if result.agreement is not None:
        return (*tiles, Tile(f"{result.precision} agreement", f"{100 * result.agreement:.2f} %", against))
    return (*tiles, Tile(f"{result.precision} error", f"{100 * result.error:.2g} %", f"{against}, of their variance"))


def samples_picture(analysis: Analysis, samples: Source | None) -> bytes:
    """Return a picture of samples that were made; empty where there are none, or they are no images."""
    from graphprune.data.signature import input_specs
    from graphprune.data.synthesis.preview import image_grid

    if samples is None:
        return b""
    try:
        return image_grid(samples, input_specs(analysis.model))
    except GraphPruneError:  # they are no images
        return b""
