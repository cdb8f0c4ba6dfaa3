# SPDX-License-Identifier: Apache-2.0
"""LAMP: shares of what is left, made to be compared across groups."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from solver_cases import Group, member

from graphprune.solvers import criteria
from graphprune.solvers.criteria import Material
from graphprune.solvers.criteria.lamp import shares_of_what_is_left

SCORE = criteria.get("lamp")


@given(hnp.arrays(np.float64, st.integers(1, 40), elements=st.integers(0, 1000).map(float)))
def test_shares_agree_with_a_loop(squares):
    found = shares_of_what_is_left(squares)
    for index, value in enumerate(squares):
        ranked = [other for at, other in enumerate(squares) if (other, -at) >= (value, -index)]
        assert found[index] == pytest.approx(value / sum(ranked) if value else 0.0)


@given(hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(1e-3, 1e3)))
def test_the_largest_scores_one_and_scores_follow_the_norm(squares):
    found = shares_of_what_is_left(squares)
    assert found.max() == 1
    assert found.argmax() == squares.argmax()
    order = np.argsort(squares, kind="stable")
    assert (found[order[:-1]] <= found[order[1:]] * (1 + 1e-12) + (squares[order[:-1]] == squares[order[1:]])).all()


def test_nothing_but_zeros_scores_zero():
    assert shares_of_what_is_left(np.zeros(3)).tolist() == [0, 0, 0]


def test_squared_norms_of_members_are_added_or_aggregated():
    tensors = {"a": np.array([[1.0], [2.0], [2.0]]), "b": np.array([[2.0], [1.0], [4.0]])}
    group = Group("g000", 3, tuple(member(name, 0, "out", "Gemm", 1, 3) for name in tensors))
    summed = SCORE(Material([group], tensors.__getitem__))
    assert summed.per_group[0].tolist() == shares_of_what_is_left(np.array([5.0, 5.0, 20.0])).tolist()
    first = SCORE(Material([group], tensors.__getitem__, aggregate="first"))
    assert first.per_group[0].tolist() == shares_of_what_is_left(np.array([1.0, 4.0, 4.0])).tolist()
    assert summed.comparable
    assert summed.source == ("squared L2 norm of the filters",)
