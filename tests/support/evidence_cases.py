# SPDX-License-Identifier: Apache-2.0
"""Evidence made up for a test, and samples of tiny networks as evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphprune.solvers.protocols.observed import Flow, Flows, Gradients, Products
from graphprune.solvers.protocols.reading import Reading


@dataclass
class MadeUp:
    """Stands in for what samples say: the same `scores` whoever asks for one figure per atom."""

    scores: Sequence[np.ndarray | None] = ()
    seen: Sequence[tuple[Reading, ...] | None] = ()
    at_outputs: Sequence[tuple[np.ndarray, ...] | None] = ()
    per_tensor: Mapping[str, np.ndarray] = field(default_factory=dict)
    around: Sequence[Flow | None] = ()
    asked: list[Any] = field(default_factory=list)

    def readings(self, samples: int) -> tuple[tuple[Reading, ...] | None, ...]:
        self.asked.append(samples)
        return tuple(self.seen)

    def output_gradients(self, samples: int) -> tuple[tuple[np.ndarray, ...] | None, ...]:
        return tuple(self.at_outputs)

    def map_ranks(self, samples: int) -> tuple[np.ndarray | None, ...]:
        self.asked.append(samples)
        return tuple(self.scores)

    def taylor_activation(self, samples: int) -> Gradients:
        self.asked.append(("activation", samples))
        return Gradients(tuple(self.scores), "loss")

    def taylor_weight(self, samples: int) -> Gradients:
        self.asked.append(("weight", samples))
        return Gradients(tuple(self.scores), "loss")

    def fisher(self, samples: int) -> Gradients:
        self.asked.append(("fisher", samples))
        return Gradients(tuple(self.scores), "loss")

    def products(self, samples: int) -> Products:
        return Products(self.per_tensor, "loss")

    def flows(self, samples: int, *, squared: bool) -> Flows:
        self.asked.append(squared)
        return Flows(tuple(self.around), "loss")


def made_up(sizes: Sequence[int], seed: int = 0) -> MadeUp:
    """Return evidence for groups of these sizes, with something for whoever asks."""
    rng = np.random.default_rng(seed)
    seen, at_outputs = [], []
    for size in sizes:
        x = rng.standard_normal((50, size))
        seen.append((Reading(x.T @ x / 50, rng.standard_normal((size, 3)), np.arange(size)[:, None]),))
        at_outputs.append((rng.random(3) + 0.1,))
    return MadeUp([rng.random(size) + 0.1 for size in sizes], seen, at_outputs)
