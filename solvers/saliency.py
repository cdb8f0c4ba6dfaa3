# SPDX-License-Identifier: Apache-2.0
"""Saliency: how much each atom matters, what that says of its group, and which atoms it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphprune.errors import InternalError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Scores", "importance", "select"]


@dataclass(frozen=True, eq=False)
class Scores:
    """What a criterion found.

    Attributes
    ----------
    per_group : tuple of ndarray of float64
        Per group, shape (size,): the saliency of each atom, higher is more important.
    source : tuple of str
        Per group, what was read: "BatchNormalization scale".
    """

    per_group: tuple[npt.NDArray[np.float64], ...]
    source: tuple[str, ...]


def importance(scores: Scores) -> npt.NDArray[np.float64]:
    """Return the importance of each group for the choice of widths: the mean saliency of its atoms.

    Values that are not finite are left out; a group without a finite value gets 0.

    Returns
    -------
    ndarray of float64, shape (groups,)

    Notes
    -----
    Source: AdaPruner takes the mean of the BatchNormalization scaling parameters of a block.
    """
    return np.array([_finite_mean(values) for values in scores.per_group], dtype=np.float64)


def select(scores: npt.NDArray[np.float64], width: int) -> npt.NDArray[np.int64]:
    """Return the indices of the `width` most salient atoms, ascending.

    Of atoms with equal saliency those with the lower index stay. NaN ranks below everything.

    Parameters
    ----------
    scores : ndarray, shape (size,)
    width : int, 0 <= width <= size

    Returns
    -------
    ndarray of int64, shape (width,), strictly increasing

    Raises
    ------
    InternalError
        When `width` is not within 0 and size.
    """
    if not 0 <= width <= len(scores):
        raise InternalError(f"cannot select {width} of {len(scores)} atoms")
    descending = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")  # NaN sorts last
    return np.sort(descending[:width]).astype(np.int64)


def _finite_mean(values: npt.NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else 0.0
