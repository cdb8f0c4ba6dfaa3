# SPDX-License-Identifier: Apache-2.0
"""Networks cost what their problems cost, trees lose nothing, and propagation finds what trying everything finds."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from bound_cases import Largest, all_widths, problems, values
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.analysis.polynomial import Length, Polynomial, Term
from graphprune.solvers.bounds.decomposition import decompose
from graphprune.solvers.bounds.factors import networks
from graphprune.solvers.bounds.lagrangian import minimize
from graphprune.solvers.bounds.propagation import Propagation
from graphprune.solvers.problem import Limit, Problem


def states_of(network, case, widths):
    """Return the states of groups and sums at some widths."""
    found = {group: int(width) for group, width in enumerate(widths)}
    for entry in network.sums:
        found[entry.result] = entry.left_factor * found[entry.left] + entry.right_factor * found[entry.right]
    return np.array([int(np.searchsorted(network.domains[one], found[one])) for one in range(len(network.domains))])


def everything(case):
    return [np.array(widths) for widths in product(*case.levels)]


@settings(deadline=None, max_examples=40)
@given(problems(), st.randoms(use_true_random=False))
def test_both_forms_of_a_network_cost_what_the_problem_costs(case, random):
    for network in networks(case, values(case)):
        for widths in random.sample(everything(case), min(5, len(everything(case)))):
            states = states_of(network, case, widths)
            for limit in case.limits:
                found = [entry.cost(states) for entry in network.restrictions if entry.metric == limit.metric]
                if found:
                    cost = limit.cost(widths)
                    assert max(found) == cost or (isinstance(limit.cost, Largest) and max(found) <= cost)


@settings(deadline=None, max_examples=40)
@given(problems(), st.integers(0, 100))
def test_propagation_finds_the_best_of_all_widths_at_any_prices(case, seed):
    for network in networks(case, values(case)):
        tree = decompose([network], 10**7)
        prices = np.random.default_rng(seed).uniform(0, 0.01, len(network.restrictions))
        propagation = Propagation(tree)
        best = propagation.best(prices)
        worths = {}
        for widths in everything(case):
            states = states_of(network, case, widths)
            costs = sum(price * entry.cost(states) for price, entry in zip(prices, network.restrictions, strict=True))
            worths[tuple(states.tolist())] = network.value(states) - costs
        assert best.worth == pytest.approx(max(worths.values()))
        assert worths[tuple(best.states.tolist())] == pytest.approx(best.worth)
        for bag, margins in zip(tree.bags, propagation.margins(), strict=True):
            for row, margin in zip(bag.columns.T.tolist(), margins, strict=True):
                within = [w for s, w in worths.items() if [s[variable] for variable in bag.scope] == row]
                expected = max(within) - best.worth if within else -np.inf
                assert margin == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(problems())
def test_the_dual_bounds_all_widths_within_the_limits(case):
    tree = decompose(networks(case, values(case)), 10**7)
    dual = minimize(tree, lambda states: -np.inf)
    worth = [
        sum(own[np.searchsorted(steps, w)] for own, steps, w in zip(values(case), case.levels, found, strict=True))
        for found in all_widths(case)
    ]
    assert dual.bound >= max(worth)
    assert (dual.prices >= 0).all()


def dense_block(layers, growth, wide):
    """Return layers that each read all before them, as in DenseNet: groups of growth and of width in turn."""
    sizes = np.array([size for _ in range(layers) for size in (growth, wide)], dtype=np.int64)
    terms = []
    for layer in range(layers):
        before = np.arange(0, 2 * layer, 2)
        read = Length(16 + growth * layer, 16, before, np.ones_like(before))
        make, give = (
            Length(int(sizes[group]), 0, np.array([group]), np.array([1])) for group in (2 * layer + 1, 2 * layer)
        )
        terms += [Term(10, (read, make)), Term(90, (make, give))]
    return sizes, Polynomial(terms, sizes)


def test_concatenations_become_chains_of_sums():
    sizes, cost = dense_block(12, 4, 8)
    scores = tuple(np.ones(size) for size in sizes)
    steps = tuple(np.arange(1, size + 1) for size in sizes)
    names = tuple(f"g{number}" for number in range(len(sizes)))
    case = Problem(names, sizes, scores, np.ones(len(sizes)), (Limit("flops", cost, cost(sizes) // 2),), steps)
    written_out, summed = networks(case, values(case))
    assert not written_out.sums
    assert len(summed.sums) == 10  # one for each layer from the third on: every sum goes on from the one before
    assert decompose([written_out], 10**6) is None
    tree = decompose([summed], 10**6)
    assert tree is not None and max(len(bag.scope) for bag in tree.bags) == 3


def test_a_network_of_which_nothing_is_limited_is_worth_all_it_has():
    sizes = np.array([3, 4])
    cost = Polynomial([Term(2, (Length(3, 0, np.array([0]), np.array([1])),))], sizes)
    steps = (np.arange(1, 4), np.arange(1, 5))
    case = Problem(("a", "b"), sizes, (np.ones(3), np.ones(4)), np.ones(2), (Limit("flops", cost, 6),), steps)
    tree = decompose(networks(case, values(case)), 100)
    assert not tree.network.restrictions
    assert minimize(tree, lambda states: -np.inf).bound == pytest.approx(7)
