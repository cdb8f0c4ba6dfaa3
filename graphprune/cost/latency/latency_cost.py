# SPDX-License-Identifier: Apache-2.0
"""The latency of a network as a function of its widths: nanoseconds, summed over chunks.

Chunks with one or two features have a table each. What depends on more is measured at full width only, and taken in
proportion to its FLOPs or elements. What a whole network takes is not the sum of its kernels: all times are multiplied
by one factor, so that the sum is right at full width, and what pruning saves by another, once a pruned network has
been measured (`corrected`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphprune.analysis.polynomial import Length, Term, TermValues, coefficients
from graphprune.analysis.polynomial import Scaled as Proportional
from graphprune.cost.latency.time_table import Tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.array_types import Floats, Ints


__all__ = ["LatencyCost", "ScaledChunk", "TabledChunk"]


@dataclass(frozen=True, eq=False)
class TabledChunk:
    """A chunk that was measured on a grid: the lengths it depends on, grid and steps of each, and times."""

    features: tuple[Length, Length]
    grids: tuple[Ints, Ints]
    steps: tuple[int, int]
    times: Floats


@dataclass(frozen=True, eq=False)
class ScaledChunk:
    """A chunk that takes `time` at full width, and less in proportion to its work."""

    time: float
    work: tuple[Term, ...]


@dataclass(frozen=True, eq=False)
class _Read:
    """One table as a summand of the whole time."""

    tables: Tables
    at: int
    lengths: tuple[Length, Length]
    factor: float

    def values(self, first: Ints, second: Ints) -> Floats:
        """Return the times for many lengths at once, arrays that broadcast."""
        return self.factor * self.tables.values(self.at, first, second)


class LatencyCost:
    """Nanoseconds that a network takes, non-decreasing in every width.

    Parameters
    ----------
    tabled : sequence of TabledChunk
    scaled : sequence of ScaledChunk
    fixed : int
        Nanoseconds of all chunks that no width changes.
    sizes : ndarray of int64, shape (groups,)
    correction : float, positive
        What pruning saves in truth, by what the tables say.
    before : int, optional
        Nanoseconds of the unpruned network, where this is one from which groups are gone already.

    Attributes
    ----------
    before : int
        Nanoseconds at full width.
    """

    def __init__(
        self,
        tabled: Sequence[TabledChunk],
        scaled: Sequence[ScaledChunk],
        fixed: int,
        sizes: Ints,
        correction: float = 1.0,
        before: int | None = None,
    ) -> None:
        self._parts = tuple(tabled), tuple(scaled), fixed, sizes
        self.correction = correction
        self._tables = Tables([t.grids for t in tabled], [t.steps for t in tabled], [t.times for t in tabled])
        lengths = [length for table in tabled for length in table.features]
        self._base = np.array([length.constant for length in lengths], dtype=np.int64)
        self._matrix = coefficients(lengths, len(sizes))
        self._work = [TermValues(chunk.work, len(sizes)) for chunk in scaled]
        self._rate = [
            chunk.time / max(1, int(work(sizes).sum())) for chunk, work in zip(scaled, self._work, strict=True)
        ]
        columns = self._matrix.tocsc()
        self._tables_of = [
            np.unique(columns.indices[columns.indptr[group] : columns.indptr[group + 1]] // 2)
            for group in range(len(sizes))
        ]
        self._scaled_of: list[list[int]] = [[] for _ in sizes]
        for at, chunk in enumerate(scaled):
            for group in {int(g) for term in chunk.work for length in term.lengths for g in length.groups}:
                self._scaled_of[group].append(at)
        self._last: tuple[bytes, int] = (b"", 0)
        self.before = self._sum(sizes) if before is None else before

    def corrected(self, factor: float) -> LatencyCost:
        """Return the same cost, in which pruning saves `factor` times as much as here."""
        return LatencyCost(*self._parts, self.correction * factor, self.before)

    def __call__(self, widths: Ints) -> int:
        """Return the nanoseconds at `widths`, shape (groups,)."""
        return self._corrected(self._sum(widths))

    def alternatives(self) -> list[list[_Read | Proportional | Term]]:
        """Return what the time is the sum of; rounding may make the sum smaller by a few nanoseconds, never larger."""
        factor = self.correction
        tabled, scaled, fixed, _ = self._parts
        reads = [_Read(self._tables, at, table.features, factor) for at, table in enumerate(tabled)]
        work = [
            Proportional(term, factor * rate)
            for chunk, rate in zip(scaled, self._rate, strict=True)
            for term in chunk.work
        ]
        constant = (1 - factor) * self.before + factor * (fixed - len(scaled))  # each chunk is rounded down
        return [[*reads, *work, Term(math.floor(constant), ())]]

    def change(self, widths: Ints, group: int, width: int) -> int:
        """Return by how much the time changes when `group` moves from ``widths[group]`` to `width`."""
        key = widths.tobytes()
        if self._last[0] != key:
            self._last = key, self._sum(widths)
        total = self._last[1]
        moved = widths.copy()
        moved[group] = width
        difference = 0
        chosen = self._tables_of[group]
        if len(chosen):
            rows = (2 * chosen[:, None] + np.arange(2)).ravel()
            now, then = (
                self._tables.read((self._base[rows] + self._matrix[rows] @ at).reshape(-1, 2), chosen)
                for at in (widths, moved)
            )
            difference += int((then - now).sum())
        difference += sum(self._scale(at, moved) - self._scale(at, widths) for at in self._scaled_of[group])
        return self._corrected(total + difference) - self._corrected(total)

    def _sum(self, widths: Ints) -> int:
        lengths = np.asarray(self._base + self._matrix @ widths, dtype=np.int64).reshape(-1, 2)
        scaled = sum(self._scale(at, widths) for at in range(len(self._work)))
        return self._parts[2] + int(self._tables.read(lengths).sum()) + scaled

    def _scale(self, at: int, widths: Ints) -> int:
        return int(self._rate[at] * int(self._work[at](widths).sum()))

    def _corrected(self, total: int) -> int:
        return max(0, self.before - int(self.correction * (self.before - total)))
