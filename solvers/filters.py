# SPDX-License-Identifier: Apache-2.0
"""Coupled filters: everything that makes an atom as one vector, and how far such vectors are apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graphprune.solvers.criteria._slices import filters

if TYPE_CHECKING:
    import numpy.typing as npt

    from graphprune.analysis.groups import Group, Member
    from graphprune.solvers.criteria import Read

__all__ = ["coupled_filters", "distances_to", "mean_distances", "member_filters", "squared_distances"]

_EXACT_BITS = 51  # float64 holds integers of 53 bits; two are spent on |a|^2 + |b|^2 - 2 ab
_ROWS = 1024  # rows of the distance matrix at a time


def coupled_filters(group: Group, read: Read) -> npt.NDArray[np.float64]:
    """Return the filters that make the atoms of a group, those of all members side by side.

    Each member is divided by the root mean square of its rows' norms, so that every producer weighs the same.
    Where no weight makes the channels, the weights that read them stand in.

    Returns
    -------
    ndarray of float64, shape (size, features)
        No features where no weight makes or reads the channels.

    Notes
    -----
    Source: EPruner (Lin et al., Network Pruning Using Adaptive Exemplar Filters, arXiv:2101.07985) compares the filters
    of a single layer; that the filters of coupled layers are compared together is ours.
    """
    members = filters(group) or [member for member in group.members if member.role == "in"]
    parts = [member_filters(member, read(member.initializer), group.size) for member in members]
    return np.concatenate([np.zeros((group.size, 0)), *parts], axis=1)


def member_filters(member: Member, array: npt.NDArray[Any], size: int) -> npt.NDArray[np.float64]:
    """Return the slices of one member, a row per atom, divided by the root mean square of their norms.

    All slices of an atom are one row; an atom with fewer slices than others has zeros in their place.

    Parameters
    ----------
    member : Member
    array : ndarray of any float type
    size : int
        Atoms of the group.

    Returns
    -------
    ndarray of float64, shape (size, features)
    """
    slices = np.moveaxis(array, member.axis, 0).reshape(array.shape[member.axis], -1)
    order = np.argsort(member.atoms, kind="stable")
    atoms = member.atoms[order]
    count = np.bincount(atoms, minlength=size)
    place = np.arange(len(atoms)) - (np.cumsum(count) - count)[atoms]
    rows = np.zeros((size, int(count.max(initial=0)), slices.shape[1]), dtype=np.float64)
    rows[atoms, place] = slices[member.positions[order]]
    flat: npt.NDArray[np.float64] = rows.reshape(size, -1)
    scale = float(np.sqrt(np.square(flat).sum() / max(size, 1)))
    return flat / scale if scale > 0 else flat


def squared_distances(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the squared Euclidean distances between all pairs of rows.

    Values are rounded to 18 bits or more of the largest one, such that products and sums of them are exact in float64.
    So equal rows are at distance 0 exactly, and results do not depend on the order in which a matrix product adds up,
    that is, on the number of threads.

    Parameters
    ----------
    rows : ndarray of float64, shape (n, features)

    Returns
    -------
    ndarray of float64, shape (n, n)

    Complexity: one matrix product, O(n**2) memory.
    """
    whole, unit = _whole(rows)
    return _between(whole, whole) * unit**2


def distances_to(rows: npt.NDArray[np.float64], one: int) -> npt.NDArray[np.float64]:
    """Return the squared distances of all rows to one of them, shape (n,), as exactly as :func:`squared_distances`."""
    whole, unit = _whole(rows)
    return _between(whole, whole[one : one + 1])[:, 0] * unit**2


def mean_distances(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean distance of each row to all rows, shape (n,), as exactly as :func:`squared_distances`."""
    whole, unit = _whole(rows)
    means = [np.sqrt(_between(whole[at : at + _ROWS], whole)).mean(axis=1) for at in range(0, len(rows), _ROWS)]
    return unit * np.concatenate([np.zeros(0), *means])


def _whole(rows: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    """Return rows as whole numbers, and the value of 1."""
    largest = float(np.abs(rows).max(initial=0.0))
    if largest == 0:
        return np.zeros_like(rows), 1.0
    bits = (_EXACT_BITS - rows.shape[1].bit_length()) // 2
    return np.rint(rows / largest * 2.0**bits), largest / 2.0**bits


def _between(some: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    squares = np.square(some).sum(axis=1)[:, None] + np.square(others).sum(axis=1)
    distances: npt.NDArray[np.float64] = squares - 2.0 * (some @ others.T)
    return distances
