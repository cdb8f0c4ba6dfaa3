# SPDX-License-Identifier: Apache-2.0
"""Fitting: input sizes with which a model is consistent, and the shapes of all its values for them.

Open dimensions have usual sizes, but a text recogniser wants a height of 48 and a voice detector 512 samples. The
sizes of a ladder are tried, the cheapest way first: inference on the graph without weights, and where that cannot
tell one run of the original. Where none of them fits, sizes are computed from what the graph demands
(:mod:`graphprune.model.sizes.size_search`). A model that is consistent with none, and does not run, is refused with
the first objection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

from graphprune.errors import InputError, ModelFileError, UsageError, quote
from graphprune.model.children.sandbox import shortened
from graphprune.model.evaluation.proportion import check_proportion
from graphprune.model.graph import Graph, subgraphs
from graphprune.model.load import Model
from graphprune.model.misfits.operands import misfit
from graphprune.model.sizes.inputs import OpenSizes, assumed, candidate_shapes, free_dimensions, input_shapes
from graphprune.model.sizes.lengths import fitting_values
from graphprune.model.sizes.observation import NoneRunsError, Told, observe, unknown_values
from graphprune.model.sizes.size_search import SizeSearch
from graphprune.model.sizes.unreached import unreached_nodes
from graphprune.model.values.bodies import Flat
from graphprune.model.values.shapes import Shapes, infer, objection_without

__all__ = ["Fit", "Fitting", "fit_inputs"]


_NEWER_TYPES: Final = ("tensor(bfloat16)", "tensor(float16)", "tensor(float8", "tensor(float4")


@dataclass(frozen=True)
class Fit:
    """Sizes of open dimensions, the shapes of inputs that follow, and those of all values."""

    sizes: OpenSizes
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
        for sizes, inputs in candidate_shapes(self._graph, self._given):
            fit = self._fit(sizes, inputs)
            if fit.shapes.refusal:
                refused.append(fit)
                continue
            if not consistent:
                seen = self._seen([self._whole_samples(fit)])
                if seen is not None:
                    return seen
            consistent.append(fit)
        if consistent:
            return self._seen(consistent) or consistent[0]
        computed = self._checked(SizeSearch(self._graph, self._model.tensors.array, self._given).find())
        if computed is not None:
            return self._seen([computed]) or computed
        return self._unless_it_runs(refused)

    def _fit(self, sizes: OpenSizes, inputs: dict[str, tuple[int, ...]]) -> Fit:
        """Return what inference says of sizes, with its objection if it has one."""
        shapes = infer(self._graph, self._model.tensors.array, inputs)
        check_proportion(self._graph, shapes)
        if shapes.refusal and (unreached := self._unreached(shapes)):
            shapes.refusal = objection_without(self._graph, self._model.tensors.array, inputs, unreached)
        # Float types that an operator set does not know yet are no misfit: runtimes, and pruning, take them.
        newer = any(f"has unsupported type: {name}" in shapes.refusal for name in _NEWER_TYPES)
        shapes.refusal = ("" if newer else shapes.refusal) or self._misfit(shapes) or ""
        return Fit(sizes, inputs, shapes)

    def _misfit(self, shapes: Shapes) -> str | None:
        return misfit(self._graph, shapes, self._unreached(shapes))

    def _unreached(self, shapes: Shapes) -> frozenset[int]:
        return unreached_nodes(self._flat, self._graph, shapes)

    def _whole_samples(self, fit: Fit) -> Fit:
        """Return sizes with which no node mixes parts of a sample with other samples, where a consistent one does."""
        search = SizeSearch(self._graph, self._model.tensors.array, self._given)
        return self._checked(search.find_rows(fit.shapes)) or fit

    def _checked(self, sizes: OpenSizes | None) -> Fit | None:
        """Return the fit of sizes that were computed; None without any, or where inference objects to them."""
        if sizes is None:
            return None
        fit = self._fit(sizes, input_shapes(self._graph, self._given, sizes=sizes))
        return None if fit.shapes.refusal else fit

    def other(self, sizes: OpenSizes) -> Shapes | None:
        """Return the shapes for a second size of every open dimension that can have one; None where none is open."""
        usual = input_shapes(self._graph, self._given, sizes=sizes)
        free = free_dimensions(self._graph, self._given)
        # Not every network takes images that are no squares, and of some a size is fixed by what reads it.
        ways: list[tuple[bool, list[str] | None]] = [(True, None), (False, None), *((False, [key]) for key in free)]
        fits: list[Fit] = []
        for apart, growing in [*ways, (False, [])]:
            inputs = input_shapes(self._graph, self._given, other=True, apart=apart, sizes=sizes, growing=growing)
            if inputs == usual or any(inputs == fit.inputs for fit in fits):
                continue
            fits.append(Fit(sizes, inputs, infer(self._graph, self._model.tensors.array, inputs)))
            if not (fits[-1].shapes.refusal or self._misfit(fits[-1].shapes)):
                return (self._seen(fits[-1:]) or fits[-1]).shapes
        if not fits:
            return None
        best = fits[min(1, len(fits) - 1)]
        return (self._seen([best]) or best).shapes

    def fixes(self, sizes: OpenSizes) -> bool:
        """Whether there are open dimensions, and none of them can grow."""
        free = free_dimensions(self._graph, self._given)
        for key in free:
            inputs = input_shapes(self._graph, self._given, other=True, sizes=sizes, growing=[key])
            if not self._fit(sizes, inputs).shapes.refusal:
                return False
        alike = input_shapes(self._graph, self._given, other=True, sizes=sizes)
        return bool(free) and bool(self._fit(sizes, alike).shapes.refusal)

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
        return Fit(fit.sizes, fit.inputs, infer(self._graph, self._model.tensors.array, fit.inputs, known))

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
            opened = assumed(self._graph, self._given)
            names = ", ".join(quote(name) for name in opened)
            return UsageError(
                f"the model takes none of the sizes that were tried for the open dimensions of {names}: "
                f"{shapes.refusal}{said}",
                hint=f"give the sizes that it is used with in place of N: {self._example(opened)}",
            )
        if self._given:
            return UsageError(f"the model does not take the given input shapes: {shapes.refusal}{said}")
        return ModelFileError(f"the model is not valid: {shapes.refusal}{said}", hint="export it again")

    def _example(self, opened: Mapping[str, frozenset[int]]) -> str:
        """Return how sizes are given, with a letter for every one that is open."""
        usual = input_shapes(self._graph, self._given)
        shown = {
            name: "x".join("N" if axis in axes else str(size) for axis, size in enumerate(usual[name]))
            for name, axes in opened.items()
        }
        return " ".join(f"--input-shape {name}={sizes}" for name, sizes in shown.items())


def fit_inputs(model: Model, flat: Flat, graph: Graph, given: Mapping[str, Sequence[int]]) -> tuple[Fitting, Fit]:
    """Return what finds input shapes for a model, and the first that fit; parameters and errors as of `Fitting`."""
    fitting = Fitting(model, flat, graph, given)
    return fitting, fitting.fit()
