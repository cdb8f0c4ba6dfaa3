# SPDX-License-Identifier: Apache-2.0
"""Bundles: the finest parts of what grouped convolutions make that hold equally many outputs of every conv group.

What couples outputs besides the convolutions (a sum, a concatenation, a grouped convolution behind them) leaves parts.
A part with equally many outputs of every group can go by itself. Others go together with parts that make up for what
they lack: the r-th most salient ones of every kind form a bundle, where kinds are told apart by how many outputs of
each group a part holds, and on which axes it lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from graphprune.array_types import Floats, Ints, Mask

__all__ = ["bundle"]


def bundle(counts: Sequence[Ints], signature: npt.NDArray[np.uint64], scores: Floats) -> Ints:
    """Give every part the number of its bundle.

    Parameters
    ----------
    counts : sequence of ndarray of int64, shape (parts, groups)
        For every convolution how many outputs of each of its groups a part holds.
    signature : ndarray of uint64, shape (parts,)
        Equal for parts that lie on the same axes equally often.
    scores : ndarray of float, shape (parts,)
        How salient each part is.

    Returns
    -------
    ndarray of int64, shape (parts,)
        Bundles of one pool are numbered by falling salience.
    """
    found = np.full(len(signature), -1, dtype=np.int64)
    alone = np.logical_and.reduce([(each == each[:, :1]).all(axis=1) for each in counts])
    found[alone] = np.arange(int(alone.sum()))
    used = int(alone.sum())
    kinds = _kinds(counts, signature)
    for pool in _pools(counts, signature, ~alone):
        kind = np.unique(kinds[pool], return_inverse=True)[1]
        number = np.bincount(kind)
        bundles = int(np.gcd.reduce(number))
        order = np.lexsort((-scores[pool], kind))
        place = np.empty_like(order)
        place[order] = np.arange(len(pool)) - (np.cumsum(number) - number)[kind[order]]
        found[pool] = used + place // (number // bundles)[kind]
        used += bundles
    return found


def _kinds(counts: Sequence[Ints], signature: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return a number for each part; equal where parts are of one kind (sums of random numbers, as signatures are)."""
    random = np.random.default_rng(0)
    kinds = signature * random.integers(1, 1 << 62, dtype=np.uint64)
    for each in counts:
        weights = random.integers(1, 1 << 62, each.shape[1], dtype=np.uint64)
        kinds = kinds + (each.astype(np.uint64) * weights).sum(axis=1, dtype=np.uint64)
    return kinds


def _pools(counts: Sequence[Ints], signature: npt.NDArray[np.uint64], left: Mask) -> list[Ints]:
    """Return parts that make up for one another: those of one signature where these do, and all others together."""
    pools: list[Ints] = []
    others: list[Ints] = []
    for value in np.unique(signature[left]):
        own = np.flatnonzero(left & (signature == value))
        total = [each[own].sum(axis=0) for each in counts]
        (pools if all((each == each[0]).all() for each in total) else others).append(own)
    return [*pools, *([np.concatenate(others)] if others else [])]
