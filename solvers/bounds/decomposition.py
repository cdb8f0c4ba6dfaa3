# SPDX-License-Identifier: Apache-2.0
"""Tree decompositions: the variables of a network in bags along a tree, so that dynamic programming is exact.

Each table fits into one bag, and the bags that hold a variable are connected. Networks of layers are nearly trees: a
chain of layers needs bags of two groups, a residual stage with bottlenecks three, whatever the depth. A bag is stored
as its *rows*, the combinations of states that can occur; sums leave few of them, and rows that are known not to belong
to any better solution are dropped for good.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
from networkx.algorithms.approximation import treewidth_min_degree, treewidth_min_fill_in

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from graphprune.solvers.bounds.factors import FactorSum, Network, Scope

    Rows = npt.NDArray[np.int64]

__all__ = ["Bag", "Tree", "decompose"]


@dataclass(eq=False)
class Bag:
    """Some variables, and which of their states can occur together.

    Attributes
    ----------
    scope : tuple of int
        The variables.
    columns : ndarray of int64, shape (variables, rows)
        Their states in each row.
    parent : int
        The bag above, -1 for a root.
    scopes : list of tuple
        The tables that count here.
    starts : ndarray of int64
        Rows are sorted by what they share with the parent; where each such *key* begins.
    above : ndarray of int64, shape (rows of the parent,)
        The key that each row of the parent shares, -1 for none.
    """

    scope: Scope
    columns: Rows
    parent: int = -1
    scopes: list[Scope] = field(default_factory=list)
    starts: Rows = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    above: Rows = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


@dataclass(eq=False)
class Tree:
    """The bags of a network, each behind its parent."""

    network: Network
    bags: list[Bag]

    @property
    def rows(self) -> int:
        """How many rows there are, in all."""
        return sum(bag.columns.shape[1] for bag in self.bags)

    def keep(self, masks: Iterable[npt.NDArray[np.bool_]]) -> None:
        """Drop the rows that are not marked, in each bag."""
        for bag, mask in zip(self.bags, masks, strict=True):
            bag.columns = bag.columns[:, mask]
        self.link()

    def link(self) -> None:
        """Sort rows by what they share with the parent, and find it there."""
        for bag in self.bags:
            if bag.parent >= 0:
                _link(bag, self.bags[bag.parent], self.network)


def decompose(candidates: Iterable[Network], most_rows: int) -> Tree | None:
    """Return the tree with the fewest rows that networkx's heuristics find for any of some equivalent networks.

    Returns
    -------
    Tree or None
        None if each has more than `most_rows` rows.
    """
    trees = []
    for number, network in enumerate(candidates):
        graph: nx.Graph[int] = nx.Graph()
        graph.add_nodes_from(range(len(network.domains)))
        for scope in sorted(network.scopes):
            graph.add_edges_from((one, two) for one in scope for two in scope if one < two)
        for heuristic in (treewidth_min_degree, treewidth_min_fill_in):
            scopes, parents = _bags(graph, heuristic)
            trees.append((_work(network, scopes), number, scopes, parents, network))
    if not trees:
        return None
    work, _, scopes, parents, network = min(trees, key=lambda entry: entry[:2])
    return _tree(network, scopes, parents) if work <= most_rows else None


def _bags(graph: nx.Graph[int], heuristic: Any) -> tuple[list[Scope], list[int]]:
    """Return the bags of each component, parents first, without those that lie within a neighbour."""
    scopes: list[Scope] = []
    parents: list[int] = []
    for component in nx.connected_components(graph):
        _, tree = heuristic(graph.subgraph(sorted(component)).copy())
        tree = _contracted(tree)
        root = min(tree, key=sorted)
        place = {root: len(scopes)}
        scopes.append(tuple(sorted(root)))
        parents.append(-1)
        for above, below in nx.bfs_edges(tree, root, sort_neighbors=lambda bags: sorted(bags, key=sorted)):
            place[below] = len(scopes)
            scopes.append(tuple(sorted(below)))
            parents.append(place[above])
    return scopes, parents


def _contracted(tree: nx.Graph[frozenset[int]]) -> nx.Graph[frozenset[int]]:
    """Return a tree of bags in which no bag lies within a neighbour."""
    queue = sorted(tree, key=lambda bag: (len(bag), sorted(bag)))
    for bag in queue:
        wider = sorted((other for other in tree[bag] if bag <= other), key=sorted)
        if wider:
            for other in list(tree[bag]):
                if other != wider[0]:
                    tree.add_edge(wider[0], other)
            tree.remove_node(bag)
    return tree


def _work(network: Network, scopes: list[Scope]) -> float:
    """Return about how many rows bags would have."""
    return sum(math.exp(min(50.0, _log_rows(network, scope))) for scope in scopes)


def _log_rows(network: Network, scope: Scope) -> float:
    present = set(scope)
    determined = {entry.result for entry in network.sums if {entry.result, entry.left, entry.right} <= present}
    return sum(math.log(len(network.domains[variable])) for variable in scope if variable not in determined)


def _tree(network: Network, scopes: list[Scope], parents: list[int]) -> Tree:
    """Return the bags with their rows and tables."""
    bags = [Bag(scope, _combinations(network, scope), parent) for scope, parent in zip(scopes, parents, strict=True)]
    homes = {*network.scopes, *((group,) for group in range(len(network.values)))}
    for scope in sorted(homes):
        fitting = [bag for bag in bags if set(scope) <= set(bag.scope)]
        min(fitting, key=lambda bag: bag.columns.shape[1]).scopes.append(scope)
    tree = Tree(network, bags)
    tree.link()
    return tree


def _combinations(network: Network, scope: Scope) -> Rows:
    """Return all states of some variables that can occur together, shape (variables, rows)."""
    present = set(scope)
    sums = [entry for entry in network.sums if {entry.result, entry.left, entry.right} <= present]
    order = sorted(scope, key=lambda variable: (any(entry.result == variable for entry in sums), variable))
    columns: dict[int, Rows] = {}
    rows = 1
    for variable in order:
        given = next((entry for entry in sums if entry.result == variable), None)
        if given is not None:  # both parts come before it
            columns[variable] = _sum_states(network, given, columns)
            continue
        states = len(network.domains[variable])
        columns = {known: np.repeat(column, states) for known, column in columns.items()}
        columns[variable] = np.tile(np.arange(states), rows)
        rows *= states
    return np.stack([columns[variable] for variable in scope])


def _sum_states(network: Network, entry: FactorSum, columns: dict[int, Rows]) -> Rows:
    """Return the state of a sum in each row; another sum that gives the same variable would agree."""
    left, right = network.domains[entry.left], network.domains[entry.right]
    total = entry.left_factor * left[columns[entry.left]] + entry.right_factor * right[columns[entry.right]]
    return np.searchsorted(network.domains[entry.result], total)


def _link(bag: Bag, parent: Bag, network: Network) -> None:
    """Sort the rows of a bag by the key that they share with its parent, and give each row of the parent its key."""
    shared = [variable for variable in bag.scope if variable in parent.scope]
    here, there = _keys(bag, shared, network), _keys(parent, shared, network)
    order = np.argsort(here, kind="stable")
    bag.columns, here = bag.columns[:, order], here[order]
    keys, bag.starts = np.unique(here, return_index=True)
    place = np.minimum(np.searchsorted(keys, there), max(0, len(keys) - 1))
    bag.above = np.where(keys[place] == there, place, -1) if len(keys) else np.full(len(there), -1)


def _keys(bag: Bag, shared: list[int], network: Network) -> Rows:
    """Return one number per row for its states of the shared variables."""
    key = np.zeros(bag.columns.shape[1], dtype=np.int64)
    for variable in shared:
        key = key * len(network.domains[variable]) + bag.columns[bag.scope.index(variable)]
    return key
