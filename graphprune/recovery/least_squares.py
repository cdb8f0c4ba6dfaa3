# SPDX-License-Identifier: Apache-2.0
"""Least squares: weights with which a node comes closest to its target, given what it reads now.

The ridge pulls towards the present weights, not towards zero: where nothing has changed, nothing changes.

Source: the asymmetric form (targets from the dense network, inputs from the pruned one) follows He et al., Channel
Pruning, ICCV 2017, arXiv:1707.06168, and the affine compensation with its variance rescaling Xie et al., CaP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from graphprune.array_types import Floats

if TYPE_CHECKING:
    from graphprune.data.moments import MomentSummary

__all__ = ["Solver", "intercept", "refit", "rescaled"]


_LARGEST_RIDGE = 1e3


def refit(moments: MomentSummary, weight: Floats, ridge: float) -> Floats:
    """Return ``W + (G + lambda I)^-1 (C - G W)``, lambda = ridge * mean(diag G), per group.

    Parameters
    ----------
    moments : MomentSummary
        G is the covariance of the inputs, C their covariance with the targets.
    weight : ndarray, shape (groups, columns, targets)
        W, the present weights.
    ridge : float
        Relative to the mean variance of the inputs.

    Returns
    -------
    ndarray, shape (groups, columns, targets)

    Complexity: O(columns^3) per group.
    """
    return Solver(moments, ridge).solve(moments.xy, weight)


class Solver:
    """The factored matrix ``G + lambda I`` of each group, for several right-hand sides.

    Parameters
    ----------
    moments : MomentSummary
    ridge : float
        Relative to the mean variance of the inputs.
    """

    def __init__(self, moments: MomentSummary, ridge: float) -> None:
        self._gram = moments.xx
        self._scale = np.trace(self._gram, axis1=1, axis2=2) / self._gram.shape[1]
        self._live = self._scale > 0
        self._ridges = ridge * self._scale
        self._factor = _factored(self._gram[0], float(self._ridges[0])) if len(self._gram) == 1 else None

    def solve(self, xy: Floats, weight: Floats) -> Floats:
        """Return ``W + (G + lambda I)^-1 (C - G W)`` for covariances C, shape (groups, columns, targets)."""
        residual = xy - self._gram @ weight
        result = weight.copy()
        if len(weight) > 1:  # many small systems, as of a depthwise convolution
            ridges = self._ridges[self._live, None, None] * np.eye(self._gram.shape[1])
            result[self._live] += np.linalg.solve(self._gram[self._live] + ridges, residual[self._live])
        elif self._factor is not None:
            result[0] += cho_solve(self._factor, residual[0], check_finite=False)
        return result


def _factored(gram: Floats, ridge: float) -> tuple[Floats, bool] | None:
    """Factor a symmetric matrix; where rounding leaves it indefinite, with a larger ridge. None where it is zero."""
    largest = ridge * _LARGEST_RIDGE
    while 0 < ridge <= largest:
        try:
            factor, lower = cho_factor(gram + ridge * np.eye(len(gram)), lower=True, check_finite=False)
        except LinAlgError:
            ridge *= 10
        else:
            return factor, bool(lower)
    return None


def intercept(moments: MomentSummary, weight: Floats) -> Floats:
    """Return the best intercept for given weights, shape (groups, targets)."""
    result: Floats = moments.y_mean - np.einsum("gd,gdo->go", moments.x_mean, weight)
    return result


def rescaled(moments: MomentSummary, weight: Floats) -> Floats:
    """Scale each output so that its variance is that of its target; least squares alone makes it smaller."""
    variance = np.einsum("gdo,gdo->go", moments.xx @ weight, weight)
    wanted = np.divide(moments.yy, variance, out=np.ones_like(variance), where=variance > 1e-12 * (moments.yy + 1e-30))
    factor: Floats = np.clip(np.sqrt(wanted), 0.25, 4.0)
    return weight * factor[:, None, :]
