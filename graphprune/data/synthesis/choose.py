# SPDX-License-Identifier: Apache-2.0
"""Choosing: of many made samples, those that together are to the network what its training data was.

Making a sample and looking at it costs one pass of the network. So more are made than are wanted, and those are kept
whose statistics, at every normalisation, add up to what the network remembers: images that are too loud, too grey or
of textures that it never met drop out. No gradient is needed.

The samples are picked one by one, each time the one that brings the mean of all statistics nearest to the remembered
one (herding), and then exchanged one by one as long as that helps.

Source: Welling, Herding Dynamical Weights to Learn, ICML 2009, for the greedy choice; its use here is ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graphprune.array_types import Ints

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.data.statistics import Norm, SampleStatistics

__all__ = ["choose_samples"]

Rows = npt.NDArray[np.float32]


def choose_samples(norms: Sequence[Norm], found: Sequence[SampleStatistics], count: int) -> Ints:
    """Return which samples to keep, in the order in which they were picked.

    Parameters
    ----------
    norms : sequence of Norm
    found : sequence of SampleStatistics
        Of all samples, per normalisation.
    count : int
        How many are kept.

    Complexity: O(count * samples * statistics).
    """
    rows = _differences(norms, found)
    return _exchanged(rows, _herded(rows, count))


def _differences(norms: Sequence[Norm], found: Sequence[SampleStatistics]) -> Rows:
    """Return, per sample, how far each statistic is from what is remembered, every normalisation counting alike."""
    parts = []
    for norm, own in zip(norms, found, strict=True):
        scale, weight = norm.kept.scale, 1 / np.sqrt(len(norm.kept.mean))
        spread = own.squares - 2 * own.means * norm.kept.mean + norm.kept.mean**2 - norm.kept.variance
        parts += [(own.means - norm.kept.mean) / np.sqrt(scale) * weight, spread / (2 * scale) * weight]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _herded(rows: Rows, count: int) -> Ints:
    lengths = np.einsum("nf,nf->n", rows, rows)
    total = np.zeros(rows.shape[1], dtype=np.float32)
    picked = np.zeros(count, dtype=np.int64)
    for turn in range(count):
        at = int((2 * (rows @ total) + lengths).argmin())
        picked[turn] = at
        total += rows[at]
        lengths[at] = np.inf
    return picked


def _exchanged(rows: Rows, picked: Ints) -> Ints:
    """Return the choice after every pick was offered its best replacement once."""
    lengths = np.einsum("nf,nf->n", rows, rows)
    inside = np.zeros(len(rows), dtype=np.bool_)
    inside[picked] = True
    total = rows[picked].sum(axis=0)
    result = picked.copy()
    for turn, at in enumerate(picked.tolist()):
        rest = total - rows[at]
        inside[at] = False
        best = int(np.where(inside, np.inf, 2 * (rows @ rest) + lengths).argmin())
        inside[best] = True
        result[turn], total = best, rest + rows[best]
    return result
