# SPDX-License-Identifier: Apache-2.0
"""Selection keeps the most salient atoms, and importance is their mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graphprune.errors import InternalError
from graphprune.solvers.saliency import Scores, importance, select


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
