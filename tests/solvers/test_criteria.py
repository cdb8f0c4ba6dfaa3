# SPDX-License-Identifier: Apache-2.0
"""Criteria agree with loops over channels, on any float type and wherever a member's slices lie."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from evidence_cases import made_up
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from solver_cases import Group, Member, member

from graphprune.errors import UsageError
from graphprune.solvers import criteria
from graphprune.solvers.criteria import Material
from graphprune.solvers.criteria._slices import sum_slices
from graphprune.solvers.saliency import importance

RNG = np.random.default_rng(5)


def reading(tensors: dict[str, np.ndarray]):
    """Return a reader of tensors, which it hands out read-only as a model does."""
    for tensor in tensors.values():
        tensor.setflags(write=False)
    return tensors.__getitem__


def naive_norm(group: Group, tensors: dict[str, np.ndarray], members: list[Member], order: int) -> np.ndarray:
    """Return the norm scores of a group with a loop over its atoms."""
    total = np.zeros(group.size)
    for atom in range(group.size):
        for one in members:
            places = one.positions[one.atoms == atom]
            slices = np.take(tensors[one.initializer].astype(np.float64), places, axis=one.axis).ravel()
            total[atom] += np.abs(slices).sum() if order == 1 else np.sqrt((slices**2).sum())
    return total


def coupled(kind: type = np.float32) -> tuple[Group, dict[str, np.ndarray], list[Member]]:
    """Return a group of 6 atoms made by three weights and a depthwise filter, and read by a fourth weight."""
    atoms_of_blocks = np.repeat([3, 0, 5, 1, 4, 2], 2)
    tensors = {
        "conv.w": RNG.standard_normal((9, 4, 3, 3)).astype(kind),
        "conv.b": RNG.standard_normal(9).astype(kind),
        "gemm.w": RNG.standard_normal((5, 12)).astype(kind),
        "lstm.w": RNG.standard_normal((2, 6, 7)).astype(kind),
        "depthwise.w": RNG.standard_normal((6, 1, 5, 5)).astype(kind),
        "prelu.slope": RNG.standard_normal((6, 1, 1)).astype(kind),
        "next.w": RNG.standard_normal((8, 6, 1, 1)).astype(kind),
    }
    filters = [
        member("conv.w", 0, "out", "Conv", 1, 6, start=2),
        member("gemm.w", 1, "out", "Gemm", 1, atoms_of_blocks),
        member("lstm.w", 1, "out", "LSTM", 1, 6),
        member("depthwise.w", 0, "per_channel", "Conv", 1, 6),
    ]
    others = [
        member("conv.b", 0, "per_channel", "Conv", 2, 6, start=2),
        member("prelu.slope", 0, "per_channel", "PRelu", 1, 6),
        member("next.w", 1, "in", "Conv", 1, 6),
    ]
    return Group("g000", 6, (*filters, *others)), tensors, filters


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("order", [1, 2])
def test_norms_agree_with_a_loop(order, kind):
    group, tensors, filters = coupled(kind)
    scores = criteria.get(f"l{order}")(Material([group], reading(tensors), 0))
    np.testing.assert_allclose(scores.per_group[0], naive_norm(group, tensors, filters, order), rtol=1e-12)
    assert scores.per_group[0].dtype == np.float64
    assert scores.source == (f"L{order} norm of the filters",)


@given(
    hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=9),
    st.integers(0, 3),
    st.integers(0, 3),
    st.booleans(),
)
def test_slice_sums_agree_with_numpy(shape, axis, weight_axis, fortran):
    axis, weight_axis = axis % len(shape), weight_axis % len(shape)
    array = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    array = np.asfortranarray(array) if fortran else array
    weights = np.random.default_rng(1).random([shape[d] if d == weight_axis else 1 for d in range(len(shape))])
    others = tuple(other for other in range(len(shape)) if other != axis)
    exact = array.astype(np.float64)
    np.testing.assert_allclose(sum_slices(array, axis, np.abs), np.abs(exact).sum(axis=others), rtol=1e-12)
    expected = (exact**2 * weights).sum(axis=others)
    np.testing.assert_allclose(sum_slices(array, axis, np.square, weights), expected, rtol=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_of_tensors_larger_than_a_piece(axis, tmp_path):
    path = tmp_path / "weights.bin"
    array = np.memmap(path, dtype=np.float32, mode="w+", shape=(70, 90, 11))
    array[:] = RNG.standard_normal(array.shape)
    others = tuple(other for other in range(3) if other != axis)
    found = sum_slices(array, axis, np.square)
    exact = np.asarray(array, dtype=np.float64) ** 2
    np.testing.assert_allclose(found, exact.sum(axis=others), rtol=1e-12)
    for weight_axis in range(3):
        weights = RNG.random([length if d == weight_axis else 1 for d, length in enumerate(array.shape)])
        found = sum_slices(array, axis, np.square, weights)
        np.testing.assert_allclose(found, (exact * weights).sum(axis=others), rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2])
def test_flattening_does_not_change_the_scale(order):
    weight = RNG.standard_normal((4, 6))
    whole = Group("g000", 2, (member("w.w", 1, "out", "Gemm", 1, np.array([0, 0, 0, 1, 1, 1])),))
    apart = weight.reshape(4, 2, 3).transpose(1, 0, 2).reshape(2, 12).copy()
    rows = Group("g000", 2, (member("w.w", 0, "out", "Gemm", 1, 2),))
    score = criteria.get(f"l{order}")
    flat = score(Material([whole], reading({"w.w": weight}), 0)).per_group[0]
    np.testing.assert_allclose(flat, score(Material([rows], reading({"w.w": apart}), 0)).per_group[0])


@pytest.mark.parametrize("name", ["l1", "l2", "bn-scale"])
def test_a_filter_twice_as_large_scores_twice_as_high(name):
    weight = RNG.standard_normal((4, 3, 3, 3))
    weight[2] = 2 * weight[1]
    group = Group("g000", 4, (member("c.w", 0, "out", "Conv", 1, 4),))
    scores = criteria.get(name)(Material([group], reading({"c.w": weight}), 0)).per_group[0]
    assert scores[2] == pytest.approx(2 * scores[1])


def test_groups_without_filters_fall_back_to_readers_then_to_the_average():
    made = Group("g000", 2, (member("a.w", 0, "out", "Conv", 1, 2),))
    read = Group("g001", 3, (member("b.w", 1, "in", "Conv", 1, 3),))
    bare = Group("g002", 2, (member("c.slope", 0, "per_channel", "PRelu", 1, 2),))
    tensors = {"a.w": np.array([[1.0], [3.0]]), "b.w": np.array([[2.0, -4.0, 6.0]]), "c.slope": np.ones(2)}
    scores = criteria.get("l1")(Material([made, read, bare], reading(tensors), 0))
    assert [values.tolist() for values in scores.per_group] == [[1, 3], [2, 4, 6], [3, 3]]
    assert scores.source[1:] == (
        "L1 norm of the weights that read it (no filters)",
        "average of the other groups (no weights to read)",
    )
    assert criteria.get("l2")(Material([bare], reading(tensors), 0)).per_group[0].tolist() == [1, 1]
    assert criteria.get("bn-scale")(Material([bare], reading(tensors), 0)).per_group[0].tolist() == [1, 1]


def test_weights_are_read_once_for_all_groups_that_share_them():
    reads: list[str] = []
    weight = RNG.standard_normal((6, 4))

    def read(name: str) -> np.ndarray:
        reads.append(name)
        return weight

    groups = [Group(f"g{i:03}", 2, (member("qkv.w", 0, "out", "Gemm", 1, 2, start=2 * i),)) for i in range(3)]
    scores = criteria.get("l1")(Material(groups, read, 0))
    assert reads == ["qkv.w"]
    np.testing.assert_allclose(np.concatenate(scores.per_group), np.abs(weight).sum(axis=1))


@pytest.mark.parametrize("name", criteria.names())
def test_scores_have_one_value_per_atom(name):
    group, tensors, _ = coupled()
    scores = criteria.get(name)(Material([group, group], reading(tensors), 3, evidence=made_up([6, 6])))
    assert [values.shape for values in scores.per_group] == [(6,), (6,)]
    assert all(values.dtype == np.float64 and np.isfinite(values).all() for values in scores.per_group)
    assert len(scores.source) == 2


def test_random_depends_on_the_seed_and_the_group_alone():
    groups = [Group(f"g{i:03}", 40, ()) for i in range(3)]
    score = criteria.get("random")
    scores = score(Material(groups, reading({}), 7)).per_group
    assert score(Material(groups[2:], reading({}), 7)).per_group[0].tolist() == scores[2].tolist()
    assert score(Material(groups, reading({}), 8)).per_group[0].tolist() != scores[0].tolist()
    assert scores[0].tolist() != scores[1].tolist()
    assert sorted(scores[0]) == sorted(scores[1])


def test_random_has_nothing_to_aggregate():
    with pytest.raises(UsageError, match="aggregated by 'mean': drawn scores belong to no member"):
        criteria.get("random")(Material([], reading({}), 0, "mean"))


@pytest.mark.parametrize("how", ["sum", "mean", "max", "first"])
@pytest.mark.parametrize("name", ["l1", "l2", "lamp", "fpgm", "bn-scale"])
def test_members_are_aggregated_as_asked(name, how):
    group, tensors, filters = coupled()
    score = criteria.get(name)
    found = score(Material([group], reading(tensors), 0, how)).per_group[0]
    if how == "first":
        alone = dataclasses.replace(group, members=tuple(filters[:1]))
        np.testing.assert_allclose(found, score(Material([alone], reading(tensors), 0, how)).per_group[0])
    else:
        (default,) = score(Material([group], reading(tensors), 0)).per_group
        assert found.shape == default.shape


def test_random_ranks_atoms_but_not_groups():
    groups = [Group(f"g{i:03}", size, ()) for i, size in enumerate([1, 7, 64, 999])]
    np.testing.assert_allclose(importance(criteria.get("random")(Material(groups, reading({}), 1))), 0.5, rtol=1e-12)


def test_random_does_not_depend_on_the_hash_seed():
    code = (
        "from types import SimpleNamespace as N; from graphprune.solvers import criteria;"
        "one = criteria.Material([N(id='g003', size=9, members=())], None, 4);"
        "print(criteria.get('random')(one).per_group[0].tolist())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-P", "-c", code],
            capture_output=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
