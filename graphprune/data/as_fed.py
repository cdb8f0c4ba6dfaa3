# SPDX-License-Identifier: Apache-2.0
"""Whether arrays that are fed as they are look like what a model was trained on.

Images of 8 bits are normalised when they are read. Arrays of other types should be what the model takes; but pixels
that were stored as floats and not normalised, or by other values, cost as much accuracy, and nothing fails. What the
file remembers of its inputs (:mod:`graphprune.data.normalisation`) tells them apart, and their range what they are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from graphprune.data.arrays import ArrayReader
from graphprune.data.normalisation import Memory, better, few_batches, image_input
from graphprune.data.preprocessing import Preprocessing
from graphprune.errors import InputError, quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.array_types import Array
    from graphprune.data.normalisation import Normalisation
    from graphprune.data.preprocessing import ImageInput
    from graphprune.data.source import Batch, SampleReader, Source
    from graphprune.model.load import Model

__all__ = ["doubt", "looked_at"]


class _Scale(NamedTuple):
    """A range in which pixels are stored."""

    low: float
    high: float


_SCALES = (_Scale(0, 1), _Scale(0, 255), _Scale(-1, 1))


def looked_at(source: Source, model: Model) -> Source:
    """Return a source whose reader knows how far the arrays that it feeds are from what the model remembers.

    Where their values look like pixels, and one of the usual normalisations would make them fit clearly better, the
    reader says so as its `doubt`. Sources of 8-bit images, and models that remember nothing, are left alone.

    Complexity: one pass of a few samples through the first layers, and one more for each usual normalisation.
    """
    reader = source.reader
    if not isinstance(reader, ArrayReader) or reader.images:
        return source
    memory = Memory.of(model)
    if memory is None:
        return source
    batches = list(few_batches(source, model))
    own = memory.mismatch(batch.feeds for batch in batches)
    image = _image(reader)
    scale = None if image is None else _scale([batch.feeds[image.spec.name] for batch in batches])
    doubted = ""
    if image is not None and scale is not None:
        pixels = [_unscaled(batch, image.spec.name, scale) for batch in batches]
        doubted = _doubt(source.name, scale, own, memory.mismatches(image, pixels))
    return replace(source, reader=replace(reader, mismatch=own, doubt=doubted))


def doubt(reader: SampleReader) -> str:
    """Return what speaks against how samples are fed; nothing where nothing does."""
    image = image_input(reader)
    if image is not None:
        return image.preprocessing.doubt
    return reader.doubt if isinstance(reader, ArrayReader) else ""


def _doubt(name: str, scale: _Scale, own: float, found: dict[Normalisation, float]) -> str:
    best = better(found, own)
    if best is None:
        return ""
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (best.mean, best.std))
    return (
        f"{quote(name)} holds values from {scale.low:g} to {scale.high:g}, which are fed as they are; {best.name} "
        f"({mean} and {std}, of pixels from 0 to 1) would fit clearly better: mismatch {found[best]:.2g} with what the "
        f"model remembers, {own:.2g} as they are; store images as uint8, or normalise them"
    )


def _image(reader: ArrayReader) -> ImageInput | None:
    """Return the one input that may take images; None where there is none."""
    images = [spec for spec in reader.specs if spec.is_image and spec.dtype.kind == "f"]
    if len(images) != 1:
        return None
    try:
        return Preprocessing().for_input(images[0])
    except InputError:  # something else with four axes
        return None


def _scale(values: Sequence[Array]) -> _Scale | None:
    """Return the range that values seem to have, if pixels are stored in it."""
    least, most = min(float(each.min()) for each in values), max(float(each.max()) for each in values)
    return next((scale for scale in _SCALES if scale.low <= least and most <= scale.high), None)


def _unscaled(batch: Batch, name: str, scale: _Scale) -> Batch:
    """Return a batch with pixels from 0 to 1."""
    return replace(batch, feeds={**batch.feeds, name: (batch.feeds[name] - scale.low) / (scale.high - scale.low)})
