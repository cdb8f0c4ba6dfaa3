# SPDX-License-Identifier: Apache-2.0
"""Input shapes of a model that is not analysed: those that an analysis would choose, and those that its graph fixes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.errors import InputError
from graphprune.model.graph import Graph
from graphprune.model.normalize import inline_functions
from graphprune.model.sizes.fitting import fit_inputs
from graphprune.model.sizes.inputs import input_shapes
from graphprune.model.values.bodies import flatten
from graphprune.model.values.sequences import spell_out

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from graphprune.model.load import Model

__all__ = ["fixed_shapes", "usual_shapes"]


def usual_shapes(model: Model, given: Mapping[str, Sequence[int]] | None = None) -> dict[str, tuple[int, ...]]:
    """Return shapes with which a model is consistent; where none are found, those of usual sizes.

    Raises
    ------
    UsageError
        If the given shapes contradict what is declared, or an input declares no shape and none is given.
    """
    flat = flatten(spell_out(inline_functions(model.proto)))
    graph = Graph(flat.proto)
    try:
        return fit_inputs(model, flat, graph, dict(given or {}))[1].inputs
    except InputError:
        return input_shapes(graph, given)


def fixed_shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """Return the shapes of inputs whose open dimensions the graph fixes, those of samples apart; empty for others."""
    flat = flatten(spell_out(inline_functions(model.proto)))
    try:
        fitting, fit = fit_inputs(model, flat, Graph(flat.proto), {})
    except InputError:
        return {}
    return fit.inputs if fitting.fixes(fit.sizes) else {}
