# SPDX-License-Identifier: Apache-2.0
"""Of many samples, those are kept that a classifier is sure of and tells apart."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax
from tiny_models import model

from graphprune.api import load
from graphprune.data.session import Session
from graphprune.data.synthesis.confident import choose_confident, class_shares
from graphprune.data.synthesis.make_samples import SampleOptions, make_samples
from graphprune.model.load import Model

TEXT = """(float[n, 3, 16, 16] x) => (float[n, 10] y) {
    a = Conv (x, w)
    b = Relu (a)
    c = ReduceMean <axes = [2, 3], keepdims = 0> (b)
    y = MatMul (c, v)
}"""


def classifier() -> Model:
    return load(model(TEXT, {"w": (12, 3, 3, 3), "v": (12, 10)}))


def information(shares: np.ndarray) -> float:
    """Return the mutual information of samples and classes, in nats."""

    def entropy(parts: np.ndarray) -> np.ndarray:
        return np.asarray(-(parts * np.log(np.maximum(parts, 1e-12))).sum(axis=-1))

    return float(entropy(shares.mean(axis=0)) - entropy(shares).mean())


def test_one_sure_sample_of_each_class_comes_first() -> None:
    sure = np.repeat(np.eye(4) * 0.96 + 0.01, 5, axis=0)
    vague = np.full((20, 4), 0.25)
    picked = choose_confident(np.concatenate([vague, sure]), 8)
    assert len(set(picked.tolist())) == 8
    assert (picked >= 20).all()
    assert sorted(((picked - 20) // 5).tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_what_sums_to_one_is_taken_as_it_is() -> None:
    logits = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)
    shares = softmax(logits, axis=1)
    for outputs in (logits, shares):
        found = class_shares(outputs)
        assert found is not None
        assert np.allclose(found, shares, atol=1e-4)


def test_what_is_no_number_chooses_nothing() -> None:
    assert class_shares(np.array([[0.5, np.nan]])) is None


def test_a_choice_tells_more_than_as_many_others() -> None:
    network = classifier()
    made = make_samples(network, SampleOptions(count=40))
    assert (len(made.source), made.made, made.mismatch) == (40, 160, None)
    assert made.knowledge.startswith("natural images, of which")
    few = make_samples(network, SampleOptions(count=40, candidates=1))
    assert (few.made, few.knowledge) == (40, "natural images")
    chosen, drawn = (shares_of(network, one.source.read(np.arange(40)).feeds["x"]) for one in (made, few))
    assert information(chosen) > 1.3 * information(drawn)


def shares_of(network: Model, images: np.ndarray) -> np.ndarray:
    (logits,) = Session(network).run({"x": images})
    return np.asarray(softmax(logits.astype(np.float64), axis=1))
