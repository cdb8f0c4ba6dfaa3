# SPDX-License-Identifier: Apache-2.0
"""Agreement: how close the outputs of one network are to those of another, and how often a class is right."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graphprune.array_types import Array

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Accuracy", "Agreement", "log_softmax"]

_TOP = 5


def log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return log probabilities along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


@dataclass
class Accuracy:
    """Counts how often the right class is first, and among the first five."""

    count: int = 0
    first: int = 0
    among: int = 0

    def add(self, logits: Array, labels: Array) -> None:
        """Count a batch: logits of shape (n, classes), labels of shape (n,)."""
        own = np.take_along_axis(logits, labels[:, None], axis=1)
        # A class that ties with the right one and has a lower index counts as before it, as in argmax.
        earlier = np.arange(logits.shape[1]) < labels[:, None]
        rank = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
        rank[np.isnan(logits).any(axis=1)] = _TOP  # scores that are no numbers name no class
        self.count += len(labels)
        self.first += int((rank == 0).sum())
        self.among += int((rank < _TOP).sum())

    @property
    def top1(self) -> float:
        """Share of samples whose class comes first."""
        return self.first / self.count if self.count else 0.0

    @property
    def top5(self) -> float:
        """Share of samples whose class is among the first five."""
        return self.among / self.count if self.count else 0.0


@dataclass
class Agreement:
    """Compares outputs with those of a teacher.

    Attributes
    ----------
    error, power : list of float
        Per output: the sum of squared differences, and of the squared deviations of the teacher from its mean.
    products : ndarray, shape (3,)
        Of the scores of the first output without their mean over the classes: their sum of squares, the teacher's,
        and that of the products of both.
    """

    names: Sequence[str]
    count: int = 0
    agreeing: int = 0
    divergence: float = 0.0
    classified: int = 0
    products: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    error: list[float] = field(default_factory=list)
    power: list[float] = field(default_factory=list)

    def add(self, outputs: Sequence[Array], wanted: Sequence[Array], *, samples: int) -> None:
        """Count a batch. Outputs that are no floats count as wrong where they differ."""
        if not self.error:
            self.error, self.power = [0.0] * len(self.names), [0.0] * len(self.names)
        self.count += samples
        for at, (own, other) in enumerate(zip(outputs, wanted, strict=True)):
            if own.shape != other.shape:  # as many detections as there are
                self.error[at] += float(np.square(other.astype(np.float64)).sum())
                self.power[at] += float(np.square(other.astype(np.float64)).sum())
                continue
            one, two = own.astype(np.float64), other.astype(np.float64)
            self.error[at] += float(np.square(one - two).sum())
            self.power[at] += float(np.square(two - two.mean()).sum())
        self._compare_classes(outputs[0], wanted[0])

    def _compare_classes(self, own: Array, other: Array) -> None:
        """Compare the first output as logits, if it looks like these."""
        if own.ndim != 2 or own.shape != other.shape or own.shape[1] < 2 or own.dtype.kind != "f":
            return
        one, two = log_softmax(own.astype(np.float64)), log_softmax(other.astype(np.float64))
        self.divergence += float((np.exp(two) * (two - one)).sum())
        first, second = (value - value.mean(axis=1, keepdims=True) for value in (one, two))
        products = np.array([np.square(first).sum(), np.square(second).sum(), (first * second).sum()])
        self.products = self.products + products
        named = ~(np.isnan(own).any(axis=1) | np.isnan(other).any(axis=1))
        self.agreeing += int((named & (own.argmax(axis=1) == other.argmax(axis=1))).sum())
        self.classified += len(own)

    @property
    def relative_error(self) -> float:
        """Mean over the outputs of the squared error relative to the variance of the teacher's output."""
        shares = [
            error / power if power else float(error > 0) for error, power in zip(self.error, self.power, strict=True)
        ]
        return float(np.mean(shares)) if shares else 0.0

    @property
    def misfit(self) -> float | None:
        """Squared error of the scores at their best scale, relative to the teacher's; None where there are no logits.

        Which class is first does not depend on the scale, and neither on what all classes have in common.
        """
        own, other, both = self.products
        if not self.classified:
            return None
        return float(1.0 - both**2 / (own * other)) if both > 0 else 1.0

    @property
    def agreement(self) -> float | None:
        """Share of samples with the teacher's class; None where the first output is no logits."""
        return self.agreeing / self.classified if self.classified else None

    @property
    def kl(self) -> float | None:
        """Mean divergence of the class probabilities from the teacher's, in nats; None as above."""
        return self.divergence / self.classified if self.classified else None
