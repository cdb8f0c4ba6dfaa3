# SPDX-License-Identifier: Apache-2.0
"""MeasuredOutcomes without a network: every atom has a weight, and errors are sums of what is missing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from graphprune.solvers.problem import Problem
from graphprune.solvers.protocols.outcomes import Choose, Kept, Outcome, Profile


@dataclass(eq=False)
class MadeUp:
    """Stands in for graphprune.evidence.measured_outcomes.MeasuredOutcomes; `unknown` groups cannot be measured."""

    weights: list[np.ndarray]
    unknown: frozenset[int] = frozenset()
    streams: tuple[bool, ...] = ()
    stages: tuple[int, ...] = ()
    realised: list[Kept] = field(default_factory=list)
    scores: list[tuple[int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.streams = self.streams or (False,) * len(self.weights)
        self.stages = self.stages or tuple(range(len(self.weights)))

    def missing(self, group: int, kept: np.ndarray) -> float:
        return float(np.delete(self.weights[group], kept).sum())

    def error(self, kept: Kept) -> float:
        return sum(self.missing(group, atoms) for group, atoms in enumerate(kept))

    def realise(self, kept: Kept, method: str = "least-squares") -> Outcome:
        self.realised.append(kept)
        return Outcome(self.error(kept), -self.error(kept), "error", 10)

    def profiles(self, kept: Kept, levels: list[np.ndarray], count: int) -> tuple[Profile | None, ...]:
        return self.reconstructions(kept)

    def present(self, kept: Kept) -> MadeUpPresent:
        return MadeUpPresent(self, kept)

    def reconstructions(self, kept: Kept) -> tuple[Profile | None, ...]:
        found: list[Profile | None] = []
        for group, atoms in enumerate(kept):
            order = atoms[np.argsort(self.weights[group][atoms], kind="stable")]
            lost = np.cumsum(self.weights[group][order])
            widths = np.arange(len(atoms) + 1, dtype=np.int64)
            errors = np.append(lost[::-1], 0.0)
            found.append(None if group in self.unknown else Profile(order, widths, errors))
        return tuple(found)

    def go_forward(self, kept: Kept, choose: Choose) -> None:
        state = list(kept)
        for group, profile in enumerate(self.reconstructions(kept)):
            if profile is None:
                continue

            def score(width: int, group: int = group, profile: Profile = profile) -> float:
                found = 1 - self.error((*state[:group], profile.kept(width), *state[group + 1 :]))
                self.scores.append((group, found))
                return found

            state[group] = profile.kept(choose(group, profile, score))

    def stage_errors(self, stage: int, candidates: list[Kept]) -> np.ndarray:
        own = [group for group, of in enumerate(self.stages) if of == stage]
        return np.array([sum(self.missing(group, kept[group]) for group in own) for kept in candidates])


@dataclass(eq=False)
class MadeUpPresent:
    """Stands in for graphprune.evidence.present_network.PresentNetwork; outputs weigh readers unequally."""

    outcomes: MadeUp
    kept: Kept

    @property
    def curves(self) -> tuple[Profile | None, ...]:
        return tuple(
            None if curve is None else replace(curve, errors=curve.errors / (group + 1))
            for group, curve in enumerate(self.outcomes.reconstructions(self.kept))
        )

    def errors(self, widths: np.ndarray) -> np.ndarray:
        measured = zip(self.outcomes.reconstructions(self.kept), widths, strict=True)
        return np.array([np.nan if curve is None or width < 0 else curve.at(width) for curve, width in measured])


@dataclass(eq=False)
class MadeUpEvidence:
    """Stands in for graphprune.evidence.sample_evidence.SampleEvidence."""

    outcomes: MadeUp


def with_evidence(case: Problem, **facts: object) -> Problem:
    """Return a problem with made-up outcomes; weights are those of its scores, shared out to a sum of 1."""
    total = sum(float(scores.sum()) for scores in case.scores) or 1.0
    made = MadeUp([scores / total for scores in case.scores], **facts)  # type: ignore[arg-type]
    return replace(case, evidence=MadeUpEvidence(made))
