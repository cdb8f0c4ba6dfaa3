# SPDX-License-Identifier: Apache-2.0
"""Agreement of outputs: what the misfit of scores does and does not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphprune.data.agreement import Accuracy, Agreement


def measured(own: np.ndarray, other: np.ndarray, batches: int = 1) -> Agreement:
    found = Agreement(["scores"])
    for one, two in zip(np.array_split(own, batches), np.array_split(other, batches), strict=True):
        found.add([one], [two], samples=len(one))
    return found


def scores(seed: int, count: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 5))


@given(st.integers(0, 1000), st.floats(0.01, 100.0), st.floats(-50.0, 50.0), st.integers(1, 4))
def test_a_scale_and_what_classes_have_in_common_make_no_difference(
    seed: int, scale: float, common: float, batches: int
) -> None:
    teacher, student = scores(seed), scores(seed) + 0.5 * scores(seed + 1)
    found = measured(student, teacher).misfit
    assert found is not None
    assert 0 < found < 1
    shift = common * scores(seed + 2)[:, :1]
    assert measured(scale * student + shift, teacher, batches).misfit == pytest.approx(found, rel=1e-6)


def test_the_ends_of_the_scale() -> None:
    teacher = scores(0)
    assert measured(teacher, teacher).misfit == pytest.approx(0, abs=1e-12)
    assert measured(np.zeros_like(teacher), teacher).misfit == 1
    assert measured(-teacher, teacher).misfit == 1


def test_maps_have_none() -> None:
    value = np.ones((2, 3, 4, 4))
    assert measured(value, value).misfit is None


def test_scores_that_are_no_numbers_are_right_about_nothing() -> None:
    """Every comparison with NaN is false, so that no class seems to come before the right one."""
    nothing, labels = np.full((4, 10), np.nan, np.float32), np.array([0, 3, 5, 9])
    accuracy, agreement = Accuracy(), Agreement(("scores",))
    accuracy.add(nothing, labels)
    agreement.add([nothing], [nothing], samples=4)
    assert (accuracy.count, accuracy.top1, accuracy.top5, agreement.agreement) == (4, 0.0, 0.0, 0.0)
