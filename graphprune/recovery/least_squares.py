# SPDX-License-Identifier: Apache-2.0
"""Least squares: weights with which a node comes closest to its target, given what it reads now.

The ridge pulls towards the present weights, not towards zero: where nothing has changed, nothing changes.

Source: the asymmetric form (targets from the dense network, inputs from the pruned one) follows He et al., Channel
Pruning, ICCV 2017, arXiv:1707.06168, and the affine compensation with its variance rescaling Xie et al., CaP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_factor, cho_solve

if TYPE_CHECKING:
    from graphprune.calibrate.moments import Summary

__all__ = ["intercept", "refit", "rescaled"]

Floats = npt.NDArray[np.float64]

_LARGEST_RIDGE = 1e3


def refit(moments: Summary, weight: Floats, ridge: float) -> Floats:
    """Return ``W + (G + lambda I)^-1 (C - G W)``, lambda = ridge * mean(diag G), per group.

    Parameters
    ----------
    moments : Summary
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
    residual = moments.xy - moments.xx @ weight
    scale = np.trace(moments.xx, axis1=1, axis2=2) / moments.xx.shape[1]
    result = weight.copy()
    if len(weight) > 1:  # many small systems, as of a depthwise convolution
        live = scale > 0
        ridges = ridge * scale[live, None, None] * np.eye(moments.xx.shape[1])
        result[live] += np.linalg.solve(moments.xx[live] + ridges, residual[live])
        return result
    if scale[0] > 0:
        result[0] += _solved(moments.xx[0], residual[0], ridge * float(scale[0]))
    return result


def _solved(gram: Floats, right: Floats, ridge: float) -> Floats:
    """Solve a symmetric system; where rounding leaves it indefinite, with a larger ridge."""
    size, largest = len(gram), ridge * _LARGEST_RIDGE
    while True:
        try:
            factor = cho_factor(gram + ridge * np.eye(size), lower=True, check_finite=False)
        except LinAlgError:
            if ridge >= largest:
                return np.zeros_like(right)
            ridge *= 10
            continue
        solution: Floats = cho_solve(factor, right, check_finite=False)
        return solution


def intercept(moments: Summary, weight: Floats) -> Floats:
    """Return the best intercept for given weights, shape (groups, targets)."""
    result: Floats = moments.y_mean - np.einsum("gd,gdo->go", moments.x_mean, weight)
    return result


def rescaled(moments: Summary, weight: Floats) -> Floats:
    """Scale each output so that its variance is that of its target; least squares alone makes it smaller."""
    variance = np.einsum("gdo,gdo->go", moments.xx @ weight, weight)
    wanted = np.divide(moments.yy, variance, out=np.ones_like(variance), where=variance > 1e-12 * (moments.yy + 1e-30))
    factor: Floats = np.clip(np.sqrt(wanted), 0.25, 4.0)
    return weight * factor[:, None, :]
