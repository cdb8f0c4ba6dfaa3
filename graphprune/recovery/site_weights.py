# SPDX-License-Identifier: Apache-2.0
"""Site weights: what is stored at one site, read as matrices and written back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from graphprune.array_types import Array, Floats
from graphprune.recovery.sites import norm_map

if TYPE_CHECKING:
    from graphprune.recovery.editable_model import EditableModel
    from graphprune.recovery.sites import Site

__all__ = ["SiteWeights"]


_DEAD = 1e-6
"""A channel that BatchNormalization scales by less than this share of the largest scale is left alone."""


class SiteWeights:
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

    def write(self, weight: Floats, shift: Floats) -> bool:
        """Write weights and intercept; outputs that nothing is known about keep theirs.

        Parameters
        ----------
        weight : ndarray, shape (groups, columns, outputs / groups)
        shift : ndarray, shape (groups, outputs / groups)

        Returns
        -------
        bool
            Whether they were written: not where any of them is not finite.
        """
        if not (np.isfinite(weight).all() and np.isfinite(shift).all()):
            return False
        groups = len(weight)
        live = self._live.reshape(groups, 1, -1)
        kernel = self._site.kernel
        stored = self._editable.read(kernel.tensor)
        self._editable.write(kernel.tensor, kernel.stored(np.where(live, weight, self.weight)))
        if self.has_intercept:
            self._write_bias(shift, stored.dtype)
        return True

    def _write_bias(self, shift: Floats, dtype: np.dtype[Any]) -> None:
        kernel, node = self._site.kernel, self._site.node
        bias = np.where(self._live, shift.ravel(), self.bias)
        has_own = len(node.proto.input) > 2 and bool(node.proto.input[2])
        affine = self._site.affine
        if node.op_type == "MatMul":
            self._editable.write(self._shift_at, self._editable.read(self._shift_at).astype(np.float64).ravel() + bias)
        elif not has_own and affine is not None and affine.norm is not None and self._shift_at:
            self._editable.write(self._shift_at, self._editable.read(self._shift_at).astype(np.float64) - bias)
        else:
            self._editable.set_bias(node, bias / kernel.bias_scale, dtype)
