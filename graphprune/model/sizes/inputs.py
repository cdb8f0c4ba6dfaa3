# SPDX-License-Identifier: Apache-2.0
"""Concrete shapes for the inputs of a graph, for which everything is analysed and counted."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from onnx import TypeProto

from graphprune.errors import UsageError, quote
from graphprune.model.graph import Graph
from graphprune.model.sizes.batch_axes import Declared, fixed_size, is_name, sample_axes
from graphprune.model.sizes.demands import demanded_sizes
from graphprune.model.sizes.lengths import Place, caches, sums

__all__ = ["OpenSizes", "assumed", "candidate_shapes", "free_dimensions", "input_shapes"]

_IMAGES = (224, 32, 48, 64, 96, 128, 160, 192, 256, 320, 416, 512, 640)
_VOLUMES = (112, 16, 32, 64, 128)
_LINES = (16, 32, 64, 80, 100, 128, 160, 256, 400, 480, 512, 640, 768, 800, 1024, 1536, 2048, 4096, 8000, 16000)
_LADDERS = {4: _IMAGES, 5: _VOLUMES}
"""Sizes for an open dimension other than the first, by rank (`_LINES` for others); the usual one comes first."""

_FACTORS = (2, 3)
"""By how much open dimensions grow for a second size."""

Kind = Literal["samples", "free", "fixed"]


@dataclass(frozen=True)
class OpenSizes:
    """What open dimensions become.

    Attributes
    ----------
    step : int
        Which of the usual sizes is taken; after the last of them they come again, without a guess at what a mask
        covers.
    sides : mapping of str to int
        Other sizes than these, by the dimension as in :func:`free_dimensions`.
    """

    step: int = 0
    sides: Mapping[str, int] = field(default_factory=dict)


def candidate_shapes(
    graph: Graph, given: Mapping[str, Sequence[int]] | None = None
) -> Iterator[tuple[OpenSizes, dict[str, tuple[int, ...]]]]:
    """Yield sizes of open dimensions and concrete shapes, the usual ones first; a single choice where nothing is open.

    Parameters, and errors, are those of :func:`input_shapes`.
    """
    before: list[dict[str, tuple[int, ...]]] = []
    for step in range(2 * len(_LINES)):
        sizes = OpenSizes(step)
        shapes = input_shapes(graph, given, sizes=sizes)
        if shapes not in before:
            before.append(shapes)
            yield sizes, shapes


def free_dimensions(graph: Graph, given: Mapping[str, Sequence[int]]) -> dict[str, tuple[Place, ...]]:
    """Return the open dimensions of which nothing says the size, and the axes of inputs that have it.

    A dimension is called by its name in the file; one without a name by its input and axis.
    """
    follows = sums(graph)
    found: dict[str, list[Place]] = {}
    for name, axes in assumed(graph, given).items():
        dims = graph.inputs[name].tensor_type.shape.dim
        for axis in sorted(axes):
            if (name, axis) not in follows:
                found.setdefault(_key(name, axis, dims[axis].dim_param), []).append((name, axis))
    return {key: tuple(places) for key, places in found.items()}


def _key(name: str, axis: int, param: str) -> str:
    return param if is_name(param) else f"{name}.{axis}"


def input_shapes(
    graph: Graph,
    given: Mapping[str, Sequence[int]] | None = None,
    *,
    other: bool = False,
    apart: bool = False,
    sizes: OpenSizes | None = None,
    growing: Collection[str] | None = None,
) -> dict[str, tuple[int, ...]]:
    """Choose a concrete shape for every graph input.

    Parameters
    ----------
    given : mapping of str to sequence of int, optional
        Shapes from the user; they win over what the file says.
    other : bool
        Use a second size for every open dimension, to find out what depends on it.
    apart : bool
        Let second sizes grow by different factors, to find out on which dimension it depends.
    sizes : OpenSizes, optional
        What open dimensions become; the first of the usual sizes by default.
    growing : collection of str, optional
        The dimensions that get a second size, as in :func:`free_dimensions`, besides those of samples; all by default.

    Returns
    -------
    dict of str to tuple of int
        Open dimensions become what the weights demand that read them, 1 on axis 0 and where samples are counted, and
        otherwise 224 (images), 112 (volumes) or 16; those with the same name become the same, and what is as long
        as others together follows from these (:func:`graphprune.model.sizes.lengths.sums`).

    Raises
    ------
    UsageError
        If `given` names an unknown input, has another rank, contradicts a fixed dimension or itself, or
        if an input declares no shape and none is given.
    """
    given = dict(given or {})
    unknown = [name for name in given if name not in graph.inputs]
    if unknown:
        raise UsageError(
            f"input shape given for {quote(unknown[0])}, which is no input of the model",
            hint=f"inputs: {', '.join(quote(name) for name in graph.inputs)}",
        )
    tensors = {name: kind for name, kind in graph.inputs.items() if kind.WhichOneof("value") == "tensor_type"}
    axes = dict(zip(tensors, sample_axes([Declared.of(kind) for kind in tensors.values()]), strict=True))
    sizes = sizes or OpenSizes()
    choice = _Choice(given, axes, _demanded(graph, axes), sizes, frozenset(caches(graph)))
    choice.settle_names(tensors)
    grown = _Growth(other, apart, growing)
    shapes = {name: choice.shape(name, kind, grown) for name, kind in tensors.items()}
    for (name, axis), terms in sums(graph, guess=sizes.step < len(_LINES)).items():
        if name not in given:
            size = sum(term if isinstance(term, int) else shapes[term[0]][term[1]] for term in terms)
            shapes[name] = (*shapes[name][:axis], size, *shapes[name][axis + 1 :])
    return shapes


def assumed(graph: Graph, given: Mapping[str, Sequence[int]]) -> dict[str, frozenset[int]]:
    """Return the open axes of inputs of which no shape was given, besides that of the samples and those of weights."""
    declared = {name: Declared.of(kind) for name, kind in graph.inputs.items()}
    axes = dict(zip(declared, sample_axes(list(declared.values())), strict=True))
    demanded = _demanded(graph, axes)
    open_axes = {
        name: frozenset(one.open) - {axes[name]} - set(demanded[name])
        for name, one in declared.items()
        if one is not None
    }
    return {name: opened for name, opened in open_axes.items() if opened and name not in given}


def _demanded(graph: Graph, samples: Mapping[str, int | None]) -> dict[str, dict[int, int]]:
    """Return what weights demand of axes that do not count samples: along these, constants are broadcast."""
    return {
        name: {axis: size for axis, size in sizes.items() if axis != samples.get(name)}
        for name, sizes in demanded_sizes(graph).items()
    }


@dataclass(frozen=True)
class _Growth:
    """Whether second sizes are taken, whether these grow by different factors, and which dimensions do."""

    other: bool
    apart: bool
    only: Collection[str] | None


class _Choice:
    """One choice of sizes.

    Parameters
    ----------
    samples : mapping of str to (int or None)
        By input, the axis that counts samples.
    demanded : mapping of str to mapping of int to int
        By input and axis, the size that weights demand.
    sizes : OpenSizes
        What open dimensions become.
    cached : frozenset of str
        Inputs that hold keys and values of earlier steps: their axes are no image's.
    """

    def __init__(
        self,
        given: Mapping[str, Sequence[int]],
        samples: Mapping[str, int | None],
        demanded: Mapping[str, Mapping[int, int]],
        sizes: OpenSizes,
        cached: frozenset[str] = frozenset(),
    ) -> None:
        self._given = given
        self._samples = samples
        self._demanded = demanded
        self._sizes = sizes
        self._cached = cached
        self._names: dict[str, tuple[int, Kind]] = {}
        self._factors: dict[str, int] = {}

    def settle_names(self, tensors: Mapping[str, TypeProto]) -> None:
        """Choose the size of every named dimension: given sizes first, then demanded ones, then the usual ones."""
        places = [
            (name, axis, dim.dim_param, len(kind.tensor_type.shape.dim))
            for name, kind in tensors.items()
            for axis, dim in enumerate(kind.tensor_type.shape.dim)
            if is_name(dim.dim_param)
        ]
        counting = {param for name, axis, param, _ in places if axis in (0, self._samples[name])}
        for name, axis, param, rank in places:
            if name in self._given and len(self._given[name]) == rank:
                size = int(self._given[name][axis])
                if self._names.get(param, (size, ""))[0] != size:
                    raise UsageError(f"the dimension {quote(param)} is given as {self._names[param][0]} and as {size}")
                kind: Kind = "fixed" if axis in self._demanded[name] else "samples" if param in counting else "free"
                self._names[param] = size, kind
        for name, axis, param, _ in places:
            if axis in self._demanded[name]:
                self._names.setdefault(param, (self._demanded[name][axis], "fixed"))
        for name, _, param, rank in places:
            usual: tuple[int, Kind] = (1, "samples") if param in counting else (self._free(param, name, rank), "free")
            self._names.setdefault(param, usual)

    def _free(self, key: str, name: str, rank: int) -> int:
        ladder = _LINES if name in self._cached else _LADDERS.get(rank, _LINES)
        step = self._sizes.step % len(_LINES)
        return self._sizes.sides.get(key, ladder[min(step, len(ladder) - 1)])

    def shape(self, name: str, kind: TypeProto, growth: _Growth) -> tuple[int, ...]:
        """Fill the open dimensions of one input."""
        given = self._given.get(name)
        if not kind.tensor_type.HasField("shape"):
            if given is None:
                raise UsageError(
                    f"input {quote(name)} declares no shape, so sizes cannot be known",
                    hint=f"give one: --input-shape {name}=1x3x224x224",
                )
            return tuple(given)
        dims = kind.tensor_type.shape.dim
        declared = [fixed_size(dim) for dim in dims]
        if given is not None:
            _check_given(name, declared, given)
        chosen = []
        for axis, fixed in enumerate(declared):
            size, how = self._open(name, axis, dims[axis].dim_param, len(declared))
            if given is not None:
                size = int(given[axis])
            key = _key(name, axis, dims[axis].dim_param)
            if growth.other and how == "samples":
                size += 1
            elif growth.other and how == "free" and (growth.only is None or key in growth.only):
                size *= self._factor(key) if growth.apart else _FACTORS[0]
            chosen.append(size if fixed is None else fixed)
        return tuple(chosen)

    def _factor(self, key: str) -> int:
        """Return the factor by which a dimension grows: two neighbours have different ones."""
        return self._factors.setdefault(key, _FACTORS[len(self._factors) % len(_FACTORS)])

    def _open(self, name: str, axis: int, param: str, rank: int) -> tuple[int, Kind]:
        """Return the size of an open dimension, and how it was chosen."""
        if param in self._names:
            return self._names[param]
        if axis in self._demanded[name]:
            return self._demanded[name][axis], "fixed"
        if axis in (0, self._samples[name]):
            return 1, "samples"
        return self._free(_key(name, axis, param), name, rank), "free"


def _check_given(name: str, declared: Sequence[int | None], given: Sequence[int]) -> None:
    """Refuse a given shape that contradicts the declared one."""
    fits = len(given) == len(declared) and all(
        size > 0 or size == fixed for fixed, size in zip(declared, given, strict=True)
    )
    if not fits or any(fixed not in (None, size) for fixed, size in zip(declared, given, strict=True)):
        shown = "x".join("?" if fixed is None else str(fixed) for fixed in declared)
        raise UsageError(f"input {quote(name)} has the shape {shown}, got {'x'.join(map(str, given))}")
