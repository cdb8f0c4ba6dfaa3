# SPDX-License-Identifier: Apache-2.0
"""Components that grow together: sets known by their smallest vertex, and choices that look again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from graphprune.labels.components import _FEW, Forest, Watchers, components, distinct
from graphprune.labels.resolve import _State, resolve
from graphprune.labels.space import Alternative, Choice, LabelSpace
from graphprune.labels.vector import Ints
from graphprune.model.graph import Node

COUNT = 24
PAIRS = st.lists(st.tuples(st.integers(0, COUNT - 1), st.integers(0, COUNT - 1)), min_size=1, max_size=5)


def columns(pairs: list[tuple[int, int]]) -> tuple[Ints, Ints]:
    edges = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return edges[:, 0], edges[:, 1]


def smallest(pairs: list[tuple[int, int]]) -> Ints:
    """Return for each vertex the smallest one that it hangs together with."""
    parts = components(COUNT, *columns(pairs))
    return np.array([int(np.flatnonzero(parts == part)[0]) for part in parts], dtype=np.int64)


@given(st.lists(PAIRS, max_size=12).map(lambda steps: [pair for pairs in steps for pair in pairs]))
def test_components_are_those_that_scipy_finds(pairs: list[tuple[int, int]]) -> None:
    left, right = columns(pairs)
    graph = coo_array((np.ones(len(pairs)), (left, right)), shape=(COUNT, COUNT))
    np.testing.assert_array_equal(components(COUNT, left, right), connected_components(graph, directed=False)[1])


def test_many_edges_and_few_give_the_same_components() -> None:
    left = np.random.default_rng(0).permutation(6000)
    many = components(6000, left[:-1], left[1:])
    assert len(left) > _FEW > len(left) // 2
    assert not many.any()
    few = components(6000, left[:3000], left[1:3001])
    assert len(np.unique(few)) == 3000
    assert len(np.unique(few[left[:3001]])) == 1


@given(PAIRS, PAIRS)
def test_copies_grow_on_their_own(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> None:
    forest, watched = Forest(COUNT), {at: np.array([at], dtype=np.int64) for at in range(COUNT)}
    watchers = Watchers(COUNT, watched)
    watchers.merge(forest.merge(*columns(first))[0])
    every = np.arange(COUNT, dtype=np.int64)
    seen = [watchers.of(every[at : at + 1], watched) for at in range(COUNT)]
    other, looking = forest.copy(), watchers.copy()
    looking.merge(other.merge(*columns(second))[0])
    np.testing.assert_array_equal(forest.roots(every), smallest(first))
    np.testing.assert_array_equal(other.roots(every), smallest(first + second))
    assert [watchers.of(every[at : at + 1], watched) for at in range(COUNT)] == seen


@given(st.lists(st.integers(0, 9), max_size=12))
def test_distinct_numbers_are_in_order(numbers: list[int]) -> None:
    assert distinct(np.array(numbers, dtype=np.int64)).tolist() == sorted(set(numbers))


@given(st.lists(PAIRS, max_size=8))
def test_merging_bit_by_bit_gives_the_components(steps: list[list[tuple[int, int]]]) -> None:
    forest, done = Forest(COUNT), list[tuple[int, int]]()
    for pairs in steps:
        before, after = forest.merge(*columns(pairs))
        np.testing.assert_array_equal(before, np.unique(smallest(done)[np.array(pairs).ravel()]))
        done += pairs
        np.testing.assert_array_equal(after, smallest(done)[before])
    np.testing.assert_array_equal(forest.roots(np.arange(COUNT, dtype=np.int64)), smallest(done))


@given(st.lists(st.sets(st.integers(0, COUNT - 1), min_size=1), min_size=1, max_size=8), st.lists(PAIRS, max_size=6))
def test_whoever_looks_at_a_component_is_found(looks: list[set[int]], steps: list[list[tuple[int, int]]]) -> None:
    watched = {key: np.array(sorted(vertices), dtype=np.int64) for key, vertices in enumerate(looks)}
    seen = sorted(set().union(*looks))  # only what somebody looks at is ever united
    forest, watchers, pending = Forest(COUNT), Watchers(COUNT, watched), set(watched)
    for step, pairs in enumerate(steps):
        left, right = (np.array([seen[at % len(seen)] for at in column], dtype=np.int64) for column in columns(pairs))
        before, after = forest.merge(left, right)
        watchers.merge(before)
        pending.discard(step)
        expected = {key for key in pending if np.isin(forest.roots(watched[key]), after).any()}
        found = watchers.of(np.unique(after), pending)
        assert expected <= found <= pending


def test_choices_apart_are_not_looked_at_again() -> None:
    watched = {key: np.array([3 * key, 3 * key + 1, 3 * key + 2], dtype=np.int64) for key in range(4)}
    watchers = Watchers(12, watched)
    assert watchers.of(np.array([4]), watched) == {1}
    watchers.merge(np.array([4, 9]))
    assert watchers.of(np.array([10]), watched) == {1, 3}
    assert watchers.of(np.array([10]), {3}) == {3}
    assert watchers.of(np.array([0]), watched) == {0}


def test_a_long_chain_of_choices_is_looked_at_a_few_times_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each choice carries four channels on, or keeps them; deciding one concerns its neighbours only."""
    count, width, looks = 300, 4, 0
    space = LabelSpace(count=(count + 1) * width + 1)
    node = Node(0, helper.make_node("Any", ["x"], ["y"]))
    for number in range(count):
        left = np.arange(1, width + 1, dtype=np.int64) + number * width
        none = np.zeros(0, dtype=np.int64)
        on = Alternative("on", left, left + width, none)
        swapped = Alternative("swapped", left[:2], left[:2] + width, left[2:])
        space.choose(node, [on, swapped])
    viable = _State._viable

    def counted(state: _State, choice: Choice) -> list[tuple[Alternative, int]]:
        nonlocal looks
        looks += 1
        return viable(state, choice)

    monkeypatch.setattr(_State, "_viable", counted)
    found = resolve(space)
    assert {alternative.name for _, alternative in found.committed if alternative} == {"on"}
    assert len(np.unique(found.component)) == width + 1
    assert looks <= 4 * count
