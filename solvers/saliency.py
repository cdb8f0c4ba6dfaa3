# SPDX-License-Identifier: Apache-2.0
"""Saliency: how much each atom matters, what that says of its group, and which atoms it keeps.

Criteria rank the atoms of one group. Before atoms of different groups compete, their scores are brought to one scale:
the filters of one layer may be a hundred times as large as those of another, and no less replaceable.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from graphprune.errors import InternalError
from graphprune.solvers.registry import one_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from graphprune.solvers.problem import Problem

__all__ = ["Scores", "comparable", "importance", "kept_saliency", "normalized", "select"]

_NORMALIZATIONS = ("auto", "mean", "l2", "none")


@dataclass(frozen=True, eq=False)
class Scores:
    """What a criterion found.

    Attributes
    ----------
    per_group : tuple of ndarray of float64
        Per group, shape (size,): the saliency of each atom, higher is more important.
    source : tuple of str
        Per group, what was read: "BatchNormalization scale".
    comparable : bool
        Whether scores of different groups may be compared as they are.
    """

    per_group: tuple[npt.NDArray[np.float64], ...]
    source: tuple[str, ...]
    comparable: bool = False


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


def comparable(problem: Problem, normalize: str = "auto") -> Problem:
    """Return the problem with finite scores, on one scale for all groups.

    The order of atoms within a group stays, and so does the importance of groups.

    Parameters
    ----------
    problem : Problem
    normalize : {"auto", "mean", "l2", "none"}
        What the scores of a group are divided by: their mean, their L2 norm, or nothing. "auto" is the mean, and
        nothing where the criterion made its scores for comparing.

    Raises
    ------
    UsageError
        For any other `normalize`.
    """
    one_of("normalize", normalize, _NORMALIZATIONS)
    if normalize == "auto":
        normalize = "none" if problem.comparable else "mean"
    return replace(problem, scores=tuple(normalized(scores, normalize) for scores in problem.scores), comparable=True)


def normalized(scores: npt.NDArray[np.float64], how: str) -> npt.NDArray[np.float64]:
    """Return the scores of one group divided by their "mean", their "l2" norm, or 1 ("none").

    A score that is not finite counts as 0; a group without positive mean is divided by 1.

    Notes
    -----
    Source: the mean is the default of Torch-Pruning; the L2 norm over a layer is that of Molchanov et al., Pruning
    Convolutional Neural Networks for Resource Efficient Inference, ICLR 2017, arXiv:1611.06440.

    Examples
    --------
    >>> normalized(np.array([1.0, 2.0, 3.0]), "mean").tolist()
    [0.5, 1.0, 1.5]
    """
    known = np.where(np.isfinite(scores), scores, 0.0)
    if how == "none" or not known.size:
        return known
    by = float(known.mean()) if how == "mean" else float(np.sqrt(np.square(known).sum()))
    return known / by if by > 0 else known


def kept_saliency(problem: Problem, widths: npt.NDArray[np.int64]) -> float:
    """Return the sum of the scores that stay if each group keeps its `widths` most salient atoms.

    Meant for the scores of :func:`comparable`.
    """
    return float(sum(-np.sort(-scores)[:width].sum() for scores, width in zip(problem.scores, widths, strict=True)))


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
