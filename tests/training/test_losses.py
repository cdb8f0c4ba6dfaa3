# SPDX-License-Identifier: Apache-2.0
"""Losses: which is chosen for an output, and what it is."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import model
from training_cases import normalised

from graphprune.errors import UsageError
from graphprune.model.graph import Graph
from graphprune.training.learning_rate import rate_at
from graphprune.training.losses import Objective, choose_kinds, is_probability, load_function

TWO_HEADS = """(float[n,3,8,8] x) => (float[n,4] p, float[n,5] e, float[n,6,8,8] m) {
    m = Conv (x, w)
    h = GlobalAveragePool (m)
    f = Flatten (h)
    z = MatMul (f, a)
    p = Softmax (z)
    k = MatMul (f, b)
    e = LpNormalization (k)
}"""


def two_heads() -> Graph:
    return Graph(model(TWO_HEADS, {"w": (6, 3, 1, 1), "a": (6, 4), "b": (6, 5)}))


def test_scores_are_compared_by_divergence_and_features_by_squares() -> None:
    graph = two_heads()
    assert choose_kinds(graph, {"p": 2, "e": 2, "m": 4}) == {"p": "kl", "e": "mse", "m": "mse"}
    assert choose_kinds(Graph(normalised()), {"scores": 2}) == {"scores": "kl"}
    assert choose_kinds(graph, {"p": 2, "e": 2}, {"e": "cosine", "p": "none"}) == {"p": "none", "e": "cosine"}
    assert is_probability(graph, "p")
    assert not is_probability(graph, "e")


@pytest.mark.parametrize(
    ("given", "message"), [({"q": "kl"}, "'q'"), ({"p": "huber"}, "'huber'"), ({"p": "none"}, "no output")]
)
def test_a_choice_without_meaning_is_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose_kinds(two_heads(), {"p": 2}, given)  # type: ignore[arg-type]


def test_divergence_at_a_temperature() -> None:
    own, other = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[0.0, 3.0, 1.0]])
    objective = Objective({"y": "kl"}, temperature=2.0)
    p, q = torch.softmax(other / 2, 1), torch.softmax(own / 2, 1)
    expected = 4.0 * float((p * (p / q).log()).sum())
    assert float(objective({"y": own}, {"y": other}, None)) == pytest.approx(expected, rel=1e-5)
    assert float(objective({"y": other}, {"y": other}, None)) == pytest.approx(0.0, abs=1e-6)


def test_probabilities_are_compared_as_the_logits_they_came_from() -> None:
    own, other = torch.randn(3, 5), torch.randn(3, 5)
    logits = Objective({"y": "kl"})
    shares = Objective({"y": "kl"}, probabilities=frozenset({"y"}))
    expected = float(logits({"y": own}, {"y": other}, None))
    assert float(shares({"y": own.softmax(1)}, {"y": other.softmax(1)}, None)) == pytest.approx(expected, rel=1e-4)


def test_features_are_compared_relative_to_their_spread() -> None:
    own, other = torch.randn(4, 3, 5, 5), torch.randn(4, 3, 5, 5)
    for scale in (1.0, 1000.0):
        objective = Objective({"y": "mse"})
        objective.observe({"y": other * scale})
        found = float(objective({"y": own * scale}, {"y": other * scale}, None))
        expected = float((own - other).square().mean() / other.var(correction=0))
        assert found == pytest.approx(expected, rel=1e-4)
    turned = Objective({"y": "cosine"})
    assert float(turned({"y": 3.0 * other}, {"y": other}, None)) == pytest.approx(0.0, abs=1e-6)
    assert float(turned({"y": -other}, {"y": other}, None)) == pytest.approx(2.0)


def test_labels_have_their_share() -> None:
    own, other, labels = torch.randn(6, 4), torch.randn(6, 4), torch.arange(6) % 4
    entropy = float(torch.nn.functional.cross_entropy(own, labels))
    distance = float(Objective({"y": "kl"})({"y": own}, {"y": other}, None))
    both = Objective({"y": "kl"}, "y", label_weight=0.25)
    assert float(both({"y": own}, {"y": other}, labels)) == pytest.approx(0.25 * entropy + 0.75 * distance, rel=1e-5)
    assert float(both({"y": own}, None, labels)) == pytest.approx(entropy, rel=1e-5)
    smooth = Objective({"y": "kl"}, "y", smoothing=0.1)
    assert float(smooth({"y": own}, None, labels, training=False)) == pytest.approx(entropy, rel=1e-5)
    assert float(smooth({"y": own}, None, labels)) != pytest.approx(entropy, rel=1e-3)
    with pytest.raises(UsageError, match="nothing to learn"):
        smooth({"y": own}, None, None)


@pytest.mark.parametrize("name", ["math", "math:", "no.such:thing", "math:no_such", "math:pi"])
def test_a_function_that_cannot_be_imported(name: str) -> None:
    with pytest.raises(UsageError, match="--loss"):
        load_function(name, "--loss")


def test_a_function_that_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_function("math:sqrt", "--loss") is math.sqrt
    (tmp_path / "my_losses.py").write_text("class Own:\n    @staticmethod\n    def loss(*_):\n        return 1\n")
    (tmp_path / "my_wrong_losses.py").write_text("def loss(\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert load_function("my_losses:Own.loss", "--loss")() == 1
    with pytest.raises(UsageError, match="importing --loss 'my_wrong_losses:loss' failed: SyntaxError"):
        load_function("my_wrong_losses:loss", "--loss")


@pytest.mark.parametrize(
    ("found", "message"), [(3.0, "returns 'float'"), (torch.ones(2), r"of shape \[2\]"), (KeyError("z"), "KeyError")]
)
def test_an_own_loss_that_cannot_be_used(found: object, message: str) -> None:
    def own(*_: object) -> torch.Tensor:
        if isinstance(found, Exception):
            raise found
        return found  # type: ignore[return-value]

    with pytest.raises(UsageError, match=message):
        Objective({"y": "kl"}, own=own)({"y": torch.ones(2, 3)}, None, None)


def test_the_rate_rises_and_falls() -> None:
    rates = [rate_at(step, 100, 0.1, 10) for step in range(100)]
    assert rates[0] == pytest.approx(0.1 / 11)
    assert rates[10] == max(rates) == 0.1
    assert rates == sorted(rates[:11]) + sorted(rates[11:], reverse=True)
    assert 0.0 < rates[-1] < 0.001
    assert rate_at(0, 1, 0.5) == 0.5
