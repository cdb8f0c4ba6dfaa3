# SPDX-License-Identifier: Apache-2.0
"""Likelihood: the loss whose gradients criteria look at, with labels, or with what the network itself makes likely.

Without labels there is no loss at the network as it is: it agrees with itself, and the gradient of any distance to its
own outputs is zero. So labels are drawn from the probabilities that it gives. The mean square of such gradients is
the Fisher information, the curvature of the divergence from the network as it is. An output that holds no scores of
classes is multiplied with noise instead, which is the same for a normal distribution around it: the mean square of
the gradient is the squared change of the output, relative to how far it spreads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from graphprune.errors import DataError
from graphprune.model.graph import Graph
from graphprune.training.losses import Kind, choose_kinds, is_probability

__all__ = ["Likelihood"]

_SMALL = 1e-12


class Likelihood:
    """The sum over samples of the negative log-likelihood of labels.

    Parameters
    ----------
    graph : Graph
        Of the network, local functions inlined.
    seed : int
        For what is drawn. Two likelihoods of one seed draw the same for the same batches.

    Attributes
    ----------
    of : str
        What was differentiated, in words; known after the first batch.
    """

    def __init__(self, graph: Graph, seed: int) -> None:
        self._graph = graph
        self._random = torch.Generator().manual_seed(seed)
        self._kinds: dict[str, Kind] = {}
        self._spread: dict[str, float] = {}
        self.of = ""

    def __call__(self, outputs: Mapping[str, Tensor], labels: Tensor | None) -> Tensor:
        """Return the loss of a batch, a scalar.

        Raises
        ------
        DataError
            If a label is no class of the network.
        UsageError
            If the network has no output of floating-point numbers.
        """
        if not self._kinds:
            ranks = {name: value.dim() for name, value in outputs.items() if value.is_floating_point()}
            self._kinds = choose_kinds(self._graph, ranks)
        scores = next((name for name, kind in self._kinds.items() if kind == "kl"), None)
        if labels is not None and scores is not None and labels.dim() == 1 and not labels.is_floating_point():
            self.of = "cross-entropy of the labels"
            return self._cross_entropy(scores, outputs[scores], labels.long())
        self.of = "likelihood of labels drawn from the outputs"
        parts = [self._drawn(name, kind, outputs[name]) for name, kind in self._kinds.items() if outputs[name].numel()]
        return torch.stack(parts).sum()

    def _drawn(self, name: str, kind: Kind, value: Tensor) -> Tensor:
        """Return the loss of one output against what it makes likely itself."""
        if kind == "kl":
            chances = self._log_chances(name, value.detach()).exp()
            return self._cross_entropy(name, value, torch.multinomial(chances, 1, generator=self._random)[:, 0])
        value = value.float()
        if name not in self._spread:
            self._spread[name] = max(float(value.detach().std(correction=0)), _SMALL)
        noise = torch.randn(value.shape, generator=self._random)
        of_a_sample = value.numel() / max(value.shape[0] if value.dim() else 1, 1)
        loss: Tensor = (noise * value).sum() / (self._spread[name] * math.sqrt(of_a_sample))
        return loss

    def _cross_entropy(self, name: str, value: Tensor, labels: Tensor) -> Tensor:
        classes = value.shape[1]
        if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < classes):
            raise DataError(f"labels go from {int(labels.min())} to {int(labels.max())}, the model knows {classes}")
        loss: Tensor = functional.nll_loss(self._log_chances(name, value), labels, reduction="sum")
        return loss

    def _log_chances(self, name: str, value: Tensor) -> Tensor:
        """Return log probabilities, shape (n, classes)."""
        value = value.float()
        if is_probability(self._graph, name):
            value = value.clamp_min(_SMALL).log()
        return functional.log_softmax(value, dim=1)
