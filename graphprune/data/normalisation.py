# SPDX-License-Identifier: Apache-2.0
"""Which normalisation of 8-bit images a network was trained with, told from what its file remembers of its inputs.

A wrong one costs accuracy in silence. But a `BatchNormalization` keeps mean and variance of what it met in training, so
a few real images, normalised in each of the usual ways and run as far as the first three of them, tell the ways apart:
the right one comes to a mismatch below 0.1, the others to four times that and more. The statistics of different sets of
photographs are all but the same: they count as one way, of which the most usual is taken unless another fits better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto

from graphprune.data.arrays import ArrayReader
from graphprune.data.callables import DatasetReader
from graphprune.data.image_folder import FolderReader
from graphprune.data.preprocessing import Preprocessing
from graphprune.data.signature import batch_size, input_specs
from graphprune.data.statistics import mean_mismatch, remembered, sample_statistics
from graphprune.errors import UsageError, quote
from graphprune.model.graph import Graph
from graphprune.model.normalize import inline_functions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from graphprune.array_types import Array
    from graphprune.data.preprocessing import ImageInput
    from graphprune.data.source import Batch, SampleReader, Source
    from graphprune.data.statistics import RememberedNorm
    from graphprune.model.load import Model

__all__ = [
    "CANDIDATES",
    "Memory",
    "Normalisation",
    "better",
    "described",
    "feeding",
    "few_batches",
    "image_input",
    "normalised",
]

_IMAGES = 24
_NORMS = 3
_FITS = 0.3
"""A normalisation fits whose mismatch is at most this: photographs of another world than the training data's come to
0.1."""
_CLEARLY = 2.5
"""One fits clearly better than another whose mismatch is this many times as large."""


@dataclass(frozen=True)
class Normalisation:
    """A usual normalisation.

    Parameters
    ----------
    name : str
    mean, std : tuple of float
        Per channel, or one for all, in units of full scale.
    way : str
        Those of one way feed nearly the same values.
    """

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    way: str

    @property
    def options(self) -> str:
        """How it is asked for on the command line."""
        mean, std = (",".join(f"{value:.6g}" for value in values) for values in (self.mean, self.std))
        return f"--mean {mean} --std {std}"


_STATISTICS = "statistics of photographs"
CANDIDATES = (
    Normalisation("ImageNet mean and deviation", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), _STATISTICS),
    Normalisation("CIFAR mean and deviation", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), _STATISTICS),
    Normalisation("MNIST mean and deviation", (0.1307,), (0.3081,), "statistics of digits"),
    Normalisation("-1..1", (0.5,), (0.5,), "-1..1"),
    Normalisation("0..1", (0.0,), (1.0,), "0..1"),
    Normalisation("0..255", (0.0,), (1 / 255,), "0..255"),
)


def normalised(source: Source, model: Model) -> Source:
    """Return a source whose 8-bit images are normalised as the model was trained, or as is said, if that is said.

    Where nothing is said, the usual normalisation is taken that fits what the file remembers, if one fits clearly best;
    where it remembers nothing, 0..1 is assumed. Where something was said and another one fits clearly better, the
    preprocessing says so as its `doubt`. Sources of other things than 8-bit images are returned as they are.

    Raises
    ------
    UsageError
        If nothing is said and the file does not tell.
    """
    image = image_input(source.reader)
    if image is None or image.spec.dtype.kind != "f" or image.preprocessing.origin:
        return source
    said = image.preprocessing
    given = None if said.mean is None and said.std is None else Normalisation(described(said), *said.scale, "given")
    memory = Memory.of(model)
    found = {} if memory is None else memory.mismatches(image, _plain_batches(source, model, image), given)
    if not found:
        origin = "given" if given else "assumed: the file keeps no statistics that would tell"
        settled = replace(said, mean=said.scale[0], std=said.scale[1], origin=origin)
    elif given is None:
        settled = _best(found, said, source)
    else:
        settled = _held_against(found, said, given)
    return replace(source, reader=_with_preprocessing(source.reader, settled))


def image_input(reader: SampleReader) -> ImageInput | None:
    """Return how the 8-bit images of a reader are fed; None where it has none, or several inputs take some."""
    if isinstance(reader, FolderReader | DatasetReader):
        return reader.image
    if isinstance(reader, ArrayReader) and len(reader.images) == 1:
        return next(iter(reader.images.values()))
    return None


def _with_preprocessing(reader: SampleReader, preprocessing: Preprocessing) -> SampleReader:
    if isinstance(reader, FolderReader | DatasetReader):
        return replace(reader, image=replace(reader.image, preprocessing=preprocessing))
    if isinstance(reader, ArrayReader):
        images = {name: replace(image, preprocessing=preprocessing) for name, image in reader.images.items()}
        return replace(reader, images=images)
    return reader


def described(preprocessing: Preprocessing) -> str:
    """Return a normalisation in words."""
    mean, std = preprocessing.scale
    for each in CANDIDATES:
        if (each.mean, each.std) == (mean, std):
            return each.name
    return f"mean {_list(mean)} and deviation {_list(std)}"


def feeding(source: Source) -> str:
    """Return in one line what a source holds and how it is fed."""
    line = f"{len(source):,} of {source.name}{_labels(source)}"
    image = image_input(source.reader)
    if image is None:
        mismatch = source.reader.mismatch if isinstance(source.reader, ArrayReader) else None
        return f"{line}, fed as they are" + ("" if mismatch is None else f" (mismatch {mismatch:.2g})")
    if image.spec.dtype.kind != "f":
        return f"{line}, 0..255 as they are"
    origin = f" ({image.preprocessing.origin})" if image.preprocessing.origin else ""
    return f"{line}, 0..255 -> {described(image.preprocessing)}{origin}"


def _labels(source: Source) -> str:
    """Say which folders were taken for classes, or why none were."""
    if not isinstance(source.reader, FolderReader):
        return ""
    names = source.classes
    if source.labelled and names:
        return f" (labels: its {len(names)} folders, {quote(names[0])} is class 0, {quote(names[-1])} {len(names) - 1})"
    return f" (without labels: {source.reader.unlabelled})" if source.reader.unlabelled else ""


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _best(found: dict[Normalisation, float], said: Preprocessing, source: Source) -> Preprocessing:
    """Return the candidate that fits clearly best.

    Raises
    ------
    UsageError
        If there is none.
    """
    if not any(map(math.isfinite, found.values())):
        raise UsageError(
            f"the model gives values that are not finite on {quote(source.name)}, however its images are normalised",
            hint="say how with --mean and --std; `graphprune solve` names weights that are not finite",
        )
    first = _most_usual(found)
    following = min((found[each] for each in found if each.way != first.way), default=np.inf)
    if found[first] > _FITS or following < _CLEARLY * found[first]:
        shown = ", ".join(f"{each.name} {found[each]:.3g}" for each in sorted(found, key=lambda each: found[each]))
        raise UsageError(
            f"how the 8-bit images of {quote(source.name)} are to be normalised is unclear: the mismatch with what the "
            f"model remembers is {shown}",
            hint=f"say it with --mean and --std, e.g. {first.options}, or in graphprune.toml beside the model",
        )
    origin = f"found: mismatch {found[first]:.2g}, next {following:.2g}"
    return replace(said, mean=first.mean, std=first.std, origin=origin)


def _held_against(found: dict[Normalisation, float], said: Preprocessing, given: Normalisation) -> Preprocessing:
    """Return what was given, in doubt if another candidate fits clearly better."""
    best = better(found, found[given])
    doubted = best and (
        f"{best.name} fits these images clearly better ({best.options}): "
        f"mismatch {found[best]:.2g} with what the model remembers, {found[given]:.2g} as given"
    )
    return replace(
        said, mean=given.mean, std=given.std, origin=f"given: mismatch {found[given]:.2g}", doubt=doubted or ""
    )


def better(found: Mapping[Normalisation, float], own: float) -> Normalisation | None:
    """Return what fits, and clearly better than a mismatch of `own`; None where nothing does."""
    best = _most_usual(found) if any(map(math.isfinite, found.values())) else None
    return None if best is None or found[best] > _FITS or own <= _CLEARLY * found[best] else best


def _most_usual(found: Mapping[Normalisation, float]) -> Normalisation:
    """Return the nearest candidate, or the most usual one of its way if that is about as near."""
    known = [each for each in found if math.isfinite(found[each])]
    nearest = min(known, key=lambda each: found[each])
    return next(each for each in known if each.way == nearest.way and found[each] <= _CLEARLY * found[nearest])


@dataclass(frozen=True, eq=False)
class Memory:
    """What the first normalisations of a model remember of their inputs, and the part of it that leads there."""

    model: Model
    head: Graph
    norms: Sequence[RememberedNorm]

    @classmethod
    def of(cls, model: Model) -> Memory | None:
        """Return what a model remembers; None where that is nothing."""
        graph = Graph(inline_functions(model.proto))
        norms = remembered(model, graph)[:_NORMS]
        return cls(model, _head(graph, norms), norms) if norms else None

    def mismatch(self, batches: Iterable[Mapping[str, Array]]) -> float:
        """Return how far what is fed is from it."""
        met = sample_statistics(self.model, self.head, self.norms, map(dict, batches))
        return mean_mismatch(self.norms, [one.over(slice(None)) for one in met])

    def mismatches(
        self, image: ImageInput, plain: Iterable[Batch], given: Normalisation | None = None
    ) -> dict[Normalisation, float]:
        """Return how far images are from it if they are normalised in each of the usual ways, or as is given.

        Parameters
        ----------
        image : ImageInput
        plain : iterable of Batch
            Pixels from 0 to 1.
        given : Normalisation, optional
        """
        candidates = [each for each in CANDIDATES if len(each.mean) in (1, image.channels)]
        if image.channels == 1:
            candidates = [each for each in candidates if each.way != _STATISTICS]
        else:
            candidates = [each for each in candidates if each.name != "MNIST mean and deviation"]
        batches = list(plain)
        return {
            each: self.mismatch({**batch.feeds, image.spec.name: _fed(batch, each, image)} for batch in batches)
            for each in (*candidates, *((given,) if given else ()))
        }


def _plain_batches(source: Source, model: Model, image: ImageInput) -> Iterator[Batch]:
    """Yield a few images as 0..1, in batches that the model takes; they are read once for all candidates."""
    plain = replace(image.preprocessing, mean=(0.0,), std=(1.0,))
    return few_batches(replace(source, reader=_with_preprocessing(source.reader, plain)), model)


def few_batches(source: Source, model: Model) -> Iterator[Batch]:
    """Yield a few samples, in batches that the model takes."""
    few = source.limited(_IMAGES)
    size = batch_size(input_specs(model)) or len(few)
    for start in range(0, len(few), size):
        yield few.read(np.arange(start, start + size, dtype=np.int64) % len(few))


def _fed(batch: Batch, candidate: Normalisation, image: ImageInput) -> Array:
    shape = (1, -1, 1, 1) if image.layout == "NCHW" else (1, 1, 1, -1)
    mean, std = (np.asarray(each, dtype=np.float32).reshape(shape) for each in (candidate.mean, candidate.std))
    values = batch.feeds[image.spec.name].astype(np.float32)
    fed: Array = ((values - mean) / std).astype(image.spec.dtype)
    return fed


def _head(graph: Graph, norms: Sequence[RememberedNorm]) -> Graph:
    """Return the part of a graph that the inputs of some normalisations need, which is all that is run."""
    wanted, pending = set(), [norm.x for norm in norms]
    while pending:
        node = graph.producer.get(pending.pop())
        if node is not None and node.index not in wanted:
            wanted.add(node.index)
            pending += [*node.inputs, *node.captured]
    part = ModelProto()
    part.CopyFrom(graph.proto)
    del part.graph.node[:], part.graph.output[:]
    part.graph.node.extend(node.proto for node in graph.nodes if node.index in wanted)
    return Graph(part)
