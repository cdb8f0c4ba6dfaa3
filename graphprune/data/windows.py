# SPDX-License-Identifier: Apache-2.0
"""Windows: what a convolution or a matrix product sees at sampled output positions, as rows of a matrix.

At most 64 positions per sample are taken, evenly spread with a random offset: neighbouring positions say
nearly the same, so images count, not rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graphprune.array_types import Array, Ints

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Dense", "Grid", "Window"]


POSITIONS = 64
"""Output positions per sample."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Sampled positions along each axis between the samples and the end, or between channels and the end."""

    axes: tuple[Ints, ...]

    @classmethod
    def draw(cls, sizes: Sequence[int], random: np.random.Generator, positions: int = POSITIONS) -> Grid:
        """Spread at most `positions` positions over axes of these sizes."""
        left, axes = positions, []
        for at, size in enumerate(sizes):
            share = max(1, int(round(left ** (1 / (len(sizes) - at)), 6)))
            count = min(size, share)
            left = max(1, left // count)
            offset = random.random()
            axes.append(np.floor((np.arange(count) + offset) * size / count).astype(np.int64))
        return cls(tuple(axes))


@dataclass(frozen=True)
class Window:
    """The window of a convolution.

    Parameters
    ----------
    kernel, strides, dilations, before : tuple of int
        Per spatial axis; `before` is the padding in front.
    groups : int
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    groups: int = 1

    def inputs(self, x: Array, grid: Grid) -> npt.NDArray[np.float32]:
        """Return what is under the kernel at every position of the grid.

        Parameters
        ----------
        x : ndarray, shape (n, channels, *spatial)

        Returns
        -------
        ndarray of float32, shape (groups, rows, channels / groups * taps)
            The taps of one channel stand together, as in ``weight.reshape(outputs, -1)``.
        """
        taken = x.astype(np.float32, copy=False)
        for axis, positions in enumerate(grid.axes):
            taken = self._under(taken, axis, positions)
        n, channels = taken.shape[:2]
        rank = len(self.kernel)
        counts = [len(positions) for positions in grid.axes]
        split = [size for pair in zip(counts, self.kernel, strict=True) for size in pair]
        taken = taken.reshape(n, self.groups, channels // self.groups, *split)
        positions_at = [3 + 2 * axis for axis in range(rank)]
        taps_at = [4 + 2 * axis for axis in range(rank)]
        rows = taken.transpose(1, 0, *positions_at, 2, *taps_at)
        return np.ascontiguousarray(rows).reshape(self.groups, n * prod(counts), -1)

    def _under(self, x: Array, axis: int, positions: Ints) -> Array:
        """Replace a spatial axis by the taps under the kernel at each position; zeros where it hangs over."""
        taps = np.arange(self.kernel[axis]) * self.dilations[axis] - self.before[axis]
        index = (positions[:, None] * self.strides[axis] + taps).ravel()
        size = x.shape[2 + axis]
        outside = (index < 0) | (index >= size)
        taken: Array = np.take(x, np.clip(index, 0, size - 1), axis=2 + axis)
        if outside.any():
            taken[(slice(None),) * (2 + axis) + (outside,)] = 0
        return taken

    def outputs(self, y: Array, grid: Grid) -> npt.NDArray[np.float32]:
        """Return the outputs at every position, shape (groups, rows, outputs / groups)."""
        taken = y.astype(np.float32, copy=False)
        for axis, positions in enumerate(grid.axes):
            taken = np.take(taken, positions, axis=2 + axis)
        channels = taken.shape[1]
        rows = np.moveaxis(taken, 1, -1).reshape(-1, self.groups, channels // self.groups)
        return np.ascontiguousarray(rows.transpose(1, 0, 2))

    def grid(self, y: Array, random: np.random.Generator, positions: int = POSITIONS) -> Grid:
        """Draw at most `positions` positions of an output."""
        return Grid.draw(y.shape[2:], random, positions)


@dataclass(frozen=True)
class Dense:
    """A matrix product: the last axis is summed over, all others are rows."""

    groups: int = 1

    def inputs(self, x: Array, grid: Grid) -> npt.NDArray[np.float32]:
        """Return sampled rows, shape (1, rows, channels)."""
        taken = x.astype(np.float32, copy=False)
        for axis, positions in enumerate(grid.axes):
            taken = np.take(taken, positions, axis=1 + axis)
        return np.ascontiguousarray(taken).reshape(1, -1, x.shape[-1])

    def outputs(self, y: Array, grid: Grid) -> npt.NDArray[np.float32]:
        """Return the same rows of the output, shape (1, rows, outputs)."""
        return self.inputs(y, grid)

    def grid(self, y: Array, random: np.random.Generator, positions: int = POSITIONS) -> Grid:
        """Draw at most `positions` positions of an output."""
        return Grid.draw(y.shape[1:-1], random, positions)
