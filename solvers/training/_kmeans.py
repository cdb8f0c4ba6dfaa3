# SPDX-License-Identifier: Apache-2.0
"""Clusters of a given number: which channels of a group are to become one."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from graphprune.array_types import Ints


__all__ = ["even", "kmeans"]

_STARTS = 10


def kmeans(rows: npt.NDArray[np.float64], count: int, seed: int = 0) -> Ints:
    """Return the cluster of each row, of exactly `count` clusters.

    They are numbered by their first member. Where there are fewer different rows than clusters, members of the largest
    clusters stand alone.

    Parameters
    ----------
    rows : ndarray of float64, shape (size, features)
    count : int
        ``1 <= count <= size``.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    if count == len(rows):
        return np.arange(count, dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different rows than clusters
        clusters = KMeans(count, n_init=_STARTS, random_state=seed).fit(rows).labels_.astype(np.int64)
    return _numbered(_filled(clusters, count))


def even(size: int, count: int) -> Ints:
    """Return clusters of neighbours, of about equal size."""
    return np.arange(size, dtype=np.int64) * count // size


def _filled(clusters: Ints, count: int) -> Ints:
    """Give every cluster a member: the last ones of the largest clusters."""
    clusters = clusters.copy()
    for empty in np.setdiff1d(np.arange(count), clusters).tolist():
        largest = int(np.bincount(clusters, minlength=count).argmax())
        clusters[np.flatnonzero(clusters == largest)[-1]] = empty
    return clusters


def _numbered(clusters: Ints) -> Ints:
    """Return the same clusters, numbered by their first member."""
    _, first, inverse = np.unique(clusters, return_index=True, return_inverse=True)
    place = np.empty(len(first), dtype=np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    return place[inverse]
