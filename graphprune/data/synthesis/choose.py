# SPDX-License-Identifier: Apache-2.0
"""Choosing: of many made samples, those that together are to the network what its training data was.

Making a sample and looking at it costs one pass of the network. So more are made than are wanted, and those are kept
whose statistics, at every normalisation, add up to what the network remembers: images that are too loud, too grey or
of textures that it never met drop out. No gradient is needed.

The samples are picked one by one, each time the one that brings the mean of all statistics nearest to the remembered
one (herding), and then exchanged one by one, in one pass, where that helps.

Source: Welling, Herding Dynamical Weights to Learn, ICML 2009, for the greedy choice; its use here is ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.array_types import Floats, Ints
from graphprune.reproducible import one_blas_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.data.statistics import RememberedNorm, SampleStatistics

__all__ = ["choose_samples"]

_STEPS = 1 << 14
_MOST = 1 << 18
"""Differences are whole numbers of steps up to here: sums of their products are exact, in whichever order."""


@one_blas_thread()
def choose_samples(norms: Sequence[RememberedNorm], statistics: Sequence[SampleStatistics], count: int) -> Ints:
    """Return which samples to keep, in the order in which they were picked.

    Parameters
    ----------
    norms : sequence of RememberedNorm
    statistics : sequence of SampleStatistics
        Of all samples, per normalisation.
    count : int
        How many are kept.

    Complexity: O(samples^2 * statistics).
    """
    rows = _differences(norms, statistics)
    products: Floats = rows @ rows.T
    return _exchanged(products, _herded(products, count))


def _differences(norms: Sequence[RememberedNorm], statistics: Sequence[SampleStatistics]) -> Floats:
    """Return, per sample, how far each statistic is from what is remembered, every normalisation counting alike."""
    parts = []
    for norm, own in zip(norms, statistics, strict=True):
        scale, weight = norm.kept.scale, 1 / np.sqrt(len(norm.kept.mean))
        spread = own.squares - 2 * own.means * norm.kept.mean + norm.kept.mean**2 - norm.kept.variance
        parts += [(own.means - norm.kept.mean) / np.sqrt(scale) * weight, spread / (2 * scale) * weight]
    whole = np.rint(np.concatenate(parts, axis=1) * _STEPS)
    result: Floats = np.clip(whole, -_MOST, _MOST)
    return result


def _herded(products: Floats, count: int) -> Ints:
    """Return samples picked one by one; `products` are the inner products of all differences."""
    lengths = np.diagonal(products).copy()
    with_sum = np.zeros(len(products))
    picked = np.zeros(count, dtype=np.int64)
    for turn in range(count):
        at = int((2 * with_sum + lengths).argmin())
        picked[turn] = at
        with_sum += products[at]
        lengths[at] = np.inf
    return picked


def _exchanged(products: Floats, picked: Ints) -> Ints:
    """Return the choice after every pick was offered its best replacement once."""
    lengths = np.diagonal(products).copy()
    lengths[picked] = np.inf
    with_sum = products[picked].sum(axis=0)
    result = picked.copy()
    for turn, at in enumerate(picked.tolist()):
        with_sum -= products[at]
        lengths[at] = products[at, at]
        best = int((2 * with_sum + lengths).argmin())
        with_sum += products[best]
        lengths[best] = np.inf
        result[turn] = best
    return result
