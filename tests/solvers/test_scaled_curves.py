# SPDX-License-Identifier: Apache-2.0
"""Closed-form curves go through what is measured, and say what else is worth measuring."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.solvers.protocols.outcomes import Profile
from graphprune.solvers.widths._scaled_curves import ScaledCurves


def curve(size: int, power: float = 2.0) -> Profile:
    widths = np.arange(1, size + 1)
    return Profile(np.arange(size), widths, (1 - widths / size) ** power)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_profiles_go_through_what_was_measured_and_do_not_grow_with_the_width(data: st.DataObject) -> None:
    size = data.draw(st.integers(3, 40))
    one = curve(size, data.draw(st.sampled_from((1.0, 2.0, 3.0))))
    at = sorted(data.draw(st.sets(st.integers(1, size - 1), min_size=1, max_size=3)))
    scales = sorted(data.draw(st.lists(st.floats(0.5, 2), min_size=len(at), max_size=len(at))), reverse=True)
    curves = ScaledCurves([one])
    for width, scale in zip(at, scales, strict=True):
        curves.add(np.array([width]), np.array([scale * one.errors[width - 1]]))
    (found,) = curves.profiles()
    assert found is not None
    for width, scale in zip(at, scales, strict=True):
        assert found.errors[width - 1] == pytest.approx(scale * one.errors[width - 1])
    assert (np.diff(found.errors) <= 0).all() and found.errors[-1] == 0
    outside = found.errors[: at[0]] / one.errors[: at[0]]
    assert outside == pytest.approx(scales[0])  # beyond the narrowest width measured the scale stays


def test_what_was_measured_at_all_widths_is_taken_as_it_is() -> None:
    measured = np.array([5.0, 2.0, 1.5, 0.1, 0.0])
    curves = ScaledCurves([curve(5)])
    for width in range(1, 5):
        curves.add(np.array([width]), measured[width - 1 : width])
    (found,) = curves.profiles()
    assert found is not None and found.errors == pytest.approx(measured)


def test_a_group_that_nothing_is_known_of_counts_like_the_median() -> None:
    curves = ScaledCurves([curve(8), curve(8), None, curve(8), curve(8)])
    widths = np.array([4, 4, 0, 4, 0])
    curves.add(widths, np.array([0.25, 2.5, np.nan, 0.75, np.nan]))
    assert curves.scales.tolist() == [1.0, 10.0, 3.0, 3.0, 3.0]
    assert curves.profiles()[2] is None
    known = ScaledCurves([curve(8), curve(8)], np.array([7.0, 5.0]))
    known.add(np.array([4, 0]), np.array([0.5, np.nan]))
    assert known.scales.tolist() == [2.0, 5.0]


def test_a_small_error_may_be_less_than_nothing_by_chance() -> None:
    curves = ScaledCurves([curve(8), curve(8)], np.array([4.0, 4.0]))
    curves.add(np.array([6, 6]), np.array([-0.001, 0.25]))
    scales = curves.scales
    assert 0 < scales[0] < 0.1 * scales[1]
    (small, _) = curves.profiles()
    assert small is not None and small.errors[0] > 0 and (np.diff(small.errors) <= 0).all()


def test_what_is_close_to_a_measurement_is_not_measured_again() -> None:
    curves = ScaledCurves([curve(64), curve(64), None, curve(64)])
    curves.add(np.array([40, 40, 0, 0]), np.array([0.1, 0.1, np.nan, np.nan]))
    assert curves.worth_measuring(np.array([44, 45, 9, 64])).tolist() == [-1, 45, -1, -1]


def test_that_a_group_goes_is_measured_whatever_is_close_by() -> None:
    whole = Profile(np.arange(64), np.arange(65), (1 - np.arange(65) / 64) ** 2)
    curves = ScaledCurves([whole, whole])
    curves.add(np.array([2, 2]), np.array([0.1, 0.1]))
    assert curves.worth_measuring(np.array([0, 1])).tolist() == [0, -1]
