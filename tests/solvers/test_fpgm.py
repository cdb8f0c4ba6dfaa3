# SPDX-License-Identifier: Apache-2.0
"""FPGM: what is closest to all others goes first, on signed weights of the whole coupled filter."""

from __future__ import annotations

import numpy as np
import pytest
from solver_cases import Group, member

from graphprune.solvers import criteria
from graphprune.solvers.criteria import Material

SCORE = criteria.get("fpgm")
RNG = np.random.default_rng(3)


def one_layer(weight: np.ndarray, **options: str) -> np.ndarray:
    group = Group("g000", len(weight), (member("w", 0, "out", "Conv", 1, len(weight)),))
    return SCORE(Material([group], {"w": weight}.__getitem__, **options)).per_group[0]


def test_scores_are_mean_distances_to_all_filters():
    weight = RNG.standard_normal((7, 3, 3, 3))
    rows = weight.reshape(7, -1)
    sums = np.array([np.sqrt(((row - rows) ** 2).sum(axis=1)).sum() for row in rows])
    scale = np.sqrt((rows**2).sum(axis=1).mean())
    np.testing.assert_allclose(one_layer(weight), sums / 7 / scale, rtol=1e-4)


@pytest.mark.parametrize("seed", range(50))
def test_identical_filters_tie_and_the_mean_filter_ranks_lowest(seed):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((12, 4, 3, 3)).astype(np.float32)
    weight[5] = weight[2]
    weight[9] = np.delete(weight, 9, axis=0).mean(axis=0)
    scores = one_layer(weight)
    assert scores[5] == scores[2]
    assert scores.argmin() == 9


def test_weights_are_signed():
    weight = np.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    scores = one_layer(weight)
    assert scores[1] > scores[0] == scores[2]


def test_distances_are_those_of_the_coupled_filter():
    """Two members of which either alone ranks the atoms differently."""
    tensors = {"a": np.array([[0.0], [0.0], [3.0]]), "b": np.array([[0.0], [400.0], [0.0]])}
    group = Group("g000", 3, (member("a", 0, "out", "Conv", 1, 3), member("b", 0, "out", "Conv", 1, 3)))
    scores = SCORE(Material([group], tensors.__getitem__)).per_group[0]
    assert scores[1] == pytest.approx(scores[2])  # members are on one scale
    assert scores.argmin() == 0
    expected = (np.sqrt(3) + np.sqrt(6)) / 3 / np.sqrt(2)
    assert scores[1] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("how", "combine"), [("sum", np.sum), ("mean", np.mean), ("max", np.max)])
def test_an_aggregation_takes_distances_in_each_member(how, combine):
    tensors = {"a": RNG.standard_normal((6, 5)), "b": RNG.standard_normal((6, 9))}
    members = tuple(member(name, 0, "out", "Gemm", 1, 6) for name in tensors)
    apart = [SCORE(Material([Group("g000", 6, (one,))], tensors.__getitem__)).per_group[0] for one in members]
    found = SCORE(Material([Group("g000", 6, members)], tensors.__getitem__, aggregate=how)).per_group[0]
    np.testing.assert_allclose(found, combine(apart, axis=0), rtol=1e-12)
    first = SCORE(Material([Group("g000", 6, members)], tensors.__getitem__, aggregate="first")).per_group[0]
    np.testing.assert_allclose(first, apart[0])


def test_groups_of_any_size_and_number_of_members_have_scores_of_one_magnitude():
    tensors = {f"w{index}": RNG.standard_normal((200, 300)) for index in range(3)}
    small = Group("g000", 20, (member("w0", 0, "out", "Gemm", 1, 20),))
    large = Group("g001", 200, tuple(member(name, 0, "out", "Gemm", 1, 200) for name in tensors))
    means = [values.mean() for values in SCORE(Material([small, large], tensors.__getitem__)).per_group]
    assert means[0] == pytest.approx(means[1], rel=0.06)


def test_groups_without_filters_fall_back_to_readers_then_to_the_average():
    tensors = {"a": np.array([[1.0], [3.0]]), "b": np.array([[2.0, -4.0, 6.0]])}
    groups = [
        Group("g000", 2, (member("a", 0, "out", "Conv", 1, 2),)),
        Group("g001", 3, (member("b", 1, "in", "Conv", 1, 3),)),
        Group("g002", 2, ()),
    ]
    scores = SCORE(Material(groups, tensors.__getitem__))
    assert scores.source[0] == "distance of the filters"
    assert "read it" in scores.source[1]
    average = np.mean([values.mean() for values in scores.per_group[:2]])
    assert scores.per_group[2].tolist() == [average, average]
