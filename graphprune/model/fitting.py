# SPDX-License-Identifier: Apache-2.0
"""Fitting: input sizes with which a model is consistent, and the shapes of all its values for them.

Open dimensions have usual sizes, but a text recogniser wants a height of 48 and a voice detector 512 samples. The
sizes of a ladder are tried, the cheapest way first: inference on the graph without weights, and where that cannot
tell one run of the original. A model that is consistent with none, and does not run, is refused with the first
objection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

from graphprune.errors import InputError, ModelFileError, UnsafeModelError, UsageError, quote
from graphprune.model.bodies import Flat
from graphprune.model.graph import Graph, subgraphs
from graphprune.model.inputs import assumed, candidate_shapes, input_shapes
from graphprune.model.lengths import fitting_values
from graphprune.model.load import Model
from graphprune.model.observation import NoneRunsError, Told, observe, unknown_values
from graphprune.model.operands import misfit
from graphprune.model.sandbox import shortened
from graphprune.model.shapes import Shapes, infer

__all__ = ["Fit", "Fitting", "fit_inputs"]


_MOST_ELEMENTS: Final = 1 << 36
_LARGE: Final = 1 << 25
_INFLATED: Final = 1 << 14
"""A value that is large, and that many times larger than all that is fed and stored, is what only a hostile or a
damaged file makes: a constant of it says how large."""
_NEWER_TYPES: Final = ("tensor(bfloat16)", "tensor(float16)", "tensor(float8", "tensor(float4")


@dataclass(frozen=True)
class Fit:
    """Input shapes, which of the usual sizes they have, and the shapes of all values."""

    step: int
    inputs: dict[str, tuple[int, ...]]
    shapes: Shapes


class Fitting:
    """Finds input shapes for one model.

    Parameters
    ----------
    model : Model
    flat : Flat
        Its graph with bodies laid out.
    graph : Graph
        A view of that.
    given : mapping of str to sequence of int
        Shapes that were asked for.
    """

    def __init__(self, model: Model, flat: Flat, graph: Graph, given: Mapping[str, Sequence[int]]) -> None:
        self._model = model
        self._flat = flat
        self._graph = graph
        self._given = given
        self._open = bool(assumed(graph, given))
        self._has_bodies = any(True for node in model.proto.graph.node for _ in subgraphs(node))

    def fit(self) -> Fit:
        """Return the first input shapes with which the model is consistent.

        Raises
        ------
        ModelFileError
            If operands do not fit whatever the open sizes are.
        UsageError
            If the given shapes do not fit, or none of those that were tried.
        """
        refused: list[Fit] = []
        consistent: list[Fit] = []
        for step, inputs in candidate_shapes(self._graph, self._given):
            shapes = infer(self._graph, self._model.tensors.array, inputs)
            _check_sizes(self._graph, shapes)
            # Float types that an operator set does not know yet are no misfit: runtimes, and pruning, take them.
            newer = any(f"has unsupported type: {name}" in shapes.refusal for name in _NEWER_TYPES)
            objection = "" if newer else shapes.refusal
            shapes.refusal = objection or misfit(self._graph, shapes) or ""
            fit = Fit(step, inputs, shapes)
            if shapes.refusal:
                refused.append(fit)
                continue
            if not consistent:
                seen = self._seen([fit])
                if seen is not None:
                    return seen
            consistent.append(fit)
        if consistent:
            return self._seen(consistent) or consistent[0]
        return self._unless_it_runs(refused)

    def other(self, step: int) -> Shapes | None:
        """Return the shapes for a second size of every open dimension; None where none is open."""
        usual = input_shapes(self._graph, self._given, step=step)
        fits: list[Fit] = []
        for apart in (True, False):  # not every network takes images that are no squares
            inputs = input_shapes(self._graph, self._given, other=True, apart=apart, step=step)
            if inputs == usual:
                return None
            if not fits or inputs != fits[0].inputs:
                fits.append(Fit(step, inputs, infer(self._graph, self._model.tensors.array, inputs)))
            if not apart or not (fits[0].shapes.refusal or misfit(self._graph, fits[0].shapes)):
                break
        seen = self._seen(fits[-1:])
        return fits[-1].shapes if seen is None else seen.shapes

    def _seen(self, fits: list[Fit]) -> Fit | None:
        """Return the first that inference, or a run, says is taken; None where every run fails."""
        first = fits[0]
        unknown = unknown_values(self._graph, first.shapes, self._flat.home)
        if not unknown and not (self._open and self._has_bodies):
            return first
        try:
            observed = self._observe(fits, unknown)
        except NoneRunsError:
            return None
        return observed or first

    def _observe(self, fits: list[Fit], names: list[str]) -> Fit | None:
        runnable = self._model.replaced(self._flat.restore(self._flat.proto))
        lengths = [fitting_values(self._graph, fit.shapes) for fit in fits]
        dims: dict[str, tuple[int, ...]] = {}
        for fit in fits:
            dims.update({name: max(dims.get(name, ()), shape, key=prod) for name, shape in fit.shapes.dims.items()})
        observed = observe(runnable, self._graph, [fit.inputs for fit in fits], names, Told(lengths, dims))
        if observed is None:
            return None
        fit = fits[observed.choice]
        if not names:
            return fit
        known = Shapes(dims=dict(observed.dims), dtypes=dict(observed.dtypes))
        return Fit(fit.step, fit.inputs, infer(self._graph, self._model.tensors.array, fit.inputs, known))

    def _unless_it_runs(self, refused: list[Fit]) -> Fit:
        """Let a run decide on a model that inference refuses; what runs is right."""
        shapes = refused[0].shapes
        try:
            seen = self._observe(refused, unknown_values(self._graph, shapes, self._flat.home))
        except NoneRunsError as error:
            raise self._refusal(shapes, f"; onnxruntime: {shortened(str(error))}") from error
        if seen is None:
            raise self._refusal(shapes, "")
        return seen

    def _refusal(self, shapes: Shapes, said: str) -> InputError:
        if self._open:
            names = ", ".join(quote(name) for name in assumed(self._graph, self._given))
            return UsageError(
                f"the model takes none of the sizes that were tried for the open dimensions of {names}: "
                f"{shapes.refusal}{said}",
                hint=f"give the sizes that it is used with: --input-shape {next(iter(self._graph.inputs))}=1x3x48x320",
            )
        if self._given:
            return UsageError(f"the model does not take the given input shapes: {shapes.refusal}{said}")
        return ModelFileError(f"the model is not valid: {shapes.refusal}{said}", hint="export it again")


def fit_inputs(model: Model, flat: Flat, graph: Graph, given: Mapping[str, Sequence[int]]) -> tuple[Fitting, Fit]:
    """Return what finds input shapes for a model, and the first that fit; parameters and errors as of `Fitting`."""
    fitting = Fitting(model, flat, graph, given)
    return fitting, fitting.fit()


def _check_sizes(graph: Graph, shapes: Shapes) -> None:
    """Refuse what no machine can run, and what grows out of all proportion, before anything is made of it."""
    given = sum(prod(shapes.dims.get(name, ())) for name in (*graph.inputs, *graph.initializers))
    for name, dims in shapes.dims.items():
        if prod(dims) > _MOST_ELEMENTS:
            raise UnsafeModelError(
                f"value {quote(name)} of shape {list(dims)} has more elements than the limit {_MOST_ELEMENTS}",
                hint="if its size follows from an input, give a smaller one: --input-shape NAME=SIZES",
            )
        if prod(dims) > max(_LARGE, _INFLATED * given):
            raise UnsafeModelError(
                f"value {quote(name)} of shape {list(dims)} has more than {_INFLATED} times as many elements as all "
                f"inputs and weights together have ({given})",
                hint="look at the sizes that the file gives to the nodes in front of it",
            )
