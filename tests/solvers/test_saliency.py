# SPDX-License-Identifier: Apache-2.0
"""Selection keeps the most salient atoms, and importance is their mean."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from solver_cases import problem

from graphprune.errors import InternalError, UsageError
from graphprune.solvers.saliency import Scores, comparable, importance, kept_saliency, normalized, select


def test_ties_keep_the_lower_index():
    assert select(np.array([1.0, 2.0, 1.0, 2.0, 1.0]), 3).tolist() == [0, 1, 3]
    assert select(np.ones(1000), 400).tolist() == list(range(400))
    assert select(np.arange(1000.0) % 2, 600).tolist() == sorted([*range(1, 1000, 2), *range(0, 200, 2)])


def test_nan_ranks_below_everything():
    assert select(np.array([np.nan, -np.inf, np.nan, -5.0]), 2).tolist() == [1, 3]
    assert select(np.array([np.nan, np.inf, np.nan]), 2).tolist() == [0, 1]


@given(hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(allow_nan=False)), st.data())
def test_what_stays_is_at_least_as_salient_as_what_goes(scores, data):
    width = data.draw(st.integers(0, len(scores)))
    kept = select(scores, width)
    assert kept.dtype == np.int64
    assert len(kept) == width
    assert (np.diff(kept) > 0).all()
    gone = np.setdiff1d(np.arange(len(scores)), kept)
    if len(gone) and width:
        assert scores[kept].min() >= scores[gone].max()


@pytest.mark.parametrize("width", [-1, 4])
def test_more_than_all_cannot_stay(width):
    with pytest.raises(InternalError, match="of 3 atoms"):
        select(np.ones(3), width)


def test_importance_is_the_mean_of_the_finite_saliencies():
    scores = Scores((np.array([1.0, 3.0]), np.array([np.nan, 4.0, np.inf]), np.array([np.nan])), ("", "", ""))
    assert importance(scores).tolist() == [2.0, 4.0, 0.0]


def test_groups_are_brought_to_one_scale():
    case = problem([2, 3], scores=[np.array([10.0, 30.0]), np.array([3.0, 0.0, 4.0])])
    for how, expected in {
        "auto": [[0.5, 1.5], [9 / 7, 0, 12 / 7]],
        "mean": [[0.5, 1.5], [9 / 7, 0, 12 / 7]],
        "l2": [[10 / 1000**0.5, 30 / 1000**0.5], [0.6, 0, 0.8]],
        "none": [[10, 30], [3, 0, 4]],
    }.items():
        found = comparable(case, how)
        for values, wanted in zip(found.scores, expected, strict=True):
            np.testing.assert_allclose(values, wanted)
        assert found.comparable
        assert found.importance is case.importance


def test_scores_made_for_comparing_stay_unless_asked():
    case = dataclasses.replace(problem([2], scores=[np.array([1.0, 3.0])]), comparable=True)
    assert comparable(case).scores[0].tolist() == [1, 3]
    assert comparable(case, "mean").scores[0].tolist() == [0.5, 1.5]
    assert comparable(comparable(case, "mean")).scores[0].tolist() == [0.5, 1.5]


def test_an_unknown_normalization_is_refused():
    with pytest.raises(UsageError, match="'normalize' cannot be 'max': there are auto, mean, l2, none"):
        comparable(problem([2]), "max")


@pytest.mark.parametrize("how", ["mean", "l2", "none"])
def test_scores_without_a_scale_are_left_alone(how):
    assert normalized(np.zeros(3), how).tolist() == [0, 0, 0]
    assert normalized(np.zeros(0), how).tolist() == []
    assert normalized(np.array([np.nan, -np.inf, np.inf]), how).tolist() == [0, 0, 0]


def test_kept_saliency_is_that_of_the_most_salient_atoms():
    case = problem([3, 2], scores=[np.array([1.0, 5.0, 3.0]), np.array([2.0, 0.5])])
    assert kept_saliency(case, np.array([2, 1])) == 10
    assert kept_saliency(case, np.array([0, 2])) == 2.5
