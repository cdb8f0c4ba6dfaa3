# SPDX-License-Identifier: Apache-2.0
"""Varied samples: every image followed by changed copies of itself, for where there are few images.

A layer that is refitted meets an object at one place and one size per image. Its mirror image, and pieces of it that
are enlarged again, are as good as other images where the network has learned from such: they cost runs of the network,
and nobody has to find them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.array_types import Array, Floats, Ints
from graphprune.data.source import Batch, Source
from graphprune.errors import DataError, quote

__all__ = ["MOST_COPIES", "varied"]

MOST_COPIES = 64
"""Of a sample; more of them show nothing new of so few images."""

_COLOURS = (1, 3)
_IMAGE_AXES = 4
_LEAST_SIDE = 0.6
"""Of the side of an image; pieces are at least so large."""


def varied(source: Source, copies: int, seed: int) -> Source:
    """Return the samples of a source, each with changed copies right behind it, without labels.

    The first copy is the mirror image, left for right; all others are pieces of random size and place, enlarged to the
    size of the image, half of them mirrored. A copy depends on the seed and on its number alone.

    Parameters
    ----------
    source : Source
        Samples that are images: four axes, of which one is of one or three colours. Beside them there may be values
        that all samples share, and single numbers.
    copies : int
        Of each sample, at most :data:`MOST_COPIES`; the source itself is returned for 0.
    seed : int

    Raises
    ------
    DataError
        If none of the values is an image, or others belong to places in it (boxes, masks, tokens).

    Complexity: O(pixels * side) a copy that is a piece.
    """
    if not copies:
        return source
    batch = source.read(np.zeros(1, dtype=np.int64))
    own = {name: value for name, value in batch.feeds.items() if name not in batch.shared}
    images = frozenset(
        name for name, value in own.items() if not batch.axes.get(name, 0) and _colour_axis(value) is not None
    )
    if not images:
        shapes = ", ".join(f"{quote(name)} of {list(value.shape)}" for name, value in batch.feeds.items())
        raise DataError(
            f"{quote(source.name)} has no images to make copies of: {shapes}",
            hint="an image has four axes, one of them of one or three colours; leave the copies out",
        )
    beside = next((name for name, value in own.items() if name not in images and value.size > 1), None)
    if beside is not None or len(images) > 1:
        first, *others = sorted(images)
        raise DataError(
            f"changed copies of {quote(first)} would no longer belong to {quote(beside or others[0])}, which is fed "
            "beside it",
            hint="leave the copies out",
        )
    return Source.whole(source.name, _Varied(source, copies, seed, images))


@dataclass(frozen=True, eq=False)
class _Varied:
    """Reads the samples of a source, and copies of them."""

    source: Source
    copies: int
    seed: int
    images: frozenset[str]

    labelled: ClassVar[bool] = False
    """Whether there are labels: what is seen on a piece of an image may be something else."""
    classes: ClassVar[tuple[str, ...]] = ()

    def __len__(self) -> int:
        return len(self.source) * (1 + self.copies)

    def read(self, positions: Ints) -> Batch:
        """Return the samples and copies at these positions, in this order."""
        batch = self.source.read(positions // (1 + self.copies))
        feeds = {
            name: self._changed(value, positions) if name in self.images else value
            for name, value in batch.feeds.items()
        }
        return Batch(feeds, None, batch.shared, batch.axes)

    def _changed(self, value: Array, positions: Ints) -> Array:
        """Return the images with copies in the place of those that are to be changed."""
        colours, changed = _colour_axis(value), value.copy()
        for at, position in enumerate(positions.tolist()):
            number = position % (1 + self.copies)
            if number:
                image = np.moveaxis(value[at], -1, 0) if colours == _IMAGE_AXES - 1 else value[at]
                copy = image[..., ::-1] if number == 1 else self._piece(image, position)
                changed[at] = np.moveaxis(copy, 0, -1) if colours == _IMAGE_AXES - 1 else copy
        return changed

    def _piece(self, image: Array, position: int) -> Array:
        """Return a piece of an image of shape (colours, height, width), enlarged to its size."""
        random = np.random.default_rng((self.seed, position))
        share, mirrored = random.uniform(_LEAST_SIDE, 1.0), random.integers(2)
        down, across = (_enlarging(size, share, random.uniform()) for size in image.shape[1:])
        piece = down @ image.astype(np.float64) @ (across[::-1] if mirrored else across).T
        if image.dtype.kind in "iu":
            piece = np.rint(piece)
        return piece.astype(image.dtype)


def _colour_axis(value: Array) -> int | None:
    """Return the axis that holds the colours of a batch of images, the first one of two; None where it holds none."""
    axes = (1, _IMAGE_AXES - 1) if value.ndim == _IMAGE_AXES else ()
    return next((axis for axis in axes if value.shape[axis] in _COLOURS), None)


def _enlarging(size: int, share: float, place: float) -> Floats:
    """Return the weights, shape (size, size), that stretch a part of an axis over all of it, linearly in between."""
    side = 1 + (size - 1) * share
    start = (size - side) * place
    wanted = start + np.linspace(0.0, side - 1, size)
    weights: Floats = np.maximum(0.0, 1.0 - np.abs(wanted[:, None] - np.arange(size)))
    return weights
