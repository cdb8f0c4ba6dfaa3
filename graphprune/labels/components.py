# SPDX-License-Identifier: Apache-2.0
"""Components that grow together, and who has to look again when they do.

Both are vectorised: a choice moves the hundreds of channels of an axis at once, and touches nothing else, so that
deciding thousands of choices takes time in proportion to what they name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from graphprune.labels.vector import Ints

__all__ = ["Flags", "Forest", "Watchers", "components"]

Flags = npt.NDArray[np.bool_]


def components(count: int, left: Ints, right: Ints) -> Ints:
    """Component number of each of `count` vertices, given the edges ``left[i] -- right[i]``."""
    if not len(left):
        return np.arange(count, dtype=np.int64)
    ones = np.ones(len(left), dtype=np.bool_)
    graph: Any = coo_array((ones, (left, right)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


class Forest:
    """Disjoint sets of vertices, each known by its smallest one.

    Parameters
    ----------
    count : int
        Vertices are ``0 .. count - 1``.
    """

    def __init__(self, count: int) -> None:
        self._parent: Ints = np.arange(count, dtype=np.int64)

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
            for bundle in np.unique(self._bundle[vertices]).tolist():
                self._watching[bundle].add(key)

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
        return {self._root(bundle) for bundle in np.unique(self._bundle[vertices]).tolist()}

    def _root(self, bundle: int) -> int:
        while self._parent[bundle] != bundle:
            self._parent[bundle] = bundle = self._parent[self._parent[bundle]]
        return bundle
