# SPDX-License-Identifier: Apache-2.0
"""Updates: what recovery writes at one site, by method."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graphprune.array_types import Array, Floats
from graphprune.recovery.gated import GatedRows, refit_gated
from graphprune.recovery.least_squares import intercept, refit, rescaled
from graphprune.recovery.sites import norm_map

if TYPE_CHECKING:
    from collections.abc import Iterable

    from graphprune.data.moments import MomentSummary
    from graphprune.recovery.editable_model import EditableModel
    from graphprune.recovery.sites import Norm, Site

__all__ = ["Update", "refit_gated_site", "refit_site", "rescale_site", "shift_site", "uncentred", "update_norm"]


_DEAD = 1e-6
"""A channel that BatchNormalization scales by less than this share of the largest scale is left alone."""
_STRETCH = 4.0
"""A channel's deviation is scaled by this factor at most, up or down."""


class Update:
    """Reads and writes the weights of one site.

    Attributes
    ----------
    weight : ndarray, shape (groups, columns, outputs / groups)
        The present weights.
    """

    def __init__(self, editable: EditableModel, site: Site) -> None:
        self._editable = editable
        self._site = site
        self.weight: Floats = site.kernel.matrix(editable.read(site.kernel.tensor))
        self._scale, self._shift = self._affine() if site.other else self._identity()
        largest = float(np.abs(self._scale).max(initial=0.0))
        self._live = np.abs(self._scale) > _DEAD * largest

    def _affine(self) -> tuple[Floats, Floats]:
        """Return scale and shift of what follows the node's output."""
        affine = self._site.affine
        if affine is None:
            return self._identity()
        if affine.norm is None:
            return np.ones(self._site.kernel.outputs), self._editable.read(affine.shift_at).astype(np.float64).ravel()
        return norm_map(self._editable, affine.norm)

    def _identity(self) -> tuple[Floats, Floats]:
        outputs = self._site.kernel.outputs
        return np.ones(outputs), np.zeros(outputs)

    @property
    def sign(self) -> npt.NDArray[np.float32]:
        """Whether what follows keeps the sign of an output, shape (groups, 1, outputs / groups)."""
        scale = self._affine()[0]
        return np.where(scale < 0, -1, 1).astype(np.float32).reshape(len(self.weight), 1, -1)

    def threshold(self, bound: float, other: Array | None, like: Array) -> Array:
        """Return the value of each output of the node at which what follows is at a bound, in the shape of `like`."""
        scale, shift = self._affine()
        shape = [1] * like.ndim
        shape[1 if self._site.node.op_type == "Conv" else -1] = -1
        divisor = np.where(np.abs(scale) > 0, scale, 1.0).astype(np.float32).reshape(shape)
        added = shift.astype(np.float32).reshape(shape) + (0 if other is None else other)
        return np.broadcast_to((np.float32(bound) - added) / divisor, like.shape)

    def target(self, dense: Array, other: Array | None) -> Array:
        """Return what the node itself should give.

        Parameters
        ----------
        dense : ndarray
            The target value of the dense network, of which the kept slices.
        other : ndarray, optional
            What the pruned network adds to the node's output.
        """
        if other is None:
            return dense
        shape = [1] * dense.ndim
        shape[1 if self._site.node.op_type == "Conv" else -1] = -1
        scale = np.where(self._live, self._scale, 1.0).astype(np.float32)
        result: Array = (dense - other - self._shift.astype(np.float32).reshape(shape)) / scale.reshape(shape)
        return result

    @property
    def has_intercept(self) -> bool:
        """Whether there is a place for one."""
        return self._site.node.op_type != "MatMul" or self._shift_at != ""

    @property
    def _shift_at(self) -> str:
        return self._site.affine.shift_at if self._site.affine else ""

    @property
    def bias(self) -> Floats:
        """The present intercept, shape (outputs,)."""
        inputs = self._site.node.proto.input
        outputs = self._site.kernel.outputs
        if self._site.node.op_type == "MatMul" or len(inputs) < 3 or not inputs[2]:
            return np.zeros(outputs)
        stored = self._editable.stored(inputs[2])
        if stored is None or int(np.prod(stored.dims)) != outputs:
            return np.zeros(outputs)
        return self._editable.read(inputs[2]).astype(np.float64).ravel() * self._site.kernel.bias_scale

    def apply(self, weight: Floats, shift: Floats) -> None:
        """Write weights and intercept; outputs that nothing is known about keep theirs.

        Parameters
        ----------
        weight : ndarray, shape (groups, columns, outputs / groups)
        shift : ndarray, shape (groups, outputs / groups)
        """
        groups = len(weight)
        live = self._live.reshape(groups, 1, -1)
        kernel, node = self._site.kernel, self._site.node
        stored = self._editable.read(kernel.tensor)
        self._editable.write(kernel.tensor, kernel.stored(np.where(live, weight, self.weight)))
        if not self.has_intercept:
            return
        bias = np.where(self._live, shift.ravel(), self.bias)
        has_own = len(node.proto.input) > 2 and bool(node.proto.input[2])
        affine = self._site.affine
        if node.op_type == "MatMul":
            self._editable.write(self._shift_at, self._editable.read(self._shift_at).astype(np.float64).ravel() + bias)
        elif not has_own and affine is not None and affine.norm is not None and self._shift_at:
            self._editable.write(self._shift_at, self._editable.read(self._shift_at).astype(np.float64) - bias)
        else:
            self._editable.set_bias(node, bias / kernel.bias_scale, stored.dtype)


def refit_gated_site(update: Update, moments: MomentSummary, ridge: float, rows: GatedRows, rounds: int) -> bool:
    """Write the weights that are best behind the ReLU; return whether that could be done."""
    return _write(update, *refit_gated(moments, update.weight, ridge, rows, rounds))


def refit_site(update: Update, moments: MomentSummary, ridge: float, *, rescale: bool) -> bool:
    """Write the least squares weights; return whether that could be done."""
    if not update.has_intercept:
        moments = uncentred(moments)
    weight = refit(moments, update.weight, ridge)
    if rescale:
        weight = rescaled(moments, weight)
    shift = intercept(moments, weight)
    return _write(update, weight, shift)


def shift_site(update: Update, moments: MomentSummary) -> bool:
    """Write the intercept that gives each output the mean of its target; x are the outputs without one."""
    if not update.has_intercept:
        return False
    return _write(update, update.weight, moments.y_mean - moments.x_mean)


def rescale_site(update: Update, moments: MomentSummary) -> bool:
    """Give each output the mean and deviation of its target; x are the outputs without an intercept.

    The same as estimating anew a BatchNormalization that was folded into the weights.
    """
    if not update.has_intercept:
        return False
    variance = np.maximum(np.diagonal(moments.xx, axis1=1, axis2=2), 1e-24)
    factor = np.where(moments.yy > 0, np.sqrt(moments.yy / variance), 1.0)
    factor = np.clip(factor, 1 / _STRETCH, _STRETCH)
    return _write(update, update.weight * factor[:, None, :], moments.y_mean - factor * moments.x_mean)


def _write(update: Update, weight: Floats, shift: Floats) -> bool:
    if not (np.isfinite(weight).all() and np.isfinite(shift).all()):
        return False
    update.apply(weight, shift)
    return True


def uncentred(moments: MomentSummary) -> MomentSummary:
    """Return moments around zero, for a node without an intercept."""
    x, y = moments.x_mean, moments.y_mean
    return replace(
        moments,
        xx=moments.xx + x[:, :, None] * x[:, None, :],
        xy=moments.xy + x[:, :, None] * y[:, None, :],
        yy=moments.yy + y**2,
    )


def update_norm(editable: EditableModel, norm: Norm, values: Iterable[Array]) -> bool:
    """Estimate the statistics of a `BatchNormalization` from its inputs, each of shape (n, channels, ...)."""
    count, total, square = 0, np.zeros(1), np.zeros(1)
    shift: Floats | None = None
    for value in values:
        rows = np.moveaxis(value, 1, 0).reshape(value.shape[1], -1).astype(np.float64)
        shift = rows.mean(axis=1, keepdims=True) if shift is None else shift
        rows -= shift
        count, total, square = count + rows.shape[1], total + rows.sum(axis=1), square + np.square(rows).sum(axis=1)
    if shift is None or not count:
        return False
    mean = total / count
    variance = np.maximum(square / count - mean**2, 0.0)
    mean = mean + shift[:, 0]
    if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
        return False
    editable.write(norm.mean, mean)
    editable.write(norm.variance, variance)
    return True
