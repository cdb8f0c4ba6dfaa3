# SPDX-License-Identifier: Apache-2.0
"""Dead leaves: opaque shapes of all sizes that fall on one another, as the things in a photograph do.

Edges, corners, occlusion and flat regions at every scale are what a network's filters look for, and noise has none of
them. Sizes follow a power law, so the image looks alike from near and from far.

Source: Lee, Mumford & Huang, Occlusion Models for Natural Images, IJCV 41 (2001); as a substitute for photographs:
Baradad et al., Learning to See by Looking at Noise, NeurIPS 2021, arXiv:2106.05963.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from graphprune.data.synthesis.pink import pink_noise

if TYPE_CHECKING:
    from graphprune.data.synthesis.pixels import Pixels

__all__ = ["dead_leaves"]

_OVERSAMPLING = 2
"""Shapes are drawn so many times larger than wanted: edges get smooth when the drawing is reduced."""
_LARGEST_CANVAS = 512
_SMALLEST, _LARGEST = 0.04, 0.6
"""Radii of the shapes, as a share of the side."""
_LEAVES = 100
_BACKGROUND = 16
"""Of them, so many large ones come first: they cover the canvas."""
_TEXTURE = 0.08
_NOISE = 0.015
_CORNERS = 12


def dead_leaves(random: np.random.Generator, count: int, height: int, width: int) -> Pixels:
    """Draw images of discs, polygons and strokes of random colour.

    Every image has a base colour and a spread of colours of its own, for images differ in brightness and contrast.

    Parameters
    ----------
    random : numpy.random.Generator
    count, height, width : int

    Returns
    -------
    ndarray of float32, shape (count, height, width, 3), from 0 to 1

    Complexity: O(count * (leaves + pixels)).
    """
    factor = _OVERSAMPLING if max(height, width) * _OVERSAMPLING <= _LARGEST_CANVAS else 1
    size = width * factor, height * factor
    images = np.empty((count, height, width, 3), dtype=np.float32)
    for at in range(count):
        canvas = _drawn(random, size)
        if factor > 1:
            canvas = canvas.resize((width, height), Image.Resampling.BOX)
        images[at] = np.asarray(canvas, dtype=np.float32) * np.float32(1 / 255)
    texture = pink_noise(random, count, height, width) - np.float32(0.5)
    strength = random.uniform(0, 2 * _TEXTURE, (count, 1, 1, 1)).astype(np.float32)
    noise = random.standard_normal(images.shape, dtype=np.float32) * np.float32(_NOISE)
    return np.clip(images + strength * 4 * texture + noise, 0, 1)


def _drawn(random: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Draw one image."""
    base = random.uniform(0, 255, 3)
    spread = random.uniform(20, 110)
    common, own = random.standard_normal((_LEAVES, 1)), random.standard_normal((_LEAVES, 3))
    colours = np.clip(base + spread * (0.8 * common + 0.5 * own), 0, 255).astype(int)
    radii = _radii(random) * min(size)
    centres = random.uniform(-0.1, 1.1, (_LEAVES, 2)) * size
    kinds = random.integers(0, 3, _LEAVES)
    squeezed = random.uniform(0.4, 1.0, _LEAVES)
    corners = random.integers(3, 7, _LEAVES)
    angles = np.sort(random.uniform(0, 2 * np.pi, (_LEAVES, _CORNERS)), axis=1)
    canvas = Image.new("RGB", size, tuple(np.clip(base, 0, 255).astype(int).tolist()))
    pen = ImageDraw.Draw(canvas)
    for leaf in range(_LEAVES):
        (x, y), radius, fill = centres[leaf], radii[leaf], tuple(colours[leaf].tolist())
        if kinds[leaf] == 0:
            tall = radius * squeezed[leaf]
            pen.ellipse((x - radius, y - tall, x + radius, y + tall), fill=fill)
            continue
        turn = angles[leaf, : corners[leaf]] if kinds[leaf] == 1 else _bar(angles[leaf, 0], squeezed[leaf])
        points = np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], axis=1)
        pen.polygon(list(map(tuple, points.tolist())), fill=fill)
    return canvas


def _radii(random: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Draw radii with a density of r^-3, those of the background first."""
    share = random.uniform(size=_LEAVES)
    radii = (_SMALLEST**-2 - share * (_SMALLEST**-2 - _LARGEST**-2)) ** -0.5
    radii[:_BACKGROUND] = random.uniform(_LARGEST / 2, _LARGEST, _BACKGROUND)
    return radii


def _bar(angle: float, squeezed: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the angles of the corners of a long rectangle."""
    half = 0.35 * (squeezed - 0.35)
    return np.array([angle - half, angle + half, angle + np.pi - half, angle + np.pi + half])
