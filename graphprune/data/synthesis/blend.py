# SPDX-License-Identifier: Apache-2.0
"""The blend: leaves, crops and noise. What one kind of image lacks, another one has."""

from __future__ import annotations

import numpy as np

from graphprune.data.synthesis.crops import photograph_crops
from graphprune.data.synthesis.leaves import dead_leaves
from graphprune.data.synthesis.pink import pink_noise
from graphprune.data.synthesis.pixels import Painter
from graphprune.data.synthesis.strokes import pen_strokes

__all__ = ["ANOTHER_KIND", "SHARES", "Shares", "counts_of"]

Shares = tuple[tuple[Painter, int], ...]
"""Kinds of image, and the share of each."""
SHARES: Shares = ((dead_leaves, 2), (photograph_crops, 2), (pink_noise, 1))
ANOTHER_KIND: Shares = ((pen_strokes, 1),)
"""By which is judged what came of the others."""


def counts_of(count: int, shares: Shares = SHARES) -> tuple[int, ...]:
    """Return how many of so many images are of each kind."""
    parts = np.array([share for _, share in shares])
    ends = np.rint(count * np.cumsum(parts) / parts.sum()).astype(np.int64)
    return tuple(np.diff(ends, prepend=0).tolist())
