# SPDX-License-Identifier: Apache-2.0
"""The blend: leaves, crops and noise, shuffled. What one kind of image lacks, another one has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.data.synthesis.crops import photograph_crops
from graphprune.data.synthesis.leaves import dead_leaves
from graphprune.data.synthesis.pink import pink_noise

if TYPE_CHECKING:
    from graphprune.data.synthesis.pixels import Painter, Pixels

__all__ = ["SHARES", "blend"]

SHARES: tuple[tuple[Painter, int], ...] = ((dead_leaves, 2), (photograph_crops, 2), (pink_noise, 1))
"""Kinds of image, and how many of five they are."""


def blend(random: np.random.Generator, count: int, height: int, width: int) -> Pixels:
    """Make images of all kinds, in random order.

    Parameters
    ----------
    random : numpy.random.Generator
    count, height, width : int

    Returns
    -------
    ndarray of float32, shape (count, height, width, 3), from 0 to 1
    """
    ends = np.round(count * np.cumsum([share for _, share in SHARES]) / sum(share for _, share in SHARES)).astype(int)
    counts = np.diff(ends, prepend=0)
    parts = [paint(random, int(own), height, width) for (paint, _), own in zip(SHARES, counts, strict=True)]
    return np.concatenate(parts)[random.permutation(count)]
