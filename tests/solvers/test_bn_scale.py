# SPDX-License-Identifier: Apache-2.0
"""The BN-scale criterion reads BatchNormalization scales, or estimates what folding left of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from solver_cases import Group, member

from graphprune.solvers import criteria
from graphprune.solvers.criteria import Material
from graphprune.solvers.criteria.bn_scale import rectified_square

SCORE = criteria.get("bn-scale")
ESTIMATED, UNIT = "filter norm x estimated input RMS", "filter norm (input scale unknown)"


def batch_norm(name: str, atoms: np.ndarray | int, start: int = 0):
    return tuple(
        member(f"{name}.{slot}", 0, "per_channel", "BatchNormalization", slot, atoms, start) for slot in (1, 2, 3, 4)
    )


def rank(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return the rank correlation."""
    return float(np.corrcoef(rank(a), rank(b))[0, 1])


def test_scales_are_averaged_over_members_in_magnitude():
    tensors = {"a.1": np.array([-1.0, 2.0, 0.5]), "b.1": np.array([9.0, 3.0, -4.0, 1.5]), "c.w": np.full((3, 2), 1e6)}
    tensors |= {f"{name}.{slot}": np.ones(4) for name in "ab" for slot in (2, 3, 4)}
    filters = member("c.w", 0, "out", "Conv", 1, 3)
    group = Group("g000", 3, (filters, *batch_norm("a", 3), *batch_norm("b", 3, start=1)))
    scores = SCORE(Material([group], tensors.__getitem__, 0))
    assert scores.per_group[0].tolist() == [2.0, 3.0, 1.0]  # the filter norm does not enter
    assert scores.source == ("BatchNormalization scale",)


def test_several_scales_of_one_atom_are_averaged():
    tensors = {f"a.{slot}": np.array([1.0, -3.0, 5.0, 7.0]) for slot in (1, 2, 3, 4)}
    group = Group("g000", 2, batch_norm("a", np.array([0, 0, 1, 1])))
    assert SCORE(Material([group], tensors.__getitem__, 0)).per_group[0].tolist() == [2.0, 6.0]


@pytest.mark.parametrize("mean", [-5.0, -1.0, 0.0, 0.3, 2.0, 40.0])
@pytest.mark.parametrize("deviation", [0.0, 0.1, 1.0, 3.0])
def test_the_rectified_second_moment(mean, deviation):
    z = np.linspace(-12, 12, 200_001)
    density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    expected = (np.maximum(mean + deviation * z, 0) ** 2 * density).sum() * (z[1] - z[0])
    found = rectified_square(np.array([mean]), np.array([deviation]))[0]
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert found >= 0


def folded_network(depth: int, width: int, samples: int, seed: int):
    """Return groups, folded tensors, and the |gamma| of a chain of 1x1 convolutions, each folded after measuring."""
    rng = np.random.default_rng(seed)
    groups, tensors, gammas = [], {}, []
    signal = rng.standard_normal((samples, width))
    for layer in range(depth):
        weight = rng.standard_normal((width, width)) * rng.uniform(0.1, 3, (width, 1))
        made = signal @ weight.T
        gamma, beta = rng.uniform(0.2, 2, width) * rng.choice([-1, 1], width), rng.normal(0, 0.5, width)
        scale = gamma / made.std(axis=0)
        name = f"conv{layer}"
        tensors[f"{name}.w"] = (weight * scale[:, None])[:, :, None, None]
        tensors[f"{name}.b"] = beta - scale * made.mean(axis=0)
        signal = np.maximum(made * scale + tensors[f"{name}.b"], 0)
        gammas.append(np.abs(gamma))
        groups.append(
            (member(f"{name}.w", 0, "out", "Conv", 1, width), member(f"{name}.b", 0, "per_channel", "Conv", 2, width))
        )
    readers = [(member(f"conv{layer + 1}.w", 1, "in", "Conv", 1, width),) for layer in range(depth - 1)] + [()]
    return (
        [Group(f"g{i:03}", width, a + b) for i, (a, b) in enumerate(zip(groups, readers, strict=True))],
        tensors,
        gammas,
    )


def test_a_folded_filter_on_unit_inputs_has_the_scale_as_its_norm():
    groups, tensors, gammas = folded_network(depth=1, width=32, samples=20_000, seed=0)
    scores = SCORE(Material(groups, tensors.__getitem__, 0))
    np.testing.assert_allclose(scores.per_group[0], gammas[0], rtol=0.15)
    assert correlation(scores.per_group[0], gammas[0]) > 0.99
    assert scores.source == (UNIT,)


def test_deeper_folded_filters_still_rank_by_their_scale():
    groups, tensors, gammas = folded_network(depth=4, width=64, samples=5_000, seed=1)
    scores = SCORE(Material(groups, tensors.__getitem__, 0))
    assert scores.source == (UNIT, ESTIMATED, ESTIMATED, ESTIMATED)
    for found, gamma in zip(scores.per_group, gammas, strict=True):
        assert correlation(found, gamma) > 0.8


def test_input_channels_are_weighted_by_what_makes_them():
    tensors = {f"bn.{slot}": np.zeros(2) for slot in (3, 4)}
    tensors |= {"bn.1": np.array([1.0, 3.0]), "bn.2": np.array([0.0, 4.0]), "c.w": np.array([[1.0, 0.0], [0.0, 1.0]])}
    first = Group("g000", 2, (*batch_norm("bn", 2), member("c.w", 1, "in", "Conv", 1, 2)))
    second = Group("g001", 2, (member("c.w", 0, "out", "Conv", 1, 2),))
    found = SCORE(Material([first, second], tensors.__getitem__, 0))
    expected = np.sqrt(rectified_square(tensors["bn.2"], tensors["bn.1"]))
    np.testing.assert_allclose(found.per_group[1], expected)
    assert found.source == ("BatchNormalization scale", ESTIMATED)


def test_inputs_of_unknown_origin_have_unit_size():
    tensors = {f"bn.{slot}": np.full(1, 2.0) for slot in (1, 2, 3, 4)} | {"c.w": np.eye(3)}
    first = Group("g000", 1, (*batch_norm("bn", 1), member("c.w", 1, "in", "Gemm", 1, 1, start=1)))
    second = Group("g001", 3, (member("c.w", 0, "out", "Gemm", 1, 3),))
    scores = SCORE(Material([first, second], tensors.__getitem__, 0)).per_group[1]
    assert scores.tolist() == [
        1.0,
        pytest.approx(math.sqrt(rectified_square(np.full(1, 2.0), np.full(1, 2.0))[0])),
        1.0,
    ]


def test_a_depthwise_filter_reads_what_the_rows_before_it_make():
    tensors = {"a.w": np.array([[2.0], [6.0]]), "d.w": np.array([[3.0], [1.0]])}
    rows, depthwise = member("a.w", 0, "out", "Conv", 1, 2), member("d.w", 0, "per_channel", "Conv", 1, 2)
    scores = SCORE(Material([Group("g000", 2, (rows, depthwise))], tensors.__getitem__, 0))
    expected = [(2 + 3 * 2 * math.sqrt(0.5)) / 2, (6 + 1 * 6 * math.sqrt(0.5)) / 2]
    np.testing.assert_allclose(scores.per_group[0], expected, rtol=1e-6)
    assert scores.source == (ESTIMATED,)
