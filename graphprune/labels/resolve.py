# SPDX-License-Identifier: Apache-2.0
"""Resolution: which labels hang together, which stay, and how every choice comes out.

1. All couplings at once: connected components.
2. While choices remain: commit each one that has a single alternative left with something
   unfrozen (none: freeze all its axes); then the first remaining one by policy; repeat.

Choices are decided on *components*, and only those whose components changed are looked at again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from graphprune.labels.space import Alternative, Choice, LabelSpace, Reason
from graphprune.labels.vector import Ints

__all__ = ["Attention", "Resolution", "resolve"]

Attention = Literal["heads", "head-dim"]
Flags = npt.NDArray[np.bool_]


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


def resolve(space: LabelSpace, attention: Attention = "heads") -> Resolution:
    """Unite what is coupled and decide every choice.

    Parameters
    ----------
    attention : {"heads", "head-dim"}
        Which axis of an attention layer carries the channels: whole heads (a batch axis of a
        product of two activations) or the same part of every head (a contracted axis).

    Complexity: O(labels + couplings) for the components; each commit touches its own components.
    """
    state = _State(space, attention)
    state.settle()
    component = state.root[state.first]
    frozen = state.frozen[component]
    return Resolution(component, frozen, state.freezes, state.couplings, state.committed)


def _components(count: int, left: Ints, right: Ints) -> Ints:
    """Component number of each of `count` vertices."""
    if not len(left):
        return np.arange(count, dtype=np.int64)
    ones = np.ones(len(left), dtype=np.bool_)
    graph: Any = coo_array((ones, (left, right)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


class _State:
    """Components while choices are being committed.

    `first` maps a label to its component after all plain couplings; `root` maps such a component
    to the one it has been merged into since.
    """

    def __init__(self, space: LabelSpace, attention: Attention) -> None:
        self.attention = attention
        self.freezes = list(space.freezes)
        self.couplings: list[tuple[Ints, Ints, object]] = list(space.couplings)
        self.committed: list[tuple[Choice, Alternative | None]] = []
        left = np.concatenate([np.zeros(0, dtype=np.int64), *(c[0] for c in space.couplings)])
        right = np.concatenate([np.zeros(0, dtype=np.int64), *(c[1] for c in space.couplings)])
        self.first = _components(space.count, left, right)
        size = int(self.first.max()) + 1
        self.root = np.arange(size, dtype=np.int64)
        self.frozen = np.zeros(size, dtype=np.bool_)
        self.frozen[self.first[0]] = True
        self.batch = self._flag(space.batch, size)
        self.contracted = self._flag(space.contracted, size)
        for labels, _ in space.freezes:
            self.frozen[self.first[labels]] = True
        self.pending: dict[int, Choice] = dict(enumerate(space.choices))
        self.touches = {key: np.unique(self.first[_labels(choice)]) for key, choice in self.pending.items()}
        self.viable: dict[int, list[tuple[Alternative, int]]] = {}

    def _flag(self, vectors: list[Ints], size: int) -> Flags:
        flags = np.zeros(size, dtype=np.bool_)
        for vector in vectors:
            flags[self.first[vector]] = True
        return flags

    def settle(self) -> None:
        """Commit all choices: forced ones first, then one by policy, until none is left."""
        dirty = set(self.pending)
        while self.pending:
            for key in sorted(dirty):
                self.viable[key] = self._viable(self.pending[key])
            forced = next((key for key in sorted(self.pending) if len(self.viable[key]) <= 1), None)
            key = forced if forced is not None else self._by_policy()
            changed = self._commit(self.pending.pop(key), self._pick(key))
            touched = np.zeros(len(self.root), dtype=np.bool_)
            touched[changed] = True
            dirty = {other for other in self.pending if touched[self.root[self.touches[other]]].any()}

    def _viable(self, choice: Choice) -> list[tuple[Alternative, int]]:
        """Alternatives that leave something unfrozen, with their number of unfrozen atoms."""
        found = []
        for alternative in choice.alternatives:
            atoms = self._atoms(alternative)
            if atoms:
                found.append((alternative, atoms))
        return found

    def _atoms(self, alternative: Alternative) -> int:
        left = self.root[self.first[alternative.left]]
        right = self.root[self.first[alternative.right]]
        vertices, compact = np.unique(np.concatenate([left, right]), return_inverse=True)
        parts = _components(len(vertices), compact[: len(left)], compact[len(left) :])
        held = np.zeros(int(parts.max()) + 1, dtype=np.bool_)
        held[parts[self.frozen[vertices]]] = True
        others = alternative.frozen[alternative.frozen != 0]
        if len(others):
            stopped = np.isin(vertices, self.root[self.first[others]])
            held[parts[stopped]] = True
        return int((~held).sum()) // alternative.sides

    def _by_policy(self) -> int:
        """Return the first remaining choice in graph order; attention's are settled before the rest."""
        for key in sorted(self.pending):
            if any(self._preferred(alternative) for alternative, _ in self.viable[key]):
                return key
        return min(self.pending)

    def _preferred(self, alternative: Alternative) -> bool:
        flags = self.batch if self.attention == "heads" else self.contracted
        return bool(
            flags[self.root[self.first[alternative.left]]].any()
            or flags[self.root[self.first[alternative.right]]].any()
        )

    def _pick(self, key: int) -> Alternative | None:
        """Return the preferred alternative, else the one with most atoms; ties by order."""
        options = self.viable[key]
        if not options:
            return None
        ranked = [(self._preferred(alternative), atoms, -at) for at, (alternative, atoms) in enumerate(options)]
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
        roots = np.unique(self.root[self.first[labels]])
        fresh = roots[~self.frozen[roots]]
        self.frozen[fresh] = True
        return fresh

    def _merge(self, left: Ints, right: Ints) -> Ints:
        left, right = self.root[self.first[left]], self.root[self.first[right]]
        vertices, compact = np.unique(np.concatenate([left, right]), return_inverse=True)
        parts = _components(len(vertices), compact[: len(left)], compact[len(left) :])
        target = np.full(int(parts.max()) + 1, len(self.root), dtype=np.int64)
        np.minimum.at(target, parts, vertices)
        new = target[parts]
        for flags in (self.frozen, self.batch, self.contracted):
            np.logical_or.at(flags, new, flags[vertices])
        move = np.arange(len(self.root), dtype=np.int64)
        move[vertices] = new
        self.root = move[self.root]
        changed: Ints = np.unique(new)
        return changed


def _labels(choice: Choice) -> Ints:
    """All labels that some alternative of a choice names, without 0."""
    parts = [part for a in choice.alternatives for part in (a.left, a.right, a.frozen)]
    labels = np.unique(np.concatenate(parts))
    return labels[labels != 0]
