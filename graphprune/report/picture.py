# SPDX-License-Identifier: Apache-2.0
"""Writing a drawing as a file: the ending of its name says in which format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from graphprune.checks import contained
from graphprune.errors import UsageError, quote
from graphprune.model.write import write_bytes_atomically
from graphprune.report.arcs import svg
from graphprune.report.dot import dot, laid_out
from graphprune.report.drawing import draw
from graphprune.report.page import page

if TYPE_CHECKING:
    from collections.abc import Callable

    from graphprune.analysis.analysis import Analysis
    from graphprune.report.drawing import Drawing

__all__ = ["check_format", "save_drawing"]


def _picture(drawing: Drawing) -> str:
    return laid_out(drawing) or svg(drawing)


_FORMATS: dict[str, Callable[[Drawing], str]] = {".svg": _picture, ".html": page, ".dot": dot}


def check_format(path: Path) -> None:
    """Refuse a name that does not say how to draw.

    Raises
    ------
    UsageError
        If the name ends in none of .svg, .html, .dot.
    """
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(
            f"a drawing cannot be written as {quote(path.name)}", hint=f"let its name end in {', '.join(_FORMATS)}"
        )


@contained
def save_drawing(analysis: Analysis, path: str | Path, *, force: bool = False) -> Path:
    """Draw the coupled groups of a model, what is frozen, and the layers between them.

    Parameters
    ----------
    analysis : Analysis
        Of the model.
    path : str or Path
        ``.svg``: a picture, laid out by graphviz where its program ``dot`` is installed and the network
        is small enough for that; ``.html``: a page with members and neighbours at hand; ``.dot``: text
        for graphviz.
    force : bool
        Replace an existing file.

    Returns
    -------
    Path

    Raises
    ------
    UsageError
        If the name of the file has another ending.
    OutputError
        If the file exists and `force` is false, or cannot be written.
    """
    path = Path(path)
    check_format(path)
    write_bytes_atomically(_FORMATS[path.suffix.lower()](draw(analysis)).encode(), path, force=force)
    return path
