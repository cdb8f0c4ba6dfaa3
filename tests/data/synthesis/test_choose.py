# SPDX-License-Identifier: Apache-2.0
"""Of many samples, those are kept that together are what a network remembers."""

from __future__ import annotations

import numpy as np
from tiny_models import model

from graphprune.data.statistics import RememberedNorm, SampleStatistics, Statistics, mean_mismatch
from graphprune.data.synthesis.choose import choose_samples
from graphprune.model.graph import Graph


def norm(mean: np.ndarray, variance: np.ndarray) -> RememberedNorm:
    graph = Graph(model("(float[n, 4] x) => (float[n, 4] y) { y = Relu (x) }"))
    return RememberedNorm(graph.nodes[0], Statistics(mean, variance))


def test_samples_of_the_right_kind_are_kept() -> None:
    random = np.random.default_rng(0)
    right = random.standard_normal((100, 4))
    wrong = 5 + 3 * random.standard_normal((300, 4))
    order = random.permutation(400)
    means = np.concatenate([right, wrong])[order]
    known = [norm(np.zeros(4), np.ones(4) + 0.1)]
    found = [SampleStatistics(means, means**2 + 0.1)]
    picked = choose_samples(known, found, 60)
    assert len(set(picked.tolist())) == 60
    assert np.mean(order[picked] < 100) > 0.8
    assert mean_mismatch(known, [found[0].over(picked)]) < 0.02


def test_a_choice_is_nearer_than_a_random_one() -> None:
    random = np.random.default_rng(1)
    means = random.standard_normal((500, 4))
    known = [norm(np.zeros(4), np.ones(4))]
    found = [SampleStatistics(means, means**2)]
    chosen, drawn = (
        mean_mismatch(known, [found[0].over(index)]) for index in (choose_samples(known, found, 50), np.arange(50))
    )
    assert chosen < drawn / 10
