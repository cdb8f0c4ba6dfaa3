# SPDX-License-Identifier: Apache-2.0
"""Clustering: which filters of a group stand for the others, by affinity propagation."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from graphprune.solvers.filters import distances_to, squared_distances

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Exemplars", "in_parts"]

_PART = 2048  # atoms that are clustered together: each of five matrices of that size takes 32 MiB
_PATIENT = (0.9, 1000)  # damping and iterations of the second attempt
_ITERATIONS = 200
_WORK = 5 * 10**8  # iterations times similarities, at most, of the second attempt


class Exemplars:
    """Finds the exemplars of a group: filters that are chosen to represent those near them.

    The similarity of two filters is their negative squared distance, and a filter's preference for being an exemplar
    `beta` times the median of its similarities, its own 0 among them. So a larger `beta` gives fewer exemplars: all
    filters for 0, one for a large one. In between the number falls, but not strictly: messages are passed, and nothing
    is optimised exactly.

    Where more than half of a filter's similarities are 0, those to its duplicates, their mean takes the place of the
    median, since no multiple of 0 could be preferred less. A group of more than 2048 filters is divided into parts of
    about equal size, neighbours together, which are clustered one by one.

    Parameters
    ----------
    rows : ndarray of float64, shape (size, features)
        The filters.
    seed : int
        For the noise, in the last digit, that breaks ties between equal filters.

    Notes
    -----
    Source: Lin et al., Network Pruning Using Adaptive Exemplar Filters, arXiv:2101.07985, for similarities and
    preferences; Frey and Dueck, Clustering by Passing Messages Between Data Points, Science 315, 2007, for the
    clustering, in scikit-learn's implementation. Parts and the mean for duplicates are ours.
    """

    def __init__(self, rows: npt.NDArray[np.float64], seed: int) -> None:
        self._seed = seed
        self._parts = in_parts(rows, _PART)
        self._similarities = [-squared_distances(rows[part]) for part in self._parts]

    def at(self, beta: float) -> tuple[npt.NDArray[np.int64], bool]:
        """Return the indices of the exemplars, ascending, and whether the clustering converged.

        One that does not converge is tried again with more damping and more iterations, up to 1000, fewer in large
        groups.
        """
        exemplars, converged = [], True
        for part, similarity in zip(self._parts, self._similarities, strict=True):
            centres, settled = _cluster(similarity, beta, self._seed)
            exemplars.append(part[centres])
            converged &= settled
        return np.sort(np.concatenate(exemplars)), converged


def in_parts(rows: npt.NDArray[np.float64], most: int) -> list[npt.NDArray[np.int64]]:
    """Divide rows into parts of at most `most`, neighbours together; each part is an ascending array of indices.

    Rows are ordered by how much nearer they are to one of two distant rows than to the other, and the order is cut into
    pieces of about equal length.
    """
    count = len(rows)
    if count <= most:
        return [np.arange(count)]
    one = int(np.argmax(distances_to(rows, 0)))
    other = int(np.argmax(distances_to(rows, one)))
    order = np.argsort(distances_to(rows, one) - distances_to(rows, other), kind="stable")
    return [np.sort(part) for part in np.array_split(order, -(-count // most))]


def _cluster(similarity: npt.NDArray[np.float64], beta: float, seed: int) -> tuple[npt.NDArray[np.int64], bool]:
    """Return the indices of the exemplars, and whether the clustering converged, shape (k,)."""
    if not similarity.any():  # equal filters, or a single one
        return np.zeros(1, dtype=np.int64), True
    median = np.median(similarity, axis=0)
    preference = beta * np.where(median < 0, median, similarity.mean(axis=0))
    centres, converged = _propagate(similarity, preference, 0.5, _ITERATIONS, seed)
    if not converged:
        damping, iterations = _PATIENT
        iterations = max(_ITERATIONS, min(iterations, _WORK // similarity.size))
        centres, converged = _propagate(similarity, preference, damping, iterations, seed)
    return centres, converged


def _propagate(
    similarity: npt.NDArray[np.float64],
    preference: npt.NDArray[np.float64],
    damping: float,
    iterations: int,
    seed: int,
) -> tuple[npt.NDArray[np.int64], bool]:
    from sklearn.cluster import affinity_propagation
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        centres, _ = affinity_propagation(
            similarity, preference=preference, damping=damping, max_iter=iterations, copy=True, random_state=seed
        )
    converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    return np.asarray(centres, dtype=np.int64), converged
