# SPDX-License-Identifier: Apache-2.0
"""Label vectors: one integer per slice along one axis, stored compressed.

A vector is ``tile(repeat(base, repeat), tile)``. Read with a flat index ``f``, its label is
``base[(f // repeat) % len(base)]``: a *digit* of ``f`` with stride ``repeat``. Everything that
merges, splits or permutes axes is arithmetic on such digits, so an axis of ``H * W * anchors``
slices costs no more than its anchors.

Label 0 means "stays": the slice can never be removed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from math import gcd, lcm
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from graphprune.array_types import Ints
from graphprune.errors import UnsafeModelError

__all__ = ["MOST_SLICES", "Digit", "Ints", "Labels", "all_matched", "check_length", "concatenate", "matched", "pairs"]
__all__ += ["stay"]

MOST_SLICES = 1 << 26
"""Slices of one axis that are ever written out one by one; what stays whole is never written out."""


Number = TypeVar("Number", bound=np.generic)


def check_length(length: int) -> None:
    """Raise before an axis is written out that is longer than any network has.

    Raises
    ------
    UnsafeModelError
        If `length` exceeds the limit.
    """
    if length > MOST_SLICES:
        raise UnsafeModelError(
            f"an axis along which channels lie has {length} slices, more than the limit {MOST_SLICES}",
            hint="give the sizes that the model is used with: --input-shape NAME=SIZES; or look for huge pads",
        )


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of all slices along one axis.

    Attributes
    ----------
    base : ndarray of int64, shape (n,)
        Of an axis of size 0 it is empty.
    repeat, tile : int
        The vector has ``n * repeat * tile`` entries.
    """

    base: Ints
    repeat: int = 1
    tile: int = 1

    def __len__(self) -> int:
        count = len(self.base) * self.repeat * self.tile
        if count > sys.maxsize:  # which Python could not return
            check_length(count)
        return count

    @property
    def live(self) -> bool:
        """Whether any slice may be removed, as far as known when the vector was made."""
        # Asked for all the time: nearly all vectors are wholly fixed, or begin with a label.
        base = self.base
        return base is not _ZERO and len(base) > 0 and (bool(base[0]) or bool(base.any()))

    @property
    def plain(self) -> bool:
        """Whether the vector is its base."""
        return self.repeat == 1 and self.tile == 1

    def expand(self) -> Ints:
        """Return all labels, shape (len,)."""
        return self.spread(self.base)

    def spread(self, values: npt.NDArray[Number]) -> npt.NDArray[Number]:
        """Return for every slice the value of its label in the base; all alike take no memory (a read-only view).

        Raises
        ------
        UnsafeModelError
            If the values differ and the axis is longer than any network has.
        """
        if self.plain:
            return values
        if (values == values[0]).all():
            return np.broadcast_to(values[0], (len(self),))
        check_length(len(self))
        return np.tile(np.repeat(values, self.repeat), self.tile)

    def select(self, index: Ints | slice) -> Labels:
        """Return the labels of the chosen slices, in the order of `index`."""
        if not self.live:
            return stay(len(range(len(self))[index]) if isinstance(index, slice) else len(index))
        return _compressed(np.ascontiguousarray(self.expand()[index]))


def _compressed(labels: Ints) -> Labels:
    """Find the repetition in a plain vector, so that what is cut out of a merged axis stays small."""
    if not len(labels) or not labels.any():
        return stay(len(labels))
    same = labels == labels[0]
    repeat = len(labels) if same.all() else int(np.argmin(same))
    if len(labels) % repeat or (repeat > 1 and (labels.reshape(-1, repeat) != labels[::repeat, None]).any()):
        repeat = 1
    base = labels[::repeat]
    for period in np.flatnonzero(base == base[0])[1:_TRIED].tolist():
        if len(base) % period == 0 and np.array_equal(base[:-period], base[period:]):
            return Labels(np.ascontiguousarray(base[:period]), repeat, len(base) // period)
    return Labels(np.ascontiguousarray(base), repeat)


_TRIED = 16
"""Candidate periods looked at; a real repetition is found at the first or second."""


def stay(length: int) -> Labels:
    """Return a vector of `length` zeros: slices that always stay."""
    return Labels(_ZERO, length, 1)


_ZERO: Ints = np.zeros(1, dtype=np.int64)


def concatenate(parts: list[Labels]) -> Labels:
    """Join vectors end to end."""
    if not any(part.live for part in parts):
        return stay(sum(len(part) for part in parts))
    return Labels(np.concatenate([part.expand() for part in parts]))


@dataclass(frozen=True)
class Digit:
    """``(f // stride) % size`` of a flat index ``f``."""

    stride: int
    size: int

    def at(self, flat: Ints) -> Ints:
        """Return the digit at each flat index."""
        return (flat // self.stride) % self.size


def pairs(first: Digit, second: Digit) -> tuple[Ints, Ints]:
    """Return every combination of two digits that occurs at some flat index.

    Both digits are constant on blocks of the common stride and periodic, so one period of
    blocks is enough: ``O(lcm of the periods / gcd of the strides)``, whatever the flat range.
    """
    block = gcd(first.stride, second.stride)
    period = lcm(first.stride * first.size, second.stride * second.size) // block
    check_length(period)
    flat = np.arange(period, dtype=np.int64) * block
    return first.at(flat), second.at(flat)


def matched(first: Labels, second: Labels) -> tuple[Ints, Ints]:
    """Return the pairs of labels that stand at the same position of two equally long vectors."""
    if len(first.base) == len(second.base) and first.repeat == second.repeat:
        return first.base, second.base
    left, right = pairs(Digit(first.repeat, len(first.base)), Digit(second.repeat, len(second.base)))
    return first.base[left], second.base[right]


def all_matched(*matches: tuple[Labels, Labels]) -> tuple[Ints, Ints]:
    """Return the pairs of labels at the same positions of several pairs of equally long vectors."""
    found = [matched(first, second) for first, second in matches]
    return np.concatenate([left for left, _ in found]), np.concatenate([right for _, right in found])
