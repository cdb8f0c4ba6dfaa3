# SPDX-License-Identifier: Apache-2.0
"""Samples made from a model file alone.

Images get natural statistics and the exposure that the network remembers (:mod:`.exposure`); other inputs get what the
file tells of them (:mod:`.numbers`). Several times as many samples are made as are wanted. Where normalisations
remember the training data, those are kept that together are most like it (:mod:`.choose`); of a classifier without such
statistics, those that it is sure of and tells apart (:mod:`.confident`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from graphprune.array_types import Array, Ints
from graphprune.data.arrays import from_arrays
from graphprune.data.feeding import affordable_batch
from graphprune.data.session import Session
from graphprune.data.signature import batch_size, input_specs
from graphprune.data.statistics import mean_mismatch, remembered, sample_statistics
from graphprune.data.synthesis.blend import SHARES, Shares
from graphprune.data.synthesis.choose import choose_samples
from graphprune.data.synthesis.confident import choose_confident, class_shares
from graphprune.data.synthesis.exposure import Exposure, fit_exposure
from graphprune.data.synthesis.images import Canvas, ImageMaker, canvas_of
from graphprune.data.synthesis.numbers import number_maker, quantised_range
from graphprune.errors import DataError, InputError, UsageError, quote
from graphprune.model.graph import Graph
from graphprune.model.normalize import inline_functions
from graphprune.model.sizes.usual_shapes import usual_shapes
from graphprune.model.tensors import FLOATS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from graphprune.choices import Quality
    from graphprune.data.preprocessing import Layout
    from graphprune.data.signature import InputSpec
    from graphprune.data.source import Source
    from graphprune.data.statistics import RememberedNorm
    from graphprune.model.load import Model

__all__ = [
    "NAME",
    "MadeSamples",
    "Refinement",
    "SampleOptions",
    "can_make",
    "default_count",
    "make_samples",
    "read_request",
]

NAME = "synthetic"
"""What the user writes for samples that are made."""

_REQUEST = re.compile(rf"{NAME}(?::(?P<quality>fast|fine))?(?::(?P<count>\d{{1,6}}))?")
_PIXELS = 128 * 224 * 224
_FEWEST, _MOST = 32, 1024
_FITTED_PIXELS = 300_000
"""Pixels of the images to which an exposure is fitted."""
_FITTED_AT_ONCE = 4
_SURE = ", of which those are kept that it is sure of and tells apart"
_TABLE = 2
"""Axes of an output with a number for each sample and class."""


@dataclass(frozen=True)
class SampleOptions:
    """What is made.

    Parameters
    ----------
    count : int, optional
        Samples; as many as :func:`default_count` says by default.
    candidates : int
        Samples made for each one that is kept, where the network remembers what they should be like.
    seed : int
    shapes : mapping of str to tuple of int
        Sizes of inputs whose dimensions are open.
    layout : {"NCHW", "NHWC"}, optional
        Where images have their channels, if the input does not tell.
    shares : sequence of pair of Painter and int
        The kinds of image, and how many of each.
    quality : {"fast", "fine"}
        Whether they are refined by gradient afterwards; :func:`make_samples` itself makes fast ones only, see
        :func:`graphprune.recovery.made_samples.made_samples`.
    """

    count: int | None = None
    candidates: int = 4
    seed: int = 0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    layout: Layout | None = None
    shares: Shares = SHARES
    quality: Quality = "fast"

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise UsageError(f"{self.count} samples cannot be made: at least one")
        if self.candidates < 1:
            raise UsageError(f"at least one sample is made for each that is kept, candidates is {self.candidates}")


@dataclass(frozen=True)
class Refinement:
    """What a refinement by gradient brought.

    Attributes
    ----------
    passes : int
        Its work: forward passes of the network per sample, of which a step is worth three.
    mismatch : tuple of two float
        Before and after; as in :class:`MadeSamples`.
    """

    passes: int
    mismatch: tuple[float, float]


@dataclass(frozen=True, eq=False)
class MadeSamples:
    """Samples that were made.

    Attributes
    ----------
    source : Source
    kinds : mapping of str to str
        Of what kind the values of each input are.
    knowledge : str
        What of the file they go by.
    made : int
        How many were made, of which those of the source were chosen.
    mismatch : tuple of two float, optional
        How far the samples are from what the normalisations of the network remember: all that were made, and those
        that were chosen. None where the network remembers nothing.
    refinement : Refinement, optional
        What a refinement by gradient brought, where there was one.
    """

    source: Source
    kinds: Mapping[str, str]
    knowledge: str
    made: int
    mismatch: tuple[float, float] | None = None
    refinement: Refinement | None = None


def read_request(text: str) -> SampleOptions | None:
    """Return what ``synthetic``, ``synthetic:fine``, ``synthetic:N`` or ``synthetic:fine:N`` asks for.

    None for any other text.
    """
    match = _REQUEST.fullmatch(text)
    if match is None:
        return None
    quality: Quality = "fine" if match["quality"] == "fine" else "fast"
    return SampleOptions(int(match["count"]) if match["count"] else None, quality=quality)


def default_count(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return how many samples are made where nobody says it: fewer of large ones, which show more positions each."""
    pixels = max((int(np.prod(shape[2:])) for shape in shapes.values() if len(shape) > 3), default=1)
    return int(np.clip(_PIXELS // max(1, pixels), _FEWEST, _MOST))


def can_make(model: Model) -> bool:
    """Whether the file tells what each of its inputs may be; nothing is made for it."""
    try:
        specs, graph = input_specs(model), Graph(inline_functions(model.proto))
        shapes, norms = usual_shapes(model), remembered(model, graph)
    except InputError:  # inputs of a type that nothing can be fed to, or of no declared shape
        return False
    return all(
        canvas_of(spec, shapes[spec.name], None) is not None or number_maker(model, graph, spec, norms) is not None
        for spec in specs
    )


def make_samples(
    model: Model, options: SampleOptions | None = None, progress: Callable[[int, int], None] | None = None
) -> MadeSamples:
    """Make samples for a model from what its file says, deterministically.

    Parameters
    ----------
    model : Model
    options : SampleOptions, optional
    progress : callable, optional
        Told how many batches of samples were looked at.

    Raises
    ------
    DataError
        If the file does not tell what an input may be.

    Complexity: one pass of the network over all samples that are made, where it says which to keep.
    """
    options = options or SampleOptions()
    specs, graph = input_specs(model), Graph(inline_functions(model.proto))
    shapes = usual_shapes(model, {name: size for name, size in options.shapes.items() if name in graph.inputs})
    norms = remembered(model, graph)
    shown = all(canvas_of(spec, shapes[spec.name], options.layout) is not None for spec in specs)
    classes = _class_output(model) if shown and not norms else None
    count = options.count or default_count(shapes)
    fixed = batch_size(specs) or 1
    count = -(-count // fixed) * fixed
    made = count * (options.candidates if norms or classes else 1)
    maker = _Maker(model, graph, norms, options)
    random = np.random.default_rng(options.seed)
    arrays = {spec.name: maker.values(random, spec, shapes[spec.name], made) for spec in specs}
    source, knowledge, mismatch = from_arrays(NAME, specs, arrays), maker.knowledge, None
    if made == count:
        return MadeSamples(source, maker.kinds, knowledge, made)
    watched = _watched(model, source, made, progress)
    if classes is None:
        picked, mismatch = _like_remembered(model, graph, norms, watched, count)
    else:
        picked = _told_apart(model, classes, watched, made, count)
        knowledge += "" if picked is None else _SURE
    order = np.arange(count) if picked is None else picked[random.permutation(count)]  # the first are most like all
    chosen = {spec.name: _taken(arrays[spec.name], spec, order) for spec in specs}
    return MadeSamples(from_arrays(NAME, specs, chosen), maker.kinds, knowledge, made, mismatch)


def _like_remembered(
    model: Model, graph: Graph, norms: list[RememberedNorm], watched: Iterator[dict[str, Array]], count: int
) -> tuple[Ints | None, tuple[float, float]]:
    """Return the samples that are most like the training data, and the mismatch of all and of these.

    No samples where what the network remembers is nothing that images come near to.
    """
    statistics = sample_statistics(model, graph, norms, watched)
    picked = choose_samples(norms, statistics, count)
    everything, drawn, after = (
        mean_mismatch(norms, [one.over(index) for one in statistics])
        for index in (slice(None), np.arange(count), picked)
    )
    return (picked, (everything, after)) if after < drawn else (None, (everything, drawn))


def _told_apart(model: Model, classes: str, watched: Iterator[dict[str, Array]], made: int, count: int) -> Ints | None:
    """Return the samples that a classifier is sure of and tells apart; None where it gives no numbers for each."""
    tables = [outputs for _, (outputs,) in Session(model).run_each(watched, [classes])]
    if any(table.ndim != _TABLE for table in tables) or sum(map(len, tables)) != made:
        return None
    shares = class_shares(np.concatenate(tables))
    return None if shares is None else choose_confident(shares, count)


def _class_output(model: Model) -> str | None:
    """Return the output of a network that is a table of classes by samples, if there is one."""
    for value in model.proto.graph.output:
        kind = value.type.tensor_type
        dims = kind.shape.dim
        if kind.elem_type in FLOATS and len(dims) == _TABLE and dims[1].dim_value > 1:
            return value.name
    return None


def _taken(array: Array, spec: InputSpec, index: Array) -> Array:
    return array if spec.samples is None else np.take(array, index, axis=spec.samples)


def _watched(
    model: Model, source: Source, made: int, progress: Callable[[int, int], None] | None
) -> Iterator[dict[str, Array]]:
    """Yield the feeds of all samples, in batches that the model takes."""
    size = batch_size(input_specs(model)) or affordable_batch(model, source)
    for start in range(0, made, size):
        if progress is not None:
            progress(start // size, -(-made // size))
        yield dict(source.read(np.arange(start, min(start + size, made), dtype=np.int64)).feeds)


class _Maker:
    """Makes the values of each input."""

    def __init__(self, model: Model, graph: Graph, norms: list[RememberedNorm], options: SampleOptions) -> None:
        self._model = model
        self._graph = graph
        self._norms = norms
        self._options = options
        self.kinds: dict[str, str] = {}
        self._knowledge: dict[str, None] = {"statistics of BatchNormalization": None} if norms else {}

    @property
    def knowledge(self) -> str:
        """What the samples go by."""
        return ", ".join(self._knowledge) or "natural images"

    def values(self, random: np.random.Generator, spec: InputSpec, shape: tuple[int, ...], count: int) -> Array:
        """Return the values of one input for so many samples.

        Raises
        ------
        DataError
            If the file does not tell what they may be.
        """
        canvas = canvas_of(spec, shape, self._options.layout)
        if canvas is not None:
            self.kinds[spec.name] = "images"
            maker = ImageMaker(canvas, lambda images: self._exposure(canvas, images), self._options.shares)
            return maker.make(random, count)
        numbers = number_maker(self._model, self._graph, spec, self._norms)
        if numbers is None:
            raise DataError(
                f"no samples can be made for input {spec}: it takes no images, and the file does not tell what else",
                hint="give real ones, labels are not needed: an .npz file with an array for each input",
            )
        draw, why = numbers
        self.kinds[spec.name] = "numbers"
        self._knowledge[f"{quote(spec.name)} from {why}"] = None
        size = list(shape)
        if spec.samples is not None and spec.samples >= 0:
            size[spec.samples] = count
        return draw(random, tuple(size))

    def _exposure(self, canvas: Canvas, images: Array) -> Exposure:
        """Return how bright images are and how much contrast they have."""
        span = quantised_range(self._model, self._graph, canvas.spec.name)
        if canvas.spec.dtype.kind in "ui":
            limits = np.iinfo(np.uint8)
            span = float(limits.min), float(limits.max)
        if span is not None:
            middle, spread = (span[0] + span[1]) / 2, (span[1] - span[0]) / 4
            full = np.ones(canvas.channels, dtype=np.float32)
            return Exposure(full * np.float32(middle), full * np.float32(spread))
        batch = batch_size((canvas.spec,)) or _FITTED_AT_ONCE
        few = max(1, _FITTED_PIXELS // (canvas.height * canvas.width * batch)) * batch
        some = images[: min(few, len(images) // batch * batch)]
        if not len(some):  # fewer than are run at once
            some = np.resize(images, (batch, *images.shape[1:]))
        return fit_exposure(self._model, self._graph, canvas.spec.name, some, canvas.place, self._norms, batch)
