# SPDX-License-Identifier: Apache-2.0
"""FLOPs, parameters and bytes as exact functions of the group widths.

Every axis of every weight and activation has ``b + sum_g a_g * width_g`` slices. A layer's cost
is a constant times a product of such lengths, and the cost of a network the sum over layers: a
polynomial with integer coefficients, so what is predicted here is what is counted on the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array, csr_array

from graphprune.errors import InternalError

__all__ = ["CostModel", "FewTerms", "Length", "Polynomial", "Scaled", "Term", "TermValues", "coefficients"]

Widths = npt.NDArray[np.int64]

_EXACT_IN_INT64 = 2.0**62


@dataclass(frozen=True, eq=False)
class Length:
    """Number of kept slices of one axis: ``constant + per_atom . widths[groups]``, `full` at full width."""

    full: int
    constant: int
    groups: Widths
    per_atom: Widths

    @classmethod
    def fixed(cls, size: int) -> Length:
        """Return the length of an axis that stays whole."""
        return cls(size, size, _NO_GROUPS, _NO_GROUPS)

    def at(self, widths: Widths) -> int:
        """Return the length at the given widths."""
        return int(self.constant + self.per_atom @ widths[self.groups])


_NO_GROUPS: Widths = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Term:
    """``scale`` times the product of some lengths, over `parts` (rounded up): bits of small types fill whole bytes."""

    scale: int
    lengths: tuple[Length, ...]
    parts: int = 1

    def of(self, lengths: Iterable[int]) -> int:
        """Return the value for lengths of its axes."""
        return -(-self.scale * prod(lengths) // self.parts)

    def values(self, *lengths: Widths) -> npt.NDArray[np.float64]:
        """Return the values for many lengths of its axes at once, arrays that broadcast; exact up to 2**53."""
        product = np.asarray(float(self.scale), dtype=np.float64)
        for length in lengths:
            product = product * length
        return product if self.parts == 1 else np.ceil(product / self.parts)


@dataclass(frozen=True, eq=False)
class Scaled:
    """A term as often as `times` says, which need not be a whole number."""

    term: Term
    times: float

    @property
    def lengths(self) -> tuple[Length, ...]:
        """The lengths that the term is a product of."""
        return self.term.lengths

    def values(self, *lengths: Widths) -> npt.NDArray[np.float64]:
        """Return the values for many lengths at once, arrays that broadcast."""
        return self.term.values(*lengths) * self.times


class Polynomial:
    """A sum of terms, evaluated exactly.

    Parameters
    ----------
    terms : sequence of Term
    sizes : ndarray of int64, shape (groups,)
        Full widths.

    Complexity: `__call__` is O(lengths), `change` O(terms that the group touches).
    """

    def __init__(self, terms: Sequence[Term], sizes: Widths) -> None:
        self.sizes = sizes
        self.constant = sum(term.of(length.constant for length in term.lengths) for term in terms if _fixed(term))
        live = [term for term in terms if not _fixed(term)]
        self._terms = (*live, Term(self.constant, ()))
        factors = max((len(term.lengths) for term in live), default=1)
        self._shape = (len(live), factors)
        lengths = [length for term in live for length in (*term.lengths, *[_ONE] * (factors - len(term.lengths)))]
        largest = sum(float(term.scale) * prod(float(length.full) for length in term.lengths) for term in live)
        dtype: type = np.int64 if largest < _EXACT_IN_INT64 else object
        self._scale: npt.NDArray[Any] = np.array([term.scale for term in live], dtype=dtype)
        self._parts: npt.NDArray[Any] = np.array([term.parts for term in live], dtype=dtype)
        self._base = np.array([length.constant for length in lengths], dtype=np.int64)
        self._matrix = coefficients(lengths, len(sizes))
        self._columns = csc_array(self._matrix)
        self._kept: dict[int, _Touched] = {}

    def alternatives(self) -> tuple[tuple[Term, ...], ...]:
        """Return the sums of which this cost is the largest: here it is a single one."""
        return (self._terms,)

    def lengths(self, widths: Widths) -> npt.NDArray[np.int64]:
        """Return all axis lengths, shape (terms, factors)."""
        return np.asarray(self._base + self._matrix @ widths, dtype=np.int64).reshape(self._shape)

    def __call__(self, widths: Widths) -> int:
        """Return the value at these widths (int64, shape (groups,))."""
        factors = self.lengths(np.asarray(widths, dtype=np.int64)).astype(self._scale.dtype, copy=False)
        return self.constant - int((-self._scale * factors.prod(axis=1) // self._parts).sum())

    def change(self, widths: Widths, group: int, width: int) -> int:
        """Return by how much the value changes if `group` moves from ``widths[group]`` to `width`."""
        touched = self._touched(group)
        before = touched.lengths(widths)
        after = before + touched.slope * (width - int(widths[group]))
        old = before.reshape(-1, self._shape[1]).astype(self._scale.dtype, copy=False)
        new = after.reshape(-1, self._shape[1]).astype(self._scale.dtype, copy=False)
        scale, parts = -self._scale[touched.terms], self._parts[touched.terms]
        return int((scale * old.prod(axis=1) // parts - scale * new.prod(axis=1) // parts).sum())

    def _touched(self, group: int) -> _Touched:
        """Return the terms in which the width of a group occurs; kept, since solvers ask for thousands of changes."""
        if group not in self._kept:
            column = slice(int(self._columns.indptr[group]), int(self._columns.indptr[group + 1]))
            rows, factors = self._columns.indices[column], self._shape[1]
            terms = np.unique(rows // factors).astype(np.int64)
            at = (terms[:, None] * factors + np.arange(factors)).ravel()
            slope = np.zeros(len(at), dtype=np.int64)
            slope[np.searchsorted(at, rows)] = self._columns.data[column]
            self._kept[group] = _Touched(terms, self._base[at], slope, *self._entries(at))
        return self._kept[group]

    def _entries(self, rows: Widths) -> tuple[Widths, Widths, Widths]:
        """Return the entries of some rows of the matrix: which of these rows, which group, and how many slices."""
        matrix = self._matrix
        counts = matrix.indptr[rows + 1] - matrix.indptr[rows]
        of = np.repeat(np.arange(len(rows)), counts)
        within = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
        places = matrix.indptr[rows][of] + within
        return of, matrix.indices[places], matrix.data[places]


@dataclass(frozen=True, eq=False)
class _Touched:
    """Terms with one group's width in them, and the axis lengths of their factors as functions of all widths.

    Attributes
    ----------
    terms : ndarray of int64, shape (t,), increasing
    base, slope : ndarray of int64, shape (t * factors,)
        Constant lengths, and slices per atom of the group.
    rows, groups, slices : ndarray of int64, shape (entries,)
        How many slices per atom of which group each axis has: the entries of a sparse matrix.
    """

    terms: Widths
    base: Widths
    slope: Widths
    rows: Widths
    groups: Widths
    slices: Widths

    def lengths(self, widths: Widths) -> Widths:
        """Return the axis lengths."""
        lengths = self.base.copy()
        np.add.at(lengths, self.rows, self.slices * widths[self.groups])
        return lengths


class TermValues:
    """The values of several terms, one each.

    Parameters
    ----------
    terms : sequence of Term
        Whose values fit into 64 bits.
    groups : int
        Number of widths.
    """

    def __init__(self, terms: Sequence[Term], groups: int) -> None:
        factors = max((len(term.lengths) for term in terms), default=0)
        lengths = [length for term in terms for length in (*term.lengths, *[_ONE] * (factors - len(term.lengths)))]
        self._shape = (len(terms), factors)
        self._scale = np.array([term.scale for term in terms], dtype=np.int64)
        self._parts = np.array([term.parts for term in terms], dtype=np.int64)
        self._base = np.array([length.constant for length in lengths], dtype=np.int64)
        self._matrix = coefficients(lengths, groups)

    def __call__(self, widths: Widths) -> Widths:
        """Return the values at these widths, shape (terms,)."""
        lengths = np.asarray(self._base + self._matrix @ widths, dtype=np.int64).reshape(self._shape)
        values: Widths = -(-self._scale * lengths.prod(axis=1) // self._parts)
        return values


class FewTerms:
    """The same as `Polynomial` for a term or two, without its preparation."""

    def __init__(self, terms: Sequence[Term]) -> None:
        self._terms = tuple(terms)

    def __call__(self, widths: Widths) -> int:
        """Return the value at these widths (int64, shape (groups,))."""
        return sum(term.of(length.at(widths) for length in term.lengths) for term in self._terms)


def _fixed(term: Term) -> bool:
    return all(not len(length.groups) for length in term.lengths)


_ONE = Length.fixed(1)


def coefficients(lengths: Sequence[Length], groups: int) -> Any:
    """Return the coefficients of the widths in each length, a sparse matrix of shape (lengths, groups)."""
    counts = [len(length.groups) for length in lengths]
    rows = np.repeat(np.arange(len(lengths)), counts)
    empty = [np.zeros(0, dtype=np.int64)]
    columns = np.concatenate(empty + [length.groups for length in lengths])
    data = np.concatenate(empty + [length.per_atom for length in lengths])
    # The stubs of scipy know no integer matrices.
    entries: Any = (data, (rows, columns))
    shape: Any = (len(lengths), groups)
    return csr_array(entries, shape=shape, dtype=data.dtype)


@dataclass(frozen=True, eq=False)
class CostModel:
    """What a network costs at given widths.

    Attributes
    ----------
    sizes : ndarray of int64, shape (groups,)
        Full widths, in atoms.
    flops : Polynomial
        Two per multiply-add of Conv, ConvTranspose, Gemm, MatMul, Einsum, recurrent and attention
        operators, for one run with the analysed input shapes.
    params : Polynomial
        Elements of all tensors of real numbers stored in the file, quantised ones too; scalars (a factor, an epsilon)
        do not count.
    size : Polynomial
        Bytes of all tensors stored in the file; values of less than a byte are packed.
    """

    sizes: Widths
    flops: Polynomial
    params: Polynomial
    size: Polynomial

    def metric(self, name: str) -> Polynomial:
        """Return the polynomial of a budget metric: "flops", "params" or "size".

        Raises
        ------
        InternalError
            For any other name.
        """
        if name not in ("flops", "params", "size"):
            raise InternalError(f"there is no metric {name!r}")
        polynomial: Polynomial = getattr(self, name)
        return polynomial
