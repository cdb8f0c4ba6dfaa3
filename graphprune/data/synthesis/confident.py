# SPDX-License-Identifier: Apache-2.0
"""Choosing without statistics: of many made samples, those that a classifier is sure of, and that it tells apart.

Over its training data a classifier is sure of each sample, and names all of its classes. Where a file keeps no
statistics, that is what it still says of its data. So samples are picked one by one, each time the one whose classes
diverge most from the mean of those that were picked before (relative entropy). In sum that is the mutual information
of samples and classes, which is large where single distributions are narrow and their mean is wide.

Source: Salimans et al., Improved Techniques for Training GANs, NIPS 2016, arXiv:1606.03498, section 4, which judges
made images by it (the inception score); choosing by it what a network is calibrated on is ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from graphprune.reproducible import one_blas_thread

if TYPE_CHECKING:
    from graphprune.array_types import Array, Floats, Ints

__all__ = ["choose_confident", "class_shares"]

_STEPS = 1 << 14
"""Shares of classes are whole numbers of steps, so that what decides does not hang on the last digits of a run."""
_CERTAIN = 1e-3
"""By how much shares that are to be probabilities may miss a sum of 1."""
_LEAST = 1e-12


def class_shares(outputs: Array) -> Floats | None:
    """Return how sure a classifier is of each class: its outputs, if these are probabilities, or their softmax.

    Parameters
    ----------
    outputs : ndarray, shape (samples, classes)

    Returns
    -------
    ndarray of float64 or None
        None where they are not finite.
    """
    values = outputs.astype(np.float64)
    if not np.isfinite(values).all():
        return None
    certain = (values >= 0).all() and np.abs(values.sum(axis=1) - 1).max() < _CERTAIN
    shares: Floats = np.rint((values if certain else softmax(values, axis=1)) * _STEPS) / _STEPS
    return shares


@one_blas_thread()
def choose_confident(shares: Floats, count: int) -> Ints:
    """Return which samples to keep, in the order in which they were picked.

    Parameters
    ----------
    shares : ndarray of float64, shape (samples, classes)
        As of :func:`class_shares`.
    count : int
        How many are kept.

    Complexity: O(count * samples * classes).
    """
    sure = (shares * np.log(np.maximum(shares, _LEAST))).sum(axis=1)
    total = np.full(shares.shape[1], 1 / shares.shape[1])
    picked = np.zeros(count, dtype=np.int64)
    for turn in range(count):
        divergence = sure - shares @ np.log(np.maximum(total / (turn + 1), _LEAST))
        divergence[picked[:turn]] = -np.inf
        picked[turn] = at = int(divergence.argmax())
        total += shares[at]
    return picked
