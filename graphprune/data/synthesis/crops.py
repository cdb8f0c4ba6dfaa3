# SPDX-License-Identifier: Apache-2.0
"""Crops: pieces of the two photographs that scikit-learn ships, at all scales, in other colours and turned.

The photographs (a palace and a flower, both CC-BY, by Hui-Yu Liao and dany13) lie in the installed package; none of
their pixels is copied into this one.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from graphprune.errors import DataError

if TYPE_CHECKING:
    from graphprune.data.synthesis.pixels import Pixels

__all__ = ["photograph_crops"]

_SCALES = 0.08, 0.95
"""Sides of a crop, as a share of the photograph's shorter side."""
_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def photograph_crops(random: np.random.Generator, count: int, height: int, width: int) -> Pixels:
    """Cut images out of photographs.

    Parameters
    ----------
    random : numpy.random.Generator
    count, height, width : int

    Returns
    -------
    ndarray of float32, shape (count, height, width, 3), from 0 to 1

    Complexity: O(count * pixels of a crop).
    """
    photographs = _photographs()
    images = np.empty((count, height, width, 3), dtype=np.float32)
    scales = np.exp(random.uniform(np.log(_SCALES[0]), np.log(_SCALES[1]), count))
    places = random.uniform(size=(count, 2))
    chosen = random.integers(0, len(photographs), count)
    turns, flips = random.integers(0, 4, count), random.integers(0, 2, count)
    permutations = random.permuted(np.tile(np.arange(3), (count, 1)), axis=1)
    for at in range(count):
        turned = turns[at] % 2 == 1
        size = (height, width) if turned else (width, height)
        piece = np.asarray(_crop(photographs[chosen[at]], size, scales[at], places[at]), dtype=np.float32)
        piece = np.rot90(piece, turns[at])[:, :: 1 - 2 * int(flips[at])]
        images[at] = piece[:, :, permutations[at]]
    return _recoloured(random, images * np.float32(1 / 255))


def _photographs() -> list[Image.Image]:
    """Read the photographs where scikit-learn keeps them: importing it takes seconds, and nothing of it is needed."""
    spec = find_spec("sklearn")
    folder = Path(spec.origin if spec is not None and spec.origin else "").parent / "datasets" / "images"
    paths = sorted(folder.glob("*.jpg"))
    if not paths:
        raise DataError(
            "the photographs of scikit-learn, of which images are made, are not installed",
            hint="pip install scikit-learn, or give samples of your own",
        )
    return [Image.open(path).convert("RGB") for path in paths]


def _crop(
    photograph: Image.Image,
    size: tuple[int, int],
    scale: float,
    place: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> Image.Image:
    """Cut a piece out of a photograph and bring it to a size of (width, height)."""
    width, height = size
    unit = min(photograph.width / width, photograph.height / height)
    wide, tall = unit * scale * width, unit * scale * height
    left, top = place[0] * (photograph.width - wide), place[1] * (photograph.height - tall)
    return photograph.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + wide, top + tall), reducing_gap=2)


def _recoloured(random: np.random.Generator, images: Pixels) -> Pixels:
    """Change brightness, contrast and saturation of every image."""
    shape = (len(images), 1, 1, 1)
    saturation, contrast = (random.uniform(*span, shape).astype(np.float32) for span in ((0.3, 1.3), (0.5, 1.5)))
    brightness = random.uniform(-0.2, 0.2, shape).astype(np.float32)
    grey = (images @ _GREY)[..., None]
    coloured = grey + saturation * (images - grey)
    mean = coloured.mean(axis=(1, 2, 3), keepdims=True)
    result: Pixels = np.clip(mean + contrast * (coloured - mean) + brightness, 0, 1)
    return result
