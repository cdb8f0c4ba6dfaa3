# SPDX-License-Identifier: Apache-2.0
"""Images for an input: of the size, channels, layout and range that a model wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphprune.array_types import Array
from graphprune.data.synthesis.blend import SHARES, Shares, counts_of
from graphprune.data.synthesis.exposure import Exposure
from graphprune.data.synthesis.pink import pink_noise

if TYPE_CHECKING:
    from graphprune.data.preprocessing import Layout
    from graphprune.data.signature import InputSpec
    from graphprune.data.synthesis.pixels import Painter, Pixels

__all__ = ["Canvas", "ImageMaker", "canvas_of"]

Expose = Callable[["Pixels"], Exposure]

_COLOURS = 3
_GREY = 1
_LEAST_SIDE = 4
_MOST_CHANNELS = 64
"""More are no bands of an image."""


@dataclass(frozen=True)
class Canvas:
    """What the images of an input look like.

    Attributes
    ----------
    layout : {"NCHW", "NHWC"}
    """

    spec: InputSpec
    layout: Layout
    channels: int
    height: int
    width: int

    def place(self, images: Pixels) -> Array:
        """Return images, shape (n, height, width, channels), as the input takes them."""
        values = images.transpose(0, 3, 1, 2) if self.layout == "NCHW" else images
        if self.spec.dtype.kind in "ui":
            limits = np.iinfo(self.spec.dtype)
            values = np.clip(np.rint(values), limits.min, limits.max)
        return np.ascontiguousarray(values, dtype=self.spec.dtype)


def canvas_of(spec: InputSpec, shape: tuple[int, ...], layout: Layout | None = None) -> Canvas | None:
    """Return what the images of an input look like; None where it takes none.

    Parameters
    ----------
    shape : tuple of int
        Its sizes, open ones filled in.
    layout : {"NCHW", "NHWC"}, optional
        Where the channels are, if that is known; otherwise last where only the last axis can hold colours.
    """
    if not spec.is_image or spec.samples != 0:
        return None
    if layout is None:
        colours = (_GREY, _COLOURS)
        layout = "NHWC" if shape[3] in colours and shape[1] not in colours else "NCHW"
    channels, height, width = (shape[1], *shape[2:]) if layout == "NCHW" else (shape[3], *shape[1:3])
    if min(height, width) < _LEAST_SIDE or channels > _MOST_CHANNELS:
        return None
    return Canvas(spec, layout, channels, height, width)


class ImageMaker:
    """Makes images of all kinds for one canvas, each kind at the exposure that suits it.

    Parameters
    ----------
    canvas : Canvas
    expose : callable
        Returns the exposure of images with a mean of 0 and a deviation of 1.
    shares : sequence of pair of Painter and int, optional
        Which kinds, and how many of each.
    """

    def __init__(self, canvas: Canvas, expose: Expose, shares: Shares = SHARES) -> None:
        self._canvas = canvas
        self._expose = expose
        self._shares = shares
        self.exposures: dict[str, Exposure] = {}

    def make(self, random: np.random.Generator, count: int) -> Array:
        """Return so many images, in random order, as the input takes them."""
        parts = []
        for (paint, _), own in zip(self._shares, counts_of(count, self._shares), strict=True):
            if own:
                parts.append(self._exposed(paint.__name__, self._painted(random, paint, own)))
        return np.concatenate(parts)[random.permutation(count)]

    def _painted(self, random: np.random.Generator, paint: Painter, count: int) -> Pixels:
        """Return images with as many channels as are wanted."""
        canvas = self._canvas
        images = paint(random, count, canvas.height, canvas.width)
        grey: Pixels = images.mean(axis=3, keepdims=True)
        if canvas.channels == _GREY:
            return grey
        more = canvas.channels - _COLOURS
        if more <= 0:
            return images[..., : canvas.channels]
        rounds = -(-more // _COLOURS)
        noise = [pink_noise(random, count, canvas.height, canvas.width) for _ in range(rounds)]
        bands = 0.7 * grey + 0.3 * np.concatenate(noise, axis=3)
        return np.concatenate([images, bands], axis=3)[..., : canvas.channels]

    def _exposed(self, kind: str, images: Pixels) -> Array:
        images = (images - images.mean(axis=(0, 1, 2))) / (images.std(axis=(0, 1, 2)) + np.float32(1e-6))
        if kind not in self.exposures:
            self.exposures[kind] = self._expose(images)
        exposure = self.exposures[kind]
        return self._canvas.place(exposure.brightness + exposure.contrast * images)
