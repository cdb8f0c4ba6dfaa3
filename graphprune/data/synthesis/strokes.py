# SPDX-License-Identifier: Apache-2.0
"""Pen strokes: rows of marks on paper, as in writing, signs and drawings. A kind of image that recovery does not see.

What was learned from leaves, crops and noise is judged by them: whether it holds for images of another kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from graphprune.data.synthesis.pink import pink_noise

if TYPE_CHECKING:
    from graphprune.data.synthesis.pixels import Pixels

__all__ = ["pen_strokes"]

_OVERSAMPLING = 2
_LARGEST_CANVAS = 512
_ROW = 0.15, 0.6
"""Heights of a row of marks, as a share of the shorter side."""
_MOST_MARKS = 200
_POINTS = 2, 5
_PEN = 0.06, 0.2
"""Widths of a stroke, as a share of the height of its row."""
_SHADE = 0.3
"""How much of the paper's brightness is shadow and stain."""


def pen_strokes(random: np.random.Generator, count: int, height: int, width: int) -> Pixels:
    """Draw images of rows of marks, dark on light or light on dark.

    Parameters
    ----------
    random : numpy.random.Generator
    count, height, width : int

    Returns
    -------
    ndarray of float32, shape (count, height, width, 3), from 0 to 1

    Complexity: O(count * (marks + pixels)).
    """
    factor = _OVERSAMPLING if max(height, width) * _OVERSAMPLING <= _LARGEST_CANVAS else 1
    images = np.empty((count, height, width, 3), dtype=np.float32)
    for at in range(count):
        paper, ink = random.uniform(0, 255, 3), random.uniform(0, 255, 3)
        canvas = Image.new("RGB", (width * factor, height * factor), _colour(paper))
        _write(random, canvas, _colour(ink))
        images[at] = np.asarray(canvas.resize((width, height), Image.Resampling.BOX), dtype=np.float32) / 255
    shade = pink_noise(random, count, height, width) - np.float32(0.5)
    return np.clip(images + np.float32(_SHADE) * shade, 0, 1)


def _write(random: np.random.Generator, canvas: Image.Image, ink: tuple[int, ...]) -> None:
    """Fill a canvas with rows of marks, each a line through a few random points of its box."""
    pen = ImageDraw.Draw(canvas)
    tall = random.uniform(*_ROW) * min(canvas.size)
    thick = max(1, round(tall * random.uniform(*_PEN)))
    wide = tall * random.uniform(0.4, 0.9)
    top, left = random.uniform(-tall, 0), random.uniform(-wide, 0)
    x, y = left, top
    for _ in range(_MOST_MARKS):
        points = random.uniform(0.1, 0.9, (random.integers(*_POINTS), 2)) * (wide, tall) + (x, y)
        if random.random() > 0.15:  # the rest are gaps between words
            pen.line([tuple(point) for point in points.tolist()], fill=ink, width=thick, joint="curve")
        x += wide
        if x > canvas.width:
            x, y = left, y + 1.2 * tall
        if y > canvas.height:
            return


def _colour(value: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[int, ...]:
    return tuple(value.astype(int).tolist())
