# SPDX-License-Identifier: Apache-2.0
"""Resolution: which labels hang together, which stay, and how every choice comes out.

1. All couplings at once: connected components.
2. While choices remain: commit each one that has a single alternative left with something
   unfrozen (none: freeze all its axes); then the first remaining one by policy; repeat.

Choices are decided on *components*, and only those whose components changed are looked at again.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from graphprune.choices import Attention
from graphprune.labels.components import Flags, Forest, Watchers, components
from graphprune.labels.space import Alternative, Choice, LabelSpace, Reason
from graphprune.labels.vector import Ints

__all__ = ["Attention", "Resolution", "resolve"]


@dataclass(frozen=True, eq=False)
class Resolution:
    """The outcome for every label.

    Attributes
    ----------
    component : ndarray of int64, shape (labels,)
        Labels with the same number live and die together.
    frozen : ndarray of bool, shape (labels,)
        Whether the label's component stays. Label 0 does.
    freezes : list of (labels, reason)
        All freezes, those of committed choices included.
    couplings : list of (left, right, node)
        All couplings that hold.
    committed : list of (choice, alternative or None)
        How each choice came out; None where every alternative was frozen.
    """

    component: Ints
    frozen: Flags
    freezes: list[tuple[Ints, Reason]]
    couplings: list[tuple[Ints, Ints, object]]
    committed: list[tuple[Choice, Alternative | None]] = field(default_factory=list)


def resolve(space: LabelSpace, attention: Attention = "heads", wanted: Mapping[int, str] | None = None) -> Resolution:
    """Unite what is coupled and decide every choice.

    Parameters
    ----------
    attention : {"heads", "head-dim"}
        Which axis of an attention layer carries the channels: whole heads (a batch axis of a
        product of two activations) or the same part of every head (a contracted axis).
    wanted : mapping of int to str, optional
        By number of a choice the name of the alternative that comes first, if it is still possible.

    Complexity: O(labels + couplings) for the components; each commit touches its own components and
    the choices that look at them.
    """
    state = _State(space, attention, wanted or {})
    state.settle()
    component = state.roots(np.arange(space.count, dtype=np.int64))
    frozen = state.frozen[component]
    return Resolution(component, frozen, state.freezes, state.couplings, state.committed)


class _State:
    """Components while choices are being committed.

    `first` maps a label to its component after all plain couplings; `roots` leads on to the one that
    it has been merged into since. Choices that have become forced, or that attention's policy
    prefers, wait in queues in graph order.
    """

    def __init__(self, space: LabelSpace, attention: Attention, wanted: Mapping[int, str]) -> None:
        self.attention = attention
        self.wanted = wanted
        self.freezes = list(space.freezes)
        self.couplings: list[tuple[Ints, Ints, object]] = list(space.couplings)
        self.committed: list[tuple[Choice, Alternative | None]] = []
        left = np.concatenate([np.zeros(0, dtype=np.int64), *(c[0] for c in space.couplings)])
        right = np.concatenate([np.zeros(0, dtype=np.int64), *(c[1] for c in space.couplings)])
        self.first = components(space.count, left, right)
        size = int(self.first.max()) + 1
        self.forest = Forest(size)
        self.frozen = np.zeros(size, dtype=np.bool_)
        self.frozen[self.first[0]] = True
        self.batch = self._flag(space.batch, size)
        self.contracted = self._flag(space.contracted, size)
        for labels, _ in space.freezes:
            self.frozen[self.first[labels]] = True
        self.pending: dict[int, Choice] = dict(enumerate(space.choices))
        touches = {key: np.unique(self.first[_labels(choice)]) for key, choice in self.pending.items()}
        self.watchers = Watchers(size, touches)
        self.viable: dict[int, list[tuple[Alternative, int]]] = {}
        self.forced: list[int] = []
        self.preferred: list[int] = []
        self.order = iter(tuple(self.pending))

    def _flag(self, vectors: list[Ints], size: int) -> Flags:
        flags = np.zeros(size, dtype=np.bool_)
        for vector in vectors:
            flags[self.first[vector]] = True
        return flags

    def roots(self, labels: Ints) -> Ints:
        """Return the component of each label."""
        return self.forest.roots(self.first[labels])

    def settle(self) -> None:
        """Commit all choices: forced ones first, then one by policy, until none is left."""
        self._look(self.pending)
        while self.pending:
            key = self._next()
            changed = self._commit(self.pending.pop(key), self._pick(key))
            self._look(self.watchers.of(changed, self.pending))

    def _look(self, keys: Iterable[int]) -> None:
        """See what is left of choices, and let those wait that have become forced or preferred."""
        for key in keys:
            options = self.viable[key] = self._viable(self.pending[key])
            if len(options) <= 1:
                heapq.heappush(self.forced, key)
            elif self._any_preferred(key):
                heapq.heappush(self.preferred, key)

    def _next(self) -> int:
        """Return the first forced choice; else the first one of attention, which is settled before the rest."""
        while self.forced:
            key = heapq.heappop(self.forced)
            if key in self.pending:
                return key
        while self.preferred:
            key = heapq.heappop(self.preferred)
            if key in self.pending and self._any_preferred(key):
                return key
        return next(key for key in self.order if key in self.pending)

    def _any_preferred(self, key: int) -> bool:
        return any(self._preferred(key, alternative) for alternative, _ in self.viable[key])

    def _viable(self, choice: Choice) -> list[tuple[Alternative, int]]:
        """Alternatives that leave something unfrozen, with their number of unfrozen atoms."""
        found = []
        for alternative in choice.alternatives:
            atoms = self._atoms(alternative)
            if atoms:
                found.append((alternative, atoms))
        return found

    def _atoms(self, alternative: Alternative) -> int:
        left = self.roots(alternative.left)
        right = self.roots(alternative.right)
        vertices, compact = np.unique(np.concatenate([left, right]), return_inverse=True)
        parts = components(len(vertices), compact[: len(left)], compact[len(left) :])
        held = np.zeros(int(parts.max()) + 1, dtype=np.bool_)
        held[parts[self.frozen[vertices]]] = True
        others = alternative.frozen[alternative.frozen != 0]
        if len(others):
            stopped = np.isin(vertices, self.roots(others))
            held[parts[stopped]] = True
        return int((~held).sum()) // alternative.sides

    def _preferred(self, key: int, alternative: Alternative) -> bool:
        if key in self.wanted:
            return alternative.name == self.wanted[key]
        flags = self.batch if self.attention == "heads" else self.contracted
        return bool(flags[self.roots(alternative.left)].any() or flags[self.roots(alternative.right)].any())

    def _pick(self, key: int) -> Alternative | None:
        """Return the preferred alternative, else the one with most atoms; ties by order."""
        options = self.viable[key]
        if not options:
            return None
        ranked = [(self._preferred(key, alternative), atoms, -at) for at, (alternative, atoms) in enumerate(options)]
        return options[ranked.index(max(ranked))][0]

    def _commit(self, choice: Choice, alternative: Alternative | None) -> Ints:
        """Apply an alternative; returns the components that changed."""
        self.committed.append((choice, alternative))
        if alternative is None:
            return self._freeze(
                _labels(choice), Reason("reshape", choice.node, "no axis can carry the channels through")
            )
        changed = [
            self._freeze(
                alternative.frozen, Reason("other axis of a reshape", choice.node, "another axis carries the channels")
            )
        ]
        zero = (alternative.left == 0) | (alternative.right == 0)
        if zero.any():
            meets = Reason("fixed axis", choice.node, "ties the channels to an axis that stays whole")
            changed.append(self._freeze((alternative.left + alternative.right)[zero], meets))
        left, right = alternative.left[~zero], alternative.right[~zero]
        if len(left):
            self.couplings.append((left, right, choice.node))
            changed.append(self._merge(left, right))
        return np.concatenate(changed)

    def _freeze(self, labels: Ints, reason: Reason) -> Ints:
        labels = labels[labels != 0]
        if not len(labels):
            return labels
        self.freezes.append((labels, reason))
        roots = np.unique(self.roots(labels))
        fresh = roots[~self.frozen[roots]]
        self.frozen[fresh] = True
        return fresh

    def _merge(self, left: Ints, right: Ints) -> Ints:
        before, after = self.forest.merge(self.first[left], self.first[right])
        for flags in (self.frozen, self.batch, self.contracted):
            np.logical_or.at(flags, after, flags[before])
        self.watchers.merge(before)
        changed: Ints = np.unique(after)
        return changed


def _labels(choice: Choice) -> Ints:
    """All labels that some alternative of a choice names, without 0."""
    parts = [part for a in choice.alternatives for part in (a.left, a.right, a.frozen)]
    labels = np.unique(np.concatenate(parts))
    named: Ints = labels[labels != 0]
    return named
