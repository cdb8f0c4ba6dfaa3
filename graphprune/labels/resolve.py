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
from copy import copy
from dataclasses import dataclass, field

import numpy as np

from graphprune.choices import Attention
from graphprune.labels.components import Flags, Forest, Watchers, components, distinct
from graphprune.labels.space import Alternative, Choice, LabelSpace, Reason, other_way
from graphprune.labels.vector import Ints

__all__ = ["Attention", "Resolution", "Resolver", "resolve"]


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
    """Unite what is coupled and decide every choice (see `Resolver`)."""
    return Resolver(space, attention).resolve(wanted)


class Resolver:
    """Unites what is coupled and decides every choice, several times if other alternatives are wanted.

    Parameters
    ----------
    attention : {"heads", "head-dim"}
        Which axis of an attention layer carries the channels: whole heads (a batch axis of a
        product of two activations) or the same part of every head (a contracted axis).

    Complexity: O(labels + couplings) for the components, and forced choices, once; each commit touches its own
    components and the choices that look at them.
    """

    def __init__(self, space: LabelSpace, attention: Attention = "heads") -> None:
        self._labels = np.arange(space.count, dtype=np.int64)
        self._start = _State(space, attention)
        self._start.settle_forced()

    def resolve(self, wanted: Mapping[int, str] | None = None) -> Resolution:
        """Return the outcome for every label.

        Parameters
        ----------
        wanted : mapping of int to str, optional
            By number of a choice the name of the alternative that comes first, if it is still possible.
        """
        state = self._start.wanting(wanted or {})
        state.settle()
        component = state.roots(self._labels)
        return Resolution(component, state.frozen[component], state.freezes, state.couplings, state.committed)


class _State:
    """Components while choices are being committed.

    `first` maps a label to its component after all plain couplings; `roots` leads on to the one that
    it has been merged into since. Choices that have become forced, or that are preferred, wait in queues in graph
    order.
    """

    def __init__(self, space: LabelSpace, attention: Attention) -> None:
        self.attention = attention
        self.wanted: Mapping[int, str] = {}
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
        touches = {key: distinct(self.first[_labels(choice)]) for key, choice in self.pending.items()}
        self.watchers = Watchers(size, touches)
        self.viable: dict[int, list[tuple[Alternative, int]]] = {}
        self.forced: list[int] = []
        self.preferred: list[int] = []
        self.order = iter(tuple(self.pending))
        self._look(self.pending)

    def wanting(self, wanted: Mapping[int, str]) -> _State:
        """Return a state of its own that goes on from here with other preferences."""
        other = copy(self)
        other.wanted = wanted
        other.freezes, other.couplings, other.committed = [*self.freezes], [*self.couplings], [*self.committed]
        other.forest, other.watchers = self.forest.copy(), self.watchers.copy()
        other.frozen, other.batch, other.contracted = self.frozen.copy(), self.batch.copy(), self.contracted.copy()
        other.pending, other.viable, other.forced = self.pending.copy(), self.viable.copy(), [*self.forced]
        other.preferred = [key for key in self.pending if len(self.viable[key]) > 1 and other._any_preferred(key)]
        other.order = iter(tuple(self.pending))
        return other

    def _flag(self, vectors: list[Ints], size: int) -> Flags:
        flags = np.zeros(size, dtype=np.bool_)
        for vector in vectors:
            flags[self.first[vector]] = True
        return flags

    def roots(self, labels: Ints) -> Ints:
        """Return the component of each label."""
        return self.forest.roots(self.first[labels])

    def settle_forced(self) -> None:
        """Commit the choices that come out in one way whatever is preferred."""
        while (key := self._next_forced()) is not None:
            self._settle(key)

    def settle(self) -> None:
        """Commit all choices: forced ones first, then one by policy, until none is left."""
        while self.pending:
            self._settle(self._next())

    def _settle(self, key: int) -> None:
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
        forced = self._next_forced()
        if forced is not None:
            return forced
        while self.preferred:
            key = heapq.heappop(self.preferred)
            if key in self.pending and self._any_preferred(key):
                return key
        return next(key for key in self.order if key in self.pending)

    def _next_forced(self) -> int | None:
        while self.forced:
            key = heapq.heappop(self.forced)
            if key in self.pending:
                return key
        return None

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
        changed = [self._freeze(alternative.frozen, other_way(choice.node, alternative))]
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
        roots = distinct(self.roots(labels))
        fresh = roots[~self.frozen[roots]]
        self.frozen[fresh] = True
        return fresh

    def _merge(self, left: Ints, right: Ints) -> Ints:
        before, after = self.forest.merge(self.first[left], self.first[right])
        for flags in (self.frozen, self.batch, self.contracted):
            np.logical_or.at(flags, after, flags[before])
        self.watchers.merge(before)
        return distinct(after)


def _labels(choice: Choice) -> Ints:
    """All labels that some alternative of a choice names, without 0."""
    parts = [part for a in choice.alternatives for part in (a.left, a.right, a.frozen)]
    labels = distinct(np.concatenate(parts))
    named: Ints = labels[labels != 0]
    return named
