# SPDX-License-Identifier: Apache-2.0
"""Slices: sums over the tensor slices that belong to each atom of a member."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from graphprune.analysis.groups import Group, Member
    from graphprune.solvers.criteria import Aggregate, Read

__all__ = ["SliceSums", "aggregated", "atom_mean", "atom_sum", "filters"]

_DEPTHWISE = frozenset({("Conv", 1), ("ConvTranspose", 1), ("ConvInteger", 1), ("QLinearConv", 3)})
"""Operators with the input that is their weight."""

_CHUNK = 1 << 15  # elements converted to float64 at a time: 256 KiB, which stays in the processor's cache


def filters(group: Group) -> list[Member]:
    """Return the members that make the channels of a group: filter rows, and depthwise filters."""
    return [member for member in group.members if member.role == "out" or _is_depthwise(member)]


def _is_depthwise(member: Member) -> bool:
    return member.role == "per_channel" and (member.op, member.slot) in _DEPTHWISE


def atom_sum(member: Member, along_axis: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    """Add up values along the member's axis, shape (axis,), to the atoms they belong to, shape (size,)."""
    sums = np.bincount(member.atoms, weights=along_axis[member.positions], minlength=size)
    return sums.astype(np.float64, copy=False)


def atom_mean(member: Member, along_axis: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    """Average values along the member's axis over each atom, shape (size,); 0 for atoms it has no slice of."""
    count = np.bincount(member.atoms, minlength=size)
    return atom_sum(member, along_axis, size) / np.maximum(count, 1)


def aggregated(per_member: Sequence[npt.NDArray[np.float64]], how: Aggregate) -> npt.NDArray[np.float64]:
    """Return one score per atom from those of the members of a group, each of shape (size,).

    Parameters
    ----------
    per_member : sequence of ndarray, at least one
    how : {"sum", "mean", "max", "first"}
        "first" takes the first member in graph order alone.
    """
    if how == "first":
        return per_member[0]
    stacked = np.stack(per_member)
    result: npt.NDArray[np.float64]
    result = stacked.max(axis=0) if how == "max" else stacked.mean(axis=0) if how == "mean" else stacked.sum(axis=0)
    return result


class SliceSums:
    """Sums over the slices of tensors along one axis, each computed once.

    Parameters
    ----------
    read : callable
        Gives a tensor by name.
    measure : numpy.ufunc
        Applied to each element before summing: ``np.abs`` or ``np.square``.
    """

    def __init__(self, read: Read, measure: np.ufunc) -> None:
        self._read = read
        self._measure = measure
        self._known: dict[tuple[str, int], npt.NDArray[np.float64]] = {}

    def of(self, member: Member) -> npt.NDArray[np.float64]:
        """Return the sum over each slice along the member's axis, shape (axis,)."""
        key = (member.initializer, member.axis)
        if key not in self._known:
            self._known[key] = sum_slices(self._read(member.initializer), member.axis, self._measure)
        return self._known[key]

    def weighted(self, member: Member, weight_axis: int, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the same sums with each element weighted by its place along another axis, shape (axis,)."""
        array = self._read(member.initializer)
        shape = [1] * array.ndim
        shape[weight_axis] = -1
        return sum_slices(array, member.axis, self._measure, weights.reshape(shape))


def sum_slices(
    array: npt.NDArray[Any], axis: int, measure: np.ufunc, weights: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.float64]:
    """Return ``(weights * measure(array)).sum()`` over each slice along `axis`, in float64.

    The array may be of any float type and memory-mapped: it is read once, and converted in pieces.

    Parameters
    ----------
    array : ndarray of at least one axis
    axis : int
    measure : numpy.ufunc
    weights : ndarray of the same number of axes, broadcastable to `array`, optional

    Returns
    -------
    ndarray of float64, shape (array.shape[axis],)
    """
    sums = np.zeros(array.shape[axis], dtype=np.float64)
    others = tuple(other for other in range(array.ndim) if other != axis % array.ndim)
    rows = max(1, _CHUNK * array.shape[0] // max(array.size, 1))
    for start in range(0, array.shape[0], rows):
        stop = start + rows
        piece = array[start:stop].astype(np.float64)
        measure(piece, out=piece)
        if weights is not None:
            piece *= weights if weights.shape[0] == 1 else weights[start:stop]
        part = piece.sum(axis=others)
        if axis % array.ndim == 0:
            sums[start:stop] = part
        else:
            sums += part
    return sums
