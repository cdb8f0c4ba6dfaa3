# SPDX-License-Identifier: Apache-2.0
"""Compressed label vectors agree with the plain ones that they stand for."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from graphprune.labels.vector import Digit, Labels, concatenate, matched, pairs, stay

digits = st.builds(Digit, st.integers(1, 12), st.integers(1, 8))
vectors = st.builds(
    lambda base, repeat, tile: Labels(np.asarray(base, dtype=np.int64), repeat, tile),
    st.lists(st.integers(0, 4), min_size=1, max_size=5),
    st.integers(1, 4),
    st.integers(1, 4),
)


def _set(left: np.ndarray, right: np.ndarray) -> set[tuple[int, int]]:
    return set(zip(left.tolist(), right.tolist(), strict=True))


@given(digits, digits)
def test_pairs_are_all_that_occur(first: Digit, second: Digit) -> None:
    period = first.stride * first.size * second.stride * second.size
    flat = np.arange(2 * period, dtype=np.int64)
    expected = _set((flat // first.stride) % first.size, (flat // second.stride) % second.size)
    found = pairs(first, second)
    assert _set(*found) == expected


@given(vectors)
def test_label_at_a_flat_index_is_a_digit(vector: Labels) -> None:
    flat = np.arange(len(vector), dtype=np.int64)
    digit = Digit(vector.repeat, len(vector.base))
    assert vector.expand().tolist() == vector.base[digit.at(flat)].tolist()
    assert vector.live == bool(vector.expand().any())
    assert vector.plain == (len(vector) == len(vector.base))


@given(vectors, st.data())
def test_select_takes_slices_and_compresses_them(vector: Labels, data: st.DataObject) -> None:
    size = len(vector)
    start = data.draw(st.integers(-size - 1, size + 1))
    stop = data.draw(st.integers(-size - 1, size + 1))
    taken = vector.select(slice(start, stop, data.draw(st.sampled_from((1, 2, -1, 3)))))
    index = np.asarray(data.draw(st.lists(st.integers(-size, size - 1), min_size=1, max_size=8)), dtype=np.int64)
    assert vector.select(index).expand().tolist() == vector.expand()[index].tolist()
    assert len(taken) == len(taken.expand())


@given(vectors, st.slices(40))
def test_select_by_slice(vector: Labels, index: slice) -> None:
    assert vector.select(index).expand().tolist() == vector.expand()[index].tolist()


@pytest.mark.parametrize(("repeat", "tile"), [(1, 1), (7, 1), (1, 9), (6, 5)])
def test_select_keeps_repetitions_small(repeat: int, tile: int) -> None:
    vector = Labels(np.arange(1, 101, dtype=np.int64), repeat, tile)
    half = vector.select(slice(0, len(vector) // 2 // (100 * repeat) * 100 * repeat or 50 * repeat))
    assert len(half.base) <= 100


@given(st.lists(vectors, min_size=1, max_size=4))
def test_concatenate_joins_end_to_end(parts: list[Labels]) -> None:
    assert concatenate(parts).expand().tolist() == [label for part in parts for label in part.expand().tolist()]


@given(vectors, vectors)
def test_matched_pairs_are_those_at_equal_positions(first: Labels, second: Labels) -> None:
    """Brought to one length by repeating the whole, as a longer axis of the same pattern."""
    length = int(np.lcm(len(first), len(second)))
    left = Labels(first.base, first.repeat, first.tile * (length // len(first)))
    right = Labels(second.base, second.repeat, second.tile * (length // len(second)))
    assert _set(*matched(left, right)) == _set(left.expand(), right.expand())


def test_what_stays_takes_no_room() -> None:
    vector = stay(10**12)
    assert len(vector) == 10**12
    assert not vector.live
    assert vector.base.tolist() == [0]


def test_select_of_nothing_live_does_not_expand() -> None:
    assert len(stay(50).select(slice(10, 20))) == 10


def test_an_axis_of_size_0_has_no_labels_and_is_not_live() -> None:
    empty = Labels(np.zeros(0, dtype=np.int64))
    assert not empty.live
    assert len(empty) == 0
    assert len(concatenate([empty, stay(2)])) == 2
