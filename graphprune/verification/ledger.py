# SPDX-License-Identifier: Apache-2.0
"""A ledger: judges tensors one by one and keeps the worst deviation (in the child process)."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphprune.array_types import Array
from graphprune.verification.deviation import FLOOR_FACTOR, deviation, few, stepped, tolerance
from graphprune.verification.spec import Spec, TensorSpec

__all__ = ["BEYOND", "Ledger"]

BEYOND = 1e300
"""Stands for infinity in JSON."""


class Ledger:
    """What was compared, and what deviates most.

    Attributes
    ----------
    compared : int
        Number of judgements.
    """

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._worst: dict[str, Any] = {"error": 0.0, "tolerance": spec.relative, "tensor": "", "failed": False}
        self.compared = 0

    @property
    def failed(self) -> bool:
        """Whether something deviates by more than rounding explains."""
        return bool(self._worst["failed"])

    def report(self) -> dict[str, Any]:
        """Return what to tell the parent."""
        return {**self._worst, "compared": self.compared}

    def judge(self, tensor: TensorSpec, wanted: Array, actual: Array) -> float | None:
        """Record how far a tensor deviates; return that instead where only a measured floor could excuse it."""
        if not tensor.compare:
            return None
        if tensor.stepped:
            self._record(tensor.name, stepped(wanted, actual), few(wanted) if tensor.cut == "few" else 1.0)
            return None
        error = deviation(wanted, actual)
        allowed = tolerance(wanted.dtype, 0.0, tensor.grain, self._spec.relative)
        # Behind a rounding operator both go on from the same values, and only the last stretch rounds.
        if error <= allowed or tensor.behind or wanted.shape != actual.shape:
            self._record(tensor.name, error, allowed)
            return None
        return error

    def settle(self, tensor: TensorSpec, kind: str, error: float, noise: float, dtype: np.dtype[Any]) -> None:
        """Judge a deviation by how far rounding moves the tensor on this kind of input.

        A tensor that rounding alone moves beyond the widest tolerance (the mean of what was just centred) is nothing
        but rounding; on extreme inputs less is enough to judge nothing.
        """
        allowed = tolerance(dtype, noise, tensor.grain, self._spec.relative)
        widest = tolerance(dtype, float("inf"), tensor.grain)
        if self._spec.chaotic:
            judged = FLOOR_FACTOR * noise <= widest
        else:
            judged = noise <= widest if kind == "normal" else FLOOR_FACTOR * noise <= allowed
        if judged:
            self._record(tensor.name, error, allowed)

    def _record(self, name: str, error: float, allowed: float) -> None:
        self.compared += 1
        worse = error / allowed > self._worst["error"] / self._worst["tolerance"] or not np.isfinite(error)
        if worse and not (self.failed and not np.isfinite(self._worst["error"])):
            failed = self.failed or not error <= allowed
            self._worst = {"error": min(error, BEYOND), "tolerance": allowed, "tensor": name, "failed": failed}
