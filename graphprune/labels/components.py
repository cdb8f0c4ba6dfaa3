# SPDX-License-Identifier: Apache-2.0
"""Components that grow together, and who has to look again when they do.

Both are vectorised: a choice moves the hundreds of channels of an axis at once, and touches nothing else, so that
deciding thousands of choices takes time in proportion to what they name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from graphprune.labels.vector import Ints

__all__ = ["Flags", "Forest", "Watchers", "components", "distinct"]

Flags = npt.NDArray[np.bool_]


def components(count: int, left: Ints, right: Ints) -> Ints:
    """Component number of each of `count` vertices, given the edges ``left[i] -- right[i]``; smallest vertices first.

    A choice asks this of a few hundred edges, where making a sparse matrix takes several times as long as the answer.
    """
    if len(left) <= _FEW:
        return _hooked(count, left, right)
    ones = np.ones(len(left), dtype=np.bool_)
    graph: Any = coo_array((ones, (left, right)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


_FEW = 4096
"""Edges up to which numpy alone is quicker."""


def _hooked(count: int, left: Ints, right: Ints) -> Ints:
    """Return components: roots of trees are hooked onto smaller ones beside them until no edge joins two trees.

    Notes
    -----
    Source: Shiloach and Vishkin, An O(log n) parallel connectivity algorithm, Journal of Algorithms 3 (1982).
    """
    vertices = np.arange(count, dtype=np.int64)
    root = vertices.copy()
    while True:
        one, other = root[left], root[right]
        apart = one != other
        if not apart.any():
            return (np.cumsum(root == vertices) - 1)[root]
        left, right, one, other = left[apart], right[apart], one[apart], other[apart]
        np.minimum.at(root, np.maximum(one, other), np.minimum(one, other))
        above = root[root]
        while not np.array_equal(above, root):
            root, above = above, above[above]


def distinct(numbers: Ints) -> Ints:
    """Return these numbers without repetition, in order: of a few hundred several times as fast as `np.unique`."""
    ordered = np.sort(numbers)
    first = np.ones(len(ordered), dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]


class Forest:
    """Disjoint sets of vertices, each known by its smallest one.

    Parameters
    ----------
    count : int
        Vertices are ``0 .. count - 1``.
    """

    def __init__(self, count: int) -> None:
        self._parent: Ints = np.arange(count, dtype=np.int64)

    def copy(self) -> Forest:
        """Return one that grows on its own."""
        other = Forest(0)
        other._parent = self._parent.copy()
        return other

    def roots(self, vertices: Ints) -> Ints:
        """Return the smallest vertex of the set of each vertex, shape as given."""
        found = self._parent[vertices]
        above = self._parent[found]
        if not np.array_equal(found, above):
            while not np.array_equal(found, above):
                found, above = above, self._parent[above]
            self._parent[vertices] = found  # shorter ways next time
        return found

    def merge(self, left: Ints, right: Ints) -> tuple[Ints, Ints]:
        """Unite pairs of vertices; return the roots before, without repetition, and the root of each after."""
        left, right = self.roots(left), self.roots(right)
        vertices, compact = np.unique(np.concatenate([left, right]), return_inverse=True)
        parts = components(len(vertices), compact[: len(left)], compact[len(left) :])
        target = np.full(int(parts.max()) + 1, len(self._parent), dtype=np.int64)
        np.minimum.at(target, parts, vertices)
        self._parent[vertices] = target[parts]
        return vertices, target[parts]


class Watchers:
    """Which choices look at which vertices, also after vertices have been united.

    Vertices that the same choices look at form a *bundle*; uniting vertices unites their bundles. A bundle may
    name a choice that looks at other vertices of it only: then somebody looks again for nothing.

    Parameters
    ----------
    count : int
        Vertices are ``0 .. count - 1``.
    watched : mapping of int to ndarray of int64
        For each choice the vertices that it looks at, each once.
    """

    def __init__(self, count: int, watched: Mapping[int, Ints]) -> None:
        signature = np.zeros(count, dtype=np.uint64)
        tokens = np.random.default_rng(0).integers(1, 2**63, size=len(watched), dtype=np.uint64)
        for token, vertices in zip(tokens, watched.values(), strict=True):
            signature[vertices] += token
        _, self._bundle = np.unique(signature, return_inverse=True)
        self._parent = list(range(int(self._bundle.max()) + 1))
        self._watching: list[set[int]] = [set() for _ in self._parent]
        for key, vertices in watched.items():
            for bundle in distinct(self._bundle[vertices]).tolist():
                self._watching[bundle].add(key)

    def copy(self) -> Watchers:
        """Return one in which vertices are united on their own."""
        other = copy(self)
        other._parent = self._parent.copy()
        other._watching = [set(keys) for keys in self._watching]
        return other

    def merge(self, vertices: Ints) -> None:
        """Note that some of these vertices have been united."""
        roots = sorted(self._roots(vertices), key=lambda root: len(self._watching[root]))
        for root in roots[:-1]:
            self._parent[root] = roots[-1]
            self._watching[roots[-1]] |= self._watching[root]
            self._watching[root] = set()

    def of(self, vertices: Ints, pending: Collection[int]) -> set[int]:
        """Return those of the pending choices that look at one of these vertices; others are forgotten."""
        found: set[int] = set()
        for root in self._roots(vertices):
            self._watching[root] = {key for key in self._watching[root] if key in pending}
            found |= self._watching[root]
        return found

    def _roots(self, vertices: Ints) -> set[int]:
        return {self._root(bundle) for bundle in distinct(self._bundle[vertices]).tolist()}

    def _root(self, bundle: int) -> int:
        while self._parent[bundle] != bundle:
            self._parent[bundle] = bundle = self._parent[self._parent[bundle]]
        return bundle
