# SPDX-License-Identifier: Apache-2.0
"""Coupled filters agree with a loop over atoms, and their distances are exact where it matters."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from solver_cases import Group, member

from graphprune.solvers.filters import coupled_filters, mean_distances, member_filters, squared_distances

RNG = np.random.default_rng(11)


def plain_distances(rows: np.ndarray) -> np.ndarray:
    return ((rows[:, None, :] - rows[None, :, :]) ** 2).sum(axis=2)


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_filters_of_all_members_lie_side_by_side_on_one_scale(kind):
    tensors = {
        "conv.w": (1000 * RNG.standard_normal((9, 4, 3, 3))).astype(kind),
        "gemm.w": RNG.standard_normal((5, 12)).astype(kind),
        "depthwise.w": RNG.standard_normal((6, 1, 2, 2)).astype(kind),
        "bn.scale": RNG.standard_normal(6).astype(kind),
        "next.w": RNG.standard_normal((8, 6, 1, 1)).astype(kind),
    }
    blocks = np.repeat([3, 0, 5, 1, 4, 2], 2)
    group = Group(
        "g000",
        6,
        (
            member("conv.w", 0, "out", "Conv", 1, 6, start=2),
            member("gemm.w", 1, "out", "Gemm", 1, blocks),
            member("depthwise.w", 0, "per_channel", "Conv", 1, 6),
            member("bn.scale", 0, "per_channel", "BatchNormalization", 1, 6),
            member("next.w", 1, "in", "Conv", 1, 6),
        ),
    )
    expected = []
    for atom in range(6):
        places = np.flatnonzero(blocks == atom)
        expected.append(
            [
                tensors["conv.w"].astype(np.float64)[2 + atom].ravel(),
                tensors["gemm.w"].astype(np.float64)[:, places].T.ravel(),
                tensors["depthwise.w"].astype(np.float64)[atom].ravel(),
            ]
        )
    parts = [np.array([row[part] for row in expected]) for part in range(3)]
    scaled = [part / np.sqrt((part**2).sum(axis=1).mean()) for part in parts]
    found = coupled_filters(group, tensors.__getitem__)
    np.testing.assert_allclose(found, np.concatenate(scaled, axis=1), rtol=1e-12)
    assert np.square(found).sum() == pytest.approx(6 * 3)  # every member has rows of norm 1 on average


def test_without_filters_the_readers_stand_in_and_without_these_nothing():
    reader = member("next.w", 1, "in", "Gemm", 1, 3)
    bare = member("slope", 0, "per_channel", "PRelu", 1, 3)
    tensors = {"next.w": RNG.standard_normal((2, 3)), "slope": np.ones(3)}
    read = Group("g000", 3, (reader, bare))
    assert coupled_filters(read, tensors.__getitem__).shape == (3, 2)
    assert coupled_filters(Group("g001", 3, (bare,)), tensors.__getitem__).shape == (3, 0)


def test_atoms_with_fewer_slices_are_filled_up_with_zeros_and_zero_members_stay_zero():
    part = member("w", 0, "out", "Gemm", 1, np.array([1, 0, 1]))
    rows = member_filters(part, np.array([[1.0], [2.0], [3.0]]), 3)
    np.testing.assert_allclose(rows * np.sqrt(14 / 3), [[2, 0], [1, 3], [0, 0]])
    assert member_filters(part, np.zeros((3, 1)), 3).tolist() == [[0, 0]] * 3


@given(st.integers(1, 30), st.integers(1, 40), st.floats(1e-6, 1e6), st.integers(0, 1000))
def test_distances_are_those_of_the_definition(count, features, scale, seed):
    rows = scale * np.random.default_rng(seed).standard_normal((count, features))
    expected = plain_distances(rows)
    found = squared_distances(rows)
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.max(initial=0.0))
    np.testing.assert_allclose(mean_distances(rows), np.sqrt(expected).mean(axis=1), rtol=1e-3)
    assert (found == found.T).all()


def test_equal_rows_are_at_distance_zero_exactly_and_have_equal_distances():
    rows = RNG.standard_normal((50, 4608))[np.r_[0:50, 7, 7, 21]]
    found = squared_distances(rows)
    assert found[7, 50] == found[50, 51] == found[21, 52] == 0
    assert found[7].tolist() == found[50].tolist() == found[51].tolist()
    assert mean_distances(rows)[21] == mean_distances(rows)[52]


def test_products_are_exact_in_any_order():
    rows = RNG.standard_normal((40, 3000))
    rounded = np.rint(rows / np.abs(rows).max() * 2.0**19).astype(np.int64)  # what (51 - 12) // 2 bits leave
    exact = (rounded**2).sum(axis=1)[:, None] + (rounded**2).sum(axis=1) - 2 * (rounded @ rounded.T)
    assert exact.max() < 2**53
    unit = np.abs(rows).max() / 2.0**19
    assert (squared_distances(rows) == exact * unit**2).all()


def test_rows_without_values_and_no_rows_at_all():
    assert squared_distances(np.zeros((3, 0))).tolist() == np.zeros((3, 3)).tolist()
    assert squared_distances(np.zeros((3, 2))).tolist() == np.zeros((3, 3)).tolist()
    assert mean_distances(np.zeros((0, 4))).shape == (0,)


def test_many_rows_are_compared_in_pieces():
    rows = RNG.standard_normal((1100, 3))
    expected = np.sqrt(squared_distances(rows)).mean(axis=1)
    np.testing.assert_allclose(mean_distances(rows), expected, rtol=1e-12)
