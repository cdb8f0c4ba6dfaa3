# SPDX-License-Identifier: Apache-2.0
"""Losses: how far outputs are from a teacher's, and from labels.

Each output is compared in its own way: logits and probabilities by Kullback-Leibler divergence at a
temperature (Hinton et al., Distilling the Knowledge in a Neural Network, arXiv:1503.02531, section 2),
features and maps by squared error relative to how far the teacher's values spread, or by cosine distance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from graphprune.data.user_code import FAILURES, imported, reason
from graphprune.errors import UsageError, did_you_mean, quote
from graphprune.model.graph import Graph
from graphprune.training.device_memory import enough_memory

__all__ = ["Kind", "LossFunction", "Objective", "choose_kinds", "load_function"]

Kind = Literal["kl", "mse", "cosine", "none"]
Outputs = Mapping[str, Tensor]
LossFunction = Callable[[Outputs, Outputs | None, Tensor | None], Tensor]
"""Takes the outputs, the teacher's (or None) and labels (or None), all of one batch; returns their mean loss."""

_MOVES = frozenset({"Reshape", "Flatten", "Squeeze", "Identity", "Cast", "Add", "Dropout"})
_SCORES = frozenset({"Gemm", "MatMul", "Conv", "GlobalAveragePool", "ReduceMean", "Softmax", "LogSoftmax"})
_SMALL = 1e-12


def choose_kinds(graph: Graph, ranks: Mapping[str, int], given: Mapping[str, Kind] | None = None) -> dict[str, Kind]:
    """Choose how each output is compared.

    An output of rank 2 that comes from a linear layer or a softmax holds scores of classes and is compared by
    ``kl``; all others are features or maps, for ``mse``.

    Parameters
    ----------
    graph : Graph
    ranks : mapping of str to int
        Rank of each floating-point output; others are not compared.
    given : mapping of str to Kind, optional
        What the user chose, by output.

    Raises
    ------
    UsageError
        If the model has no such output, or a kind has no meaning.
    """
    given = dict(given or {})
    for name, kind in given.items():
        if name not in ranks:
            raise UsageError(
                f"the model has no floating-point output {quote(name)}",
                hint=did_you_mean(name, ranks, shown=quote) or f"it has {', '.join(map(quote, ranks))}",
            )
        if kind not in get_args(Kind):
            raise UsageError(
                f"the loss of output {quote(name)} cannot be {quote(kind)}", hint="kl, mse, cosine or none"
            )
    kinds: dict[str, Kind] = {}
    for name, rank in ranks.items():
        kinds[name] = given.get(name, "kl" if rank == 2 and _origin(graph, name) in _SCORES else "mse")
    if not any(kind != "none" for kind in kinds.values()):
        raise UsageError("no output of the model is compared", hint="choose a loss for one with --output-loss")
    return kinds


def _origin(graph: Graph, name: str) -> str:
    """Return the operator that makes a value, seen through what only moves or shifts it."""
    node = graph.producer.get(name)
    while node is not None and node.op_type in _MOVES:
        behind = [item for item in node.inputs if item in graph.producer]
        if not behind:
            break
        node = graph.producer[behind[0]]
    return node.op_type if node is not None else ""


def is_probability(graph: Graph, name: str) -> bool:
    """Whether an output holds probabilities rather than logits."""
    return _origin(graph, name) == "Softmax"


@dataclass
class Objective:
    """The loss of a finetune round.

    Parameters
    ----------
    kinds : mapping of str to Kind
        How each output is compared with the teacher's.
    labelled : str or None
        Output that holds the scores for labels; None where there are none.
    label_weight : float
        Share of the labels in the loss, the teacher has the rest.
    temperature : float
        For ``kl``.
    smoothing : float
        Label smoothing, while training only.
    probabilities : frozenset of str
        Outputs that hold probabilities instead of logits.
    own : callable, optional
        The user's loss, in place of all this.
    """

    kinds: Mapping[str, Kind]
    labelled: str | None = None
    label_weight: float = 0.1
    temperature: float = 4.0
    smoothing: float = 0.0
    probabilities: frozenset[str] = frozenset()
    own: LossFunction | None = None
    spread: dict[str, float] = field(default_factory=dict)

    @property
    def scores(self) -> str | None:
        """The output whose highest value is the prediction of a class, if there is one."""
        return self.labelled or next((name for name, kind in self.kinds.items() if kind == "kl"), None)

    def observe(self, teacher: Outputs) -> None:
        """Take from a batch of the teacher how far its features spread, once, so that their losses are relative."""
        for name, kind in self.kinds.items():
            if kind == "mse" and name not in self.spread and teacher[name].numel():
                value = teacher[name].float()
                self.spread[name] = max(float(value.var(correction=0)), _SMALL * float(value.square().mean()), _SMALL)

    def __call__(
        self, outputs: Outputs, teacher: Outputs | None, labels: Tensor | None, *, training: bool = True
    ) -> Tensor:
        """Return the mean loss of a batch, a scalar.

        Raises
        ------
        UsageError
            If the user's own loss fails, or is no scalar tensor; or if there is nothing to learn from.
        """
        if self.own is not None:
            return _called(self.own, outputs, teacher, labels)
        parts = self._parts(outputs, teacher, labels, smoothing=self.smoothing if training else 0.0)
        return torch.stack([part.mean() for part in parts]).sum()

    def each(self, outputs: Outputs, teacher: Outputs | None, labels: Tensor | None) -> Tensor:
        """Return the loss of every sample, shape (n,), without label smoothing.

        Raises
        ------
        UsageError
            If the user's own loss is one number for a batch, or an output does not have its samples on the first axis.
        """
        if self.own is not None:
            raise UsageError("a loss of your own says nothing of single samples")
        parts = self._parts(outputs, teacher, labels, smoothing=0.0)
        if len({len(part) for part in parts}) > 1:
            raise UsageError("the outputs of the model do not have one row per sample each")
        return torch.stack(parts).sum(0)

    def _parts(
        self, outputs: Outputs, teacher: Outputs | None, labels: Tensor | None, *, smoothing: float
    ) -> list[Tensor]:
        """Return the weighted summands of the loss, each with one value per sample."""
        parts: list[Tensor] = []
        weight = 0.0
        if self.labelled is not None and labels is not None:
            weight = 1.0 if teacher is None else self.label_weight
            if weight:
                scores = self._logits(self.labelled, outputs[self.labelled])
                loss = functional.cross_entropy(scores, labels, label_smoothing=smoothing, reduction="none")
                parts.append(weight * _per_sample(loss))
        if teacher is not None and weight < 1.0:
            compared = [self._compare(name, kind, outputs[name], teacher[name]) for name, kind in self.kinds.items()]
            distances = [part for part in compared if part is not None]
            parts += [(1.0 - weight) / len(distances) * part for part in distances]
        if not parts:
            raise UsageError("there is nothing to learn from: neither a teacher nor labels")
        return parts

    def distance(self, outputs: Outputs, teacher: Outputs) -> Tensor:
        """Return the distance from the teacher, the mean over the compared outputs."""
        parts = [self._compare(name, kind, outputs[name], teacher[name]) for name, kind in self.kinds.items()]
        return torch.stack([part.mean() for part in parts if part is not None]).mean()

    def _logits(self, name: str, value: Tensor) -> Tensor:
        value = value.float()
        return value.clamp_min(_SMALL).log() if name in self.probabilities else value

    def _compare(self, name: str, kind: Kind, own: Tensor, other: Tensor) -> Tensor | None:
        if kind == "none" or not own.numel():
            return None
        if kind == "kl":
            t = self.temperature
            log_own = functional.log_softmax(self._logits(name, own) / t, dim=1)
            log_other = functional.log_softmax(self._logits(name, other) / t, dim=1)
            pointwise = functional.kl_div(log_own, log_other, reduction="none", log_target=True)
            return _per_sample(pointwise.sum(1)) * t**2
        own, other = own.float(), other.float()
        if kind == "cosine":
            return 1.0 - functional.cosine_similarity(own.flatten(1), other.flatten(1), dim=1)
        return _per_sample((own - other).square()) / self.spread.get(name, 1.0)


def _called(own: LossFunction, outputs: Outputs, teacher: Outputs | None, labels: Tensor | None) -> Tensor:
    """Return the user's own loss of a batch."""
    try:
        with enough_memory():
            loss: object = own(outputs, teacher, labels)
    except UsageError:
        raise
    except FAILURES as error:
        name = getattr(own, "__qualname__", type(own).__qualname__)
        raise UsageError(f"your own loss {quote(name)} failed: {reason(error)}") from error
    if not isinstance(loss, Tensor) or loss.dim():
        what = f"a tensor of shape {list(loss.shape)}" if isinstance(loss, Tensor) else quote(type(loss).__name__)
        raise UsageError(f"your own loss returns {what}, but must return a scalar tensor: the mean over the batch")
    return loss


def _per_sample(value: Tensor) -> Tensor:
    """Return the mean over all axes but the first."""
    return value.reshape(len(value), -1).mean(1) if value.dim() else value.reshape(1)


def load_function(name: str, option: str) -> Callable[..., object]:
    """Import ``package.module:function``.

    Parameters
    ----------
    name : str
    option : str
        For messages, such as ``--loss``.

    Raises
    ------
    UsageError
        If there is no such function.
    """
    function: object = imported(name, option)
    if not callable(function):
        raise UsageError(f"{option} {quote(name)} is not a function")
    return function
