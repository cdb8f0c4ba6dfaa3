# SPDX-License-Identifier: Apache-2.0
"""What a shell completes: names of methods, and those of groups and nodes of the model on the line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from graphprune.errors import GraphPruneError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["criteria", "names_in_model", "roundings", "runtimes", "solver", "solvers", "training_methods"]

_SEPARATOR = ","


def solvers(incomplete: str) -> list[str]:
    """Return solvers; behind a comma, one more."""
    from graphprune.solvers import widths

    return _behind_commas(incomplete, widths.names())


def solver(incomplete: str) -> list[str]:
    """Return solvers, and the word that leaves the choice open."""
    return [name for name in ("auto", *solvers(incomplete)) if name.startswith(incomplete)]


def roundings(incomplete: str) -> list[str]:
    """Return the rules by which widths are aligned."""
    from graphprune.solvers.moves.levels import AUTO, RULES

    return [name for name in (AUTO, *RULES) if name.startswith(incomplete)]


def runtimes(incomplete: str) -> list[str]:
    """Return runtimes; behind a comma, one more."""
    from graphprune.export.runtime import RUNTIMES

    return _behind_commas(incomplete, RUNTIMES.names())


def training_methods(incomplete: str) -> list[str]:
    """Return the methods that prune while a model trains."""
    from graphprune.solvers import training

    return [name for name in training.names() if name.startswith(incomplete)]


def criteria(incomplete: str) -> list[str]:
    """Return criteria; behind a comma, one more."""
    from graphprune.solvers import criteria as known

    return _behind_commas(incomplete, known.names())


def names_in_model(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the ids of groups and the names of nodes of the model that the line names; none if there is no such."""
    from graphprune import api

    # What stands in front of an option without its value is not sorted yet.
    words: list[Any] = [ctx.params.get("model"), ctx.params.get("file"), *ctx.args]
    path = next((word for word in words if word and Path(word).is_file()), None)
    if path is None:
        return []
    try:
        analysis = api.analyze(api.load(path))
    except (GraphPruneError, OSError):  # a shell that completes shows no errors
        return []
    names = (*(group.id for group in analysis.groups), *(node.label for node in analysis.graph.nodes))
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _behind_commas(incomplete: str, known: Iterable[str]) -> list[str]:
    done, comma, last = incomplete.rpartition(_SEPARATOR)
    return [f"{done}{comma}{name}" for name in known if name.startswith(last)]
