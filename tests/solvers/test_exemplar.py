# SPDX-License-Identifier: Apache-2.0
"""Exemplars stand for their clusters, survive, and their preference is found so that the budget holds."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
from solver_cases import limited, problem

from graphprune.errors import InternalError, NothingToPruneError
from graphprune.solvers.widths import _affinity as clustering
from graphprune.solvers.widths._affinity import Exemplars, in_parts
from graphprune.solvers.widths.exemplar import solve


def clusters(count: int, each: int, seed: int = 0, spread: float = 0.2) -> np.ndarray:
    """Return `each` points around `count` centres, one centre after the other."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.standard_normal((count, 200)), each, axis=0)
    return centres + spread * rng.standard_normal(centres.shape)


@pytest.mark.parametrize("seed", range(3))
def test_each_cluster_has_one_exemplar_over_a_wide_range_and_their_number_never_rises(seed):
    rows = clusters(6, 8, seed)
    found = Exemplars(rows, 0)
    counts = []
    for beta in (0.02, 0.1, 0.3, 0.6, 1.0, 1.5, 2.0, 3.0):
        chosen, converged = found.at(beta)
        assert converged
        counts.append(len(chosen))
        if 0.1 <= beta <= 1.5:
            assert sorted((chosen // 8).tolist()) == list(range(6))
    assert counts == sorted(counts, reverse=True)


def test_duplicates_collapse_and_identical_filters_leave_one():
    rows = np.tile(np.random.default_rng(1).standard_normal((4, 30)), (7, 1))
    chosen, converged = Exemplars(rows, 0).at(0.7)
    assert converged
    assert sorted((chosen % 4).tolist()) == [0, 1, 2, 3]
    assert Exemplars(np.ones((5, 3)), 0).at(0.5)[0].tolist() == [0]
    assert Exemplars(np.ones((1, 3)), 0).at(0.5)[0].tolist() == [0]


def test_many_dead_filters_are_one_cluster():
    """More than half of the similarities of a dead filter are 0, and so is their median."""
    rows = np.random.default_rng(2).standard_normal((20, 30))
    rows[5:18] = 0
    chosen, converged = Exemplars(rows, 0).at(0.3)
    assert converged
    assert len(set(chosen.tolist()) & set(range(5, 18))) == 1


def test_the_scale_of_the_weights_does_not_matter():
    rows = clusters(5, 9, 3, spread=0.6)
    for beta in (0.4, 0.8):
        expected = Exemplars(rows, 0).at(beta)[0].tolist()
        assert Exemplars(1e-3 * rows, 0).at(beta)[0].tolist() == expected
        assert Exemplars(1024 * rows, 0).at(beta)[0].tolist() == expected


def test_parts_keep_neighbours_together_and_are_of_equal_size():
    rows = np.concatenate([np.zeros((9, 2)), np.full((9, 2), 50.0)])[np.random.default_rng(0).permutation(18)]
    rows += 0.1 * np.random.default_rng(1).standard_normal(rows.shape)
    first, second = in_parts(rows, 9)
    assert len(set((rows[first, 0] > 25).tolist())) == len(set((rows[second, 0] > 25).tolist())) == 1
    assert [len(part) for part in in_parts(rows, 5)] == [5, 5, 4, 4]
    assert sorted(np.concatenate(in_parts(rows, 5)).tolist()) == list(range(18))
    assert in_parts(rows, 18)[0].tolist() == list(range(18))


def test_large_groups_are_clustered_in_parts(monkeypatch):
    monkeypatch.setattr(clustering, "_PART", 30)
    chosen, converged = Exemplars(clusters(6, 10), 0).at(0.7)
    assert converged
    assert set((chosen // 10).tolist()) == set(range(6))


def test_clustering_that_does_not_converge_is_tried_again_with_patience(monkeypatch):
    attempts = []

    def stubborn(similarity, preference, damping, iterations, seed):
        attempts.append((damping, iterations))
        return np.array([0]), False

    monkeypatch.setattr(clustering, "_propagate", stubborn)
    assert Exemplars(clusters(2, 5), 0).at(0.5)[1] is False
    assert attempts == [(0.5, 200), (0.9, 1000)]


def test_nothing_is_warned_of():
    rng = np.random.default_rng(5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(20):
            Exemplars(rng.standard_normal((3, 2)), 0).at(0.6)


def with_filters(case, rows):
    return dataclasses.replace(case, filters=lambda group: rows[group])


def test_exemplars_survive_and_the_most_salient_others_join_them():
    rows = [clusters(5, 8, 1), clusters(10, 4, 2)]
    case = with_filters(problem([40, 40], round_to=4), rows)
    case = limited(case, case.cost(np.array([8, 12])))
    solution = solve(case)
    assert solution.widths.tolist() == [8, 12]  # 5 and 10 exemplars, up to the next level
    for number, count in enumerate((5, 10)):
        kept = solution.kept[number]
        each = 40 // count
        assert set((kept // each).tolist()) == set(range(count))
        chosen, _ = Exemplars(rows[number], 0).at(solution.trace[-2]["beta"])
        others = np.setdiff1d(np.arange(40), kept)
        joined = np.setdiff1d(kept, chosen)
        assert len(joined) == len(kept) - count
        assert case.scores[number][joined].min() >= case.scores[number][others].max()


def test_more_exemplars_than_the_widest_level_leave_the_most_salient():
    case = with_filters(problem([12]), [clusters(6, 2)])
    case = dataclasses.replace(case, levels=(np.array([1, 4]),))
    solution = solve(limited(case, case.cost(np.array([12]))))
    assert solution.widths.tolist() == [4]
    assert solution.kept[0].tolist() == np.sort(np.argsort(-case.scores[0])[:4]).tolist()


def test_budgets_below_one_exemplar_each_are_met_by_the_narrowest_levels():
    case = problem([6, 6], share=0.5)
    case = dataclasses.replace(case, levels=(np.array([0, 3, 6]), np.array([0, 3, 6])))
    case = limited(case, case.cost(np.array([0, 3])))
    solution = solve(case)
    assert case.fits(solution.widths)
    assert 0 in solution.widths.tolist()
    assert solution.trace[-2] == {"stage": "narrowest", "cost": case.cost(case.narrowest)}


def test_a_group_that_does_not_converge_keeps_the_exemplars_of_the_next_lower_preference(monkeypatch):
    case = problem([30, 30], share=0.3)

    def unsettled(self, beta):
        return np.arange(0, 30, 3), beta >= 1.0

    monkeypatch.setattr(Exemplars, "at", unsettled)
    solution = solve(case)
    halves = [record for record in solution.trace if 0 < record.get("beta", 0) < 1]
    assert halves
    assert all(record["unconverged"] == 2 and record["exemplars"] == 60 for record in halves)


def test_groups_without_filters_keep_the_share_of_the_others():
    case = with_filters(problem([40, 20], share=0.4), [clusters(10, 4), np.zeros((20, 0))])
    solution = solve(case)
    best = [record for record in solution.trace if record["stage"] == "exemplars" and record["exemplars"] == 15]
    assert best  # 10 of 40, and so 5 of 20
    assert solution.kept[1].tolist() == np.sort(np.argsort(-case.scores[1])[: len(solution.kept[1])]).tolist()


def test_without_filters_there_is_nothing_to_compare():
    case = with_filters(problem([4, 4], share=0.5), [np.zeros((4, 0))] * 2)
    with pytest.raises(NothingToPruneError, match="no weights are known"):
        solve(case)
    assert solve(limited(case, case.cost(case.sizes))).widths.tolist() == [4, 4]
    with pytest.raises(InternalError, match="no filters to compare"):
        solve(dataclasses.replace(case, filters=None))


def test_filters_are_read_only_if_something_must_go():
    def never(group):
        raise AssertionError(group)

    case = dataclasses.replace(problem([9, 9], share=1.0), filters=never)
    assert solve(case).widths.tolist() == [9, 9]
