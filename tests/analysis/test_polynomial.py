# SPDX-License-Identifier: Apache-2.0
"""Cost polynomials equal brute force, at any size of the numbers."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, prod
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from graphprune.analysis.polynomial import CostModel, FewTerms, Length, Polynomial, Term
from graphprune.errors import InternalError

SIZES = np.array([4, 7, 3], dtype=np.int64)


@st.composite
def lengths(draw: st.DrawFn, largest: int = 6) -> Length:
    """Draw a length that depends on some of three groups."""
    groups = draw(st.lists(st.integers(0, 2), unique=True, max_size=3))
    per_atom = draw(st.lists(st.integers(1, largest), min_size=len(groups), max_size=len(groups)))
    constant = draw(st.integers(0 if groups else 1, largest))
    full = constant + sum(a * int(SIZES[g]) for a, g in zip(per_atom, groups, strict=True))
    return Length(full, constant, np.asarray(groups, dtype=np.int64), np.asarray(per_atom, dtype=np.int64))


WHOLE = st.just(1)


def terms(largest: int = 6, parts: st.SearchStrategy[int] = WHOLE) -> st.SearchStrategy[list[Term]]:
    """Draw terms of up to four factors."""
    factors = st.lists(lengths(largest), max_size=4).map(tuple)
    return st.lists(st.builds(Term, st.integers(0, largest**3), factors, parts), max_size=5)


widths = st.tuples(*(st.integers(1, int(size)) for size in SIZES)).map(lambda w: np.asarray(w, dtype=np.int64))


def _brute(found: list[Term], at: Any) -> int:
    total = 0
    for term in found:
        factors = [
            length.constant + sum(int(a) * int(at[g]) for a, g in zip(length.per_atom, length.groups, strict=True))
            for length in term.lengths
        ]
        total += ceil(Fraction(term.scale * prod(factors), term.parts))
    return total


@given(terms(), widths)
def test_value_is_the_sum_of_products(found: list[Term], at: Any) -> None:
    assert Polynomial(found, SIZES)(at) == _brute(found, at)
    assert FewTerms(found)(at) == _brute(found, at)


@given(terms(parts=st.sampled_from((1, 2, 8))), widths)
def test_packed_elements_are_rounded_up_per_tensor(found: list[Term], at: Any) -> None:
    assert Polynomial(found, SIZES)(at) == _brute(found, at)


@given(terms(10**6), widths)
def test_numbers_beyond_64_bits_are_exact(found: list[Term], at: Any) -> None:
    assert Polynomial(found, SIZES)(at) == _brute(found, at)


@given(terms(10**6), widths, st.integers(0, 2), st.data())
def test_change_is_the_difference(found: list[Term], at: Any, group: int, data: st.DataObject) -> None:
    width = data.draw(st.integers(1, int(SIZES[group])))
    moved = at.copy()
    moved[group] = width
    polynomial = Polynomial(found, SIZES)
    assert polynomial.change(at, group, width) == _brute(found, moved) - _brute(found, at)


@given(terms(), widths, st.integers(0, 2))
def test_no_cost_falls_when_a_group_grows(found: list[Term], at: Any, group: int) -> None:
    if at[group] < SIZES[group]:
        assert Polynomial(found, SIZES).change(at, group, int(at[group]) + 1) >= 0


def test_int64_is_left_where_the_full_size_would_overflow() -> None:
    huge = Length(2**40, 0, np.array([0]), np.array([2**40 // 4]))
    polynomial = Polynomial([Term(3, (huge, huge))], SIZES)
    assert polynomial(SIZES) == 3 * 2**80
    assert polynomial.change(SIZES, 0, 2) == 3 * (2**78 - 2**80)


def test_without_groups_there_is_a_constant() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert Polynomial([Term(2, (Length.fixed(5), Length.fixed(3)))], none)(none) == 30
    assert Polynomial([], none)(none) == 0
    assert Polynomial([], SIZES).change(SIZES, 1, 2) == 0


def test_length_at_widths() -> None:
    length = Length(4 * 2 + 3 + 5, 5, np.array([0, 2]), np.array([2, 1]))
    assert length.at(np.array([3, 7, 2])) == 5 + 6 + 2
    assert Length.fixed(9).at(SIZES) == 9


def test_metrics_by_name() -> None:
    each = [Polynomial([Term(scale, ())], SIZES) for scale in (1, 2, 3)]
    cost = CostModel(SIZES, *each)
    assert [cost.metric(name)(SIZES) for name in ("flops", "params", "size")] == [1, 2, 3]
    with pytest.raises(InternalError, match="no metric 'sizes'"):
        cost.metric("sizes")
