# SPDX-License-Identifier: Apache-2.0
"""Tables of times: exact where they were measured, never falling, and the same whether added up or changed."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graphprune.analysis.polynomial import Length, Term
from graphprune.cost.latency.latency_cost import LatencyCost, ScaledChunk, TabledChunk
from graphprune.cost.latency.time_table import Tables, grid, monotone, step_of

times = hnp.arrays(np.float64, hnp.array_shapes(min_dims=1, max_dims=2, max_side=5), elements=st.floats(0, 1e9))


@given(times)
def test_what_is_made_monotone_falls_along_no_axis_and_stays_within_what_was_measured(found: np.ndarray) -> None:
    result = monotone(found)
    assert all((np.diff(result, axis=axis) >= 0).all() for axis in range(found.ndim))
    assert found.min() <= result.min()
    assert result.max() <= found.max()
    np.testing.assert_array_equal(monotone(result), result)


@given(st.integers(1, 3000), st.sampled_from([8, 16, 32]))
def test_a_grid_ends_at_the_full_length_and_consists_of_whole_steps(full: int, block: int) -> None:
    lengths = grid(full, block)
    step = step_of(full, block)
    assert lengths[-1] == full
    assert (np.diff(lengths) > 0).all()
    assert all(length % step == 0 for length in lengths[:-1].tolist())


@given(st.integers(1, 600), st.integers(1, 600), st.randoms(use_true_random=False))
def test_a_table_gives_back_what_was_measured_and_never_falls_between(first: int, second: int, random: object) -> None:
    grids = grid(first, 16), grid(second, 16)
    rng = np.random.default_rng(random.randint(0, 2**32))  # type: ignore[attr-defined]
    values = monotone(rng.integers(1, 10**6, tuple(map(len, grids))).astype(np.float64))
    table = Tables([grids], [(step_of(first, 16), step_of(second, 16))], [values])
    for i, one in enumerate(grids[0].tolist()):
        for j, other in enumerate(grids[1].tolist()):
            assert abs(int(table.read(np.array([[one, other]]))[0]) - values[i, j]) <= 1
    along = [int(table.read(np.array([[length, second]]))[0]) for length in range(1, first + 1, max(1, first // 40))]
    assert along == sorted(along)
    assert table.read(np.array([[0, second], [first, 0]]), np.array([0, 0])).tolist() == [0, 0]  # nothing takes no time


def cost(correction: float = 1.0) -> LatencyCost:
    """Return a chain of three layers over two groups: two tables, and one chunk in proportion to its work."""
    one = Length(64, 0, np.array([0]), np.array([1]))
    other = Length(96, 32, np.array([1]), np.array([2]))  # 32 slices always stay, and two go with each atom
    grids = grid(64, 16), grid(96, 16)
    rising = np.add.outer(np.arange(len(grids[0])), np.arange(len(grids[1]))) * 1000.0 + 500
    tables = [
        TabledChunk((Length.fixed(3), one), (np.array([3]), grids[0]), (1, 16), rising[:1, : len(grids[0])]),
        TabledChunk((one, other), grids, (16, 16), rising),
    ]
    scaled = [ScaledChunk(4000.0, (Term(2, (one, other)),))]
    return LatencyCost(tables, scaled, 700, np.array([64, 32]), correction)


def test_changes_add_up_and_no_step_is_negative() -> None:
    found = cost()
    random = np.random.default_rng(2)
    for _ in range(50):
        widths = random.integers(1, [64, 32])
        group = int(random.integers(2))
        width = int(random.integers(widths[group], [64, 32][group] + 1))
        wider = widths.copy()
        wider[group] = width
        assert found.change(widths, group, width) == found(wider) - found(widths) >= 0


def test_a_correction_scales_what_pruning_saves_and_leaves_the_whole_as_it_is() -> None:
    plain, corrected = cost(), cost().corrected(0.5)
    full, half = np.array([64, 32]), np.array([32, 16])
    assert corrected(full) == plain(full) == plain.before
    assert abs((plain.before - corrected(half)) - (plain.before - plain(half)) / 2) <= 1
    assert corrected.corrected(2.0)(half) == plain(half)


def test_blocks_that_are_begun_cost_as_much_as_whole_ones() -> None:
    tables = Tables([(grid(64, 16), np.array([1]))], [(16, 1)], [np.array([[1.0], [2.0], [3.0], [4.0]]) * 1e6])
    read = [int(table) for length in (33, 40, 48) for table in tables.read(np.array([[length, 1]]))]
    assert read[0] == read[1] == read[2]


def test_the_time_is_the_sum_that_it_names_but_for_rounding() -> None:
    random = np.random.default_rng(5)
    for found in (cost(), cost().corrected(0.7), cost().corrected(1.2)):
        (factors,) = found.alternatives()
        for _ in range(20):
            widths = random.integers(1, [65, 33])
            parts = [one.values(*(np.asarray(length.at(widths)) for length in one.lengths)) for one in factors]
            assert found(widths) - 4 <= sum(map(float, parts)) <= found(widths)
