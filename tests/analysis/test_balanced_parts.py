# SPDX-License-Identifier: Apache-2.0
"""Bundles: equally many outputs of every conv group go together, in parts as small as they can be."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_properties import examples

from graphprune.analysis.balanced_parts import bundle
from graphprune.array_types import Ints

Rows = list[list[int]]


def _bundles(counts: list[Rows], kinds: list[int], scores: list[float]) -> Ints:
    arrays = [np.array(each, dtype=np.int64) for each in counts]
    return bundle(arrays, np.array(kinds, dtype=np.uint64), np.array(scores, dtype=float))


def test_the_best_of_each_group_go_together() -> None:
    counts = [[1, 0], [1, 0], [1, 0], [0, 1], [0, 1], [0, 1]]
    assert _bundles([counts], [7] * 6, [3.0, 9.0, 1.0, 2.0, 1.0, 5.0]).tolist() == [1, 0, 2, 1, 2, 0]


def test_what_holds_equally_many_of_each_goes_by_itself() -> None:
    found = _bundles([[[2, 2], [1, 0], [1, 1], [0, 1]]], [7] * 4, [1.0] * 4).tolist()
    assert found[1] == found[3]
    assert len({*found}) == 3


def test_parts_of_other_axes_do_not_make_up_for_each_other_unless_they_must() -> None:
    counts = [[1, 0], [0, 1], [1, 0], [0, 1]]
    apart = _bundles([counts], [7, 7, 8, 8], [1.0] * 4).tolist()
    assert apart[0] == apart[1] != apart[2] == apart[3]
    assert len({*_bundles([counts], [7, 8, 7, 8], [1.0] * 4).tolist()}) == 2
    assert len({*_bundles([[[1, 0], [1, 0], [0, 2]]], [7, 7, 8], [1.0] * 3).tolist()}) == 1


@pytest.mark.parametrize("second", [1, 2])
def test_two_convolutions_bind_at_once(second: int) -> None:
    """Two groups of the first, and of the second as many groups as outputs of the first's group."""
    counts = [[[1, 0], [1, 0], [0, 1], [0, 1]], [[1, 0], [0, 1], [1, 0], [0, 1]] if second == 2 else [[1]] * 4]
    found = _bundles(counts, [7] * 4, [1.0, 2.0, 3.0, 4.0]).tolist()
    assert len({*found}) == (1 if second == 2 else 2)


@st.composite
def parts(draw: st.DrawFn) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """Draw parts that hold equally many outputs of every group together."""
    groups, each = draw(st.integers(2, 4)), draw(st.integers(1, 6))
    owners = [draw(st.lists(st.integers(0, 5), min_size=each, max_size=each)) for _ in range(groups)]
    counts = np.array([[owner.count(part) for owner in owners] for part in range(6)], dtype=np.int64)
    held = counts[counts.any(axis=1)]
    kinds = draw(st.lists(st.integers(1, 2), min_size=len(held), max_size=len(held)))
    return held, np.array(kinds, dtype=np.uint64)


@examples(100)
@given(parts())
def test_every_bundle_holds_equally_many_outputs_of_every_group(
    drawn: tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]],
) -> None:
    counts, kinds = drawn
    found = bundle([counts], kinds, np.arange(len(kinds), dtype=float))
    assert sorted({*found.tolist()}) == list(range(int(found.max()) + 1))
    for number in np.unique(found):
        total = counts[found == number].sum(axis=0)
        assert (total == total[0]).all()
