# SPDX-License-Identifier: Apache-2.0
"""Factors: a width problem as discrete variables, and tables over few of them that add up to values and costs.

A variable is a group, whose states are its levels, or a *sum*: the length of an axis that joins several groups is built
up one group at a time, and each partial sum is a variable of its own. DenseNet shows why: its last layer reads 60
groups, and a product with that length, written out, ties all of them to one another; as partial sums they form a chain.
A product of short sums is better written out, so both forms are offered, and what needs less work is taken
(:mod:`graphprune.solvers.bounds.decomposition`).

A limit on the largest of several sums is a limit on each of them. A cost that does not say what it is made of is left
out: fewer limits allow more widths, so a bound on what they can keep stays a bound.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from graphprune.analysis.polynomial import Term
from graphprune.solvers.problem import Factored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt

    from graphprune.analysis.polynomial import Length
    from graphprune.array_types import Floats
    from graphprune.solvers.problem import Factor, Problem


__all__ = ["FactorSum", "Network", "Restriction", "TooLargeError", "networks"]

Scope = tuple[int, ...]
_MOST_STATES = 20_000  # of one variable
_LARGEST_TABLE = 4_000_000


class TooLargeError(Exception):
    """A variable or table would have too many entries; caught within this package."""


class FactorSum(NamedTuple):
    """``result = left_factor * left + right_factor * right``, between states of variables."""

    result: int
    left: int
    left_factor: int
    right: int
    right_factor: int


@dataclass(eq=False)
class Restriction:
    """``constant + sum of tables <= limit``; the tables by scope, each with one axis per variable."""

    metric: str
    limit: float
    constant: float = 0.0
    tables: dict[Scope, Floats] = field(default_factory=dict)

    def add(self, scope: Scope, table: Floats) -> None:
        """Add a table; its axes follow `scope`, which ascends."""
        if not scope:
            self.constant += float(table)
        elif scope in self.tables:
            self.tables[scope] = self.tables[scope] + table
        else:
            self.tables[scope] = table

    def cost(self, states: npt.NDArray[np.int64]) -> float:
        """Return the cost at states of all variables."""
        return self.constant + sum(float(table[tuple(states[list(scope)])]) for scope, table in self.tables.items())


@dataclass(eq=False)
class Network:
    """A problem as variables and tables.

    Attributes
    ----------
    domains : list of ndarray of int64, ascending
        What each variable may be: the levels of a group, for the groups in order; then what each sum can come to.
    values : list of ndarray of float64
        Per group, what each of its levels is worth.
    sums : list of FactorSum
        In an order in which both parts of a sum are known before it.
    restrictions : list of Restriction
        Without those that hold at the widest levels.
    ignored : list of str
        The metrics of costs that do not say what they are made of.
    """

    domains: list[npt.NDArray[np.int64]]
    values: list[Floats]
    sums: list[FactorSum] = field(default_factory=list)
    restrictions: list[Restriction] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    @property
    def scopes(self) -> set[Scope]:
        """The variables that stand in one table or sum, ascending."""
        of_tables = {scope for restriction in self.restrictions for scope in restriction.tables}
        return of_tables | {tuple(sorted({entry.result, entry.left, entry.right})) for entry in self.sums}

    def shape(self, scope: Scope) -> tuple[int, ...]:
        """Return the shape of a table over some variables."""
        return tuple(len(self.domains[variable]) for variable in scope)

    def value(self, states: npt.NDArray[np.int64]) -> float:
        """Return what states of all variables are worth."""
        return float(sum(values[state] for values, state in zip(self.values, states, strict=False)))


def networks(problem: Problem, values: Sequence[Floats]) -> Iterator[Network]:
    """Yield the problem with products written out, and with sums as variables if that makes a difference.

    Parameters
    ----------
    problem : Problem
    values : sequence of ndarray of float64
        Per group, what each of its levels is worth.
    """
    for written_out in (True, False):
        builder = _Builder(problem, values, written_out=written_out)
        try:
            network = builder.build()
        except TooLargeError:
            continue
        yield network
        if written_out and not builder.joined:
            return


class _Builder:
    """Writes the costs of a problem as tables."""

    def __init__(self, problem: Problem, values: Sequence[Floats], *, written_out: bool) -> None:
        self._problem = problem
        self._written_out = written_out
        self._network = Network(list(problem.levels), list(values))
        self._sums: dict[tuple[tuple[int, int], ...], int] = {}
        self.joined = False

    def build(self) -> Network:
        """Return the network."""
        binding = []
        for limit in self._problem.limits:
            if not isinstance(limit.cost, Factored):
                self._network.ignored.append(limit.metric)
                continue
            for factors in limit.cost.alternatives():
                if _at(factors, self._problem.widest) > limit.limit:
                    binding.append((limit, factors))
        if not self._written_out:
            self._make_sums([length for _, factors in binding for factor in factors for length in factor.lengths])
        for limit, factors in binding:
            restriction = Restriction(limit.metric, float(limit.limit))
            for factor in factors:
                self._add(restriction, factor)
            self._network.restrictions.append(restriction)
        return self._network

    def _add(self, restriction: Restriction, factor: Factor) -> None:
        """Add the tables of one factor."""
        many = sum(len(length.groups) > 0 for length in factor.lengths)
        wide = any(len(length.groups) > 1 for length in factor.lengths)
        self.joined |= many > 1 and wide
        linear = isinstance(factor, Term) and factor.scale % factor.parts == 0
        if isinstance(factor, Term) and wide and linear and (self._written_out or many == 1):
            self._write_out(restriction, factor)
        else:
            self._tabulate(restriction, factor)

    def _write_out(self, restriction: Restriction, term: Term) -> None:
        """Add a product of lengths as the sum of the products of their parts."""
        parts = []
        for length in term.lengths:
            steps = zip(length.groups.tolist(), length.per_atom.tolist(), strict=True)
            parts.append(
                [(length.constant, None)] * (length.constant != 0) + [(slope, group) for group, slope in steps]
            )
        for chosen in product(*parts):
            scope = self._scope(group for _, group in chosen)
            table = np.full((1,) * len(scope), float(term.scale // term.parts))
            for slope, group in chosen:
                at = self._axis(group, scope) if group is not None else 1
                table = table * (float(slope) * at)
            restriction.add(scope, table)

    def _tabulate(self, restriction: Restriction, factor: Factor) -> None:
        """Add a factor as one table over the variables of its lengths."""
        variables = [self._variable(length) for length in factor.lengths]
        scope = self._scope(variable for variable, _ in variables)
        lengths = []
        for length, (variable, factor_of) in zip(factor.lengths, variables, strict=True):
            at = 0 if variable is None else factor_of * self._axis(variable, scope)
            lengths.append(np.asarray(length.constant + at, dtype=np.int64))
        values = np.broadcast_to(factor.values(*lengths), self._network.shape(scope))
        restriction.add(scope, np.array(values, dtype=np.float64))

    def _scope(self, variables: Iterable[int | None]) -> Scope:
        """Return the scope of a table over some variables."""
        scope = tuple(sorted({variable for variable in variables if variable is not None}))
        if prod(self._network.shape(scope)) > _LARGEST_TABLE:
            raise TooLargeError
        return scope

    def _axis(self, variable: int, scope: Scope) -> npt.NDArray[np.int64]:
        """Return the domain of a variable along its axis of a table."""
        shape = [-1 if other == variable else 1 for other in scope]
        return self._network.domains[variable].reshape(shape)

    def _variable(self, length: Length) -> tuple[int | None, int]:
        """Return the variable behind a length, and by what it is multiplied."""
        key, factor = _normalized(length)
        if not key:
            return None, 1
        if len(key) == 1:
            return key[0][0], factor
        if key not in self._sums:
            self._make_sum(key)
        return self._sums[key], factor

    def _make_sums(self, lengths: Sequence[Length]) -> None:
        """Make the variables of all joined lengths, short ones first, for longer ones to build on."""
        keys = {_normalized(length)[0] for length in lengths}
        for key in sorted((key for key in keys if len(key) > 1), key=lambda key: (len(key), key)):
            if key not in self._sums:
                self._make_sum(key)

    def _make_sum(self, key: tuple[tuple[int, int], ...]) -> None:
        """Make the variable of a sum of groups from the longest sum within it, adding one group at a time."""
        within = [known for known in self._sums if set(known) <= set(key)]
        base = max(within, key=lambda known: (len(known), known), default=key[:1])
        variable, factor = (self._sums[base], 1) if len(base) > 1 else base[0]
        done = list(base)
        for group, slope in key:
            if (group, slope) in done:
                continue
            done.append((group, slope))
            result = len(self._network.domains)
            domains = self._network.domains
            states = len(domains[variable]) * len(domains[group])
            if states > _LARGEST_TABLE:
                raise TooLargeError
            reached = np.unique(np.add.outer(factor * domains[variable], slope * domains[group]))
            if len(reached) > _MOST_STATES:
                raise TooLargeError
            domains.append(reached)
            self._network.sums.append(FactorSum(result, variable, factor, group, slope))
            self._sums.setdefault(tuple(sorted(done)), result)
            variable, factor = result, 1


def _normalized(length: Length) -> tuple[tuple[tuple[int, int], ...], int]:
    """Return the groups of a length with their slopes, divided by what these have in common, and that divisor."""
    if not len(length.groups):
        return (), 1
    divisor = int(np.gcd.reduce(length.per_atom))
    pairs = zip(length.groups.tolist(), (length.per_atom // divisor).tolist(), strict=True)
    return tuple(sorted(pairs)), divisor


def _at(factors: Sequence[Factor], widths: npt.NDArray[np.int64]) -> float:
    """Return the sum of factors at given widths."""
    return sum(
        float(factor.values(*(np.asarray(length.at(widths), dtype=np.int64) for length in factor.lengths)))
        for factor in factors
    )
