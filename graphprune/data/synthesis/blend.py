# SPDX-License-Identifier: Apache-2.0
"""The blend: leaves, crops and noise. What one kind of image lacks, another one has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.data.synthesis.crops import photograph_crops
from graphprune.data.synthesis.leaves import dead_leaves
from graphprune.data.synthesis.pink import pink_noise

if TYPE_CHECKING:
    from graphprune.data.synthesis.pixels import Painter

__all__ = ["SHARES", "counts_of"]

SHARES: tuple[tuple[Painter, int], ...] = ((dead_leaves, 2), (photograph_crops, 2), (pink_noise, 1))
"""Kinds of image, and how many of five they are."""


def counts_of(count: int) -> tuple[int, ...]:
    """Return how many of so many images are of each kind."""
    shares = np.array([share for _, share in SHARES])
    ends = np.rint(count * np.cumsum(shares) / shares.sum()).astype(np.int64)
    return tuple(np.diff(ends, prepend=0).tolist())
