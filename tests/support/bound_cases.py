# SPDX-License-Identifier: Apache-2.0
"""Small width problems whose costs say what they are made of, and what is best by trying everything."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from hypothesis import strategies as st

from graphprune.analysis.polynomial import Length, Polynomial, Term
from graphprune.solvers.moves.levels import levels
from graphprune.solvers.problem import Limit, Problem


@dataclass(frozen=True, eq=False)
class Stairs:
    """A factor that is no product: `rate` for each whole block of 4 of the product of its lengths."""

    lengths: tuple[Length, ...]
    rate: int

    def values(self, *lengths):
        result = np.ones(())
        for length in lengths:
            result = result * length
        return self.rate * np.ceil(result / 4)


class Largest:
    """The largest of several sums of factors."""

    def __init__(self, sums):
        self._sums = sums

    def alternatives(self):
        return self._sums

    def __call__(self, widths):
        return int(
            max(sum(float(f.values(*(np.array(x.at(widths)) for x in f.lengths))) for f in s) for s in self._sums)
        )

    def change(self, widths, group, width):
        moved = widths.copy()
        moved[group] = width
        return self(moved) - self(widths)


class Opaque:
    """A cost that does not say what it is made of."""

    def __init__(self, cost):
        self._cost = cost
        self.change = cost.change

    def __call__(self, widths):
        return self._cost(widths)


@st.composite
def lengths(draw, sizes):
    groups = sorted(draw(st.sets(st.integers(0, len(sizes) - 1), max_size=3)))
    slopes = [draw(st.sampled_from([1, 1, 2])) for _ in groups]
    constant = draw(st.integers(0 if groups else 1, 4))
    full = constant + sum(slope * sizes[group] for group, slope in zip(groups, slopes, strict=True))
    return Length(full, constant, np.array(groups, dtype=np.int64), np.array(slopes, dtype=np.int64))


@st.composite
def costs(draw, sizes):
    def terms():
        return [
            Term(draw(st.integers(1, 30)), tuple(draw(lengths(sizes)) for _ in range(draw(st.integers(1, 3)))), parts)
            for parts in draw(st.lists(st.sampled_from([1, 1, 8]), min_size=1, max_size=5))
        ]

    kind = draw(st.sampled_from(["polynomial", "polynomial", "largest"]))
    if kind == "polynomial":
        return Polynomial(terms(), np.array(sizes, dtype=np.int64))
    sums = [
        [*terms(), *(Stairs((draw(lengths(sizes)), draw(lengths(sizes))), 7) for _ in range(draw(st.integers(0, 2))))]
        for _ in range(draw(st.integers(1, 3)))
    ]
    return Largest(sums)


@st.composite
def problems(draw, least_score=0.0):
    """Draw problems of up to 4 groups whose limits the narrowest levels meet."""
    sizes = draw(st.lists(st.integers(1, 8), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    scores = tuple(np.maximum(least_score, rng.normal(1, 1, size)) * rng.uniform(0.2, 3) for size in sizes)
    full = np.array(sizes, dtype=np.int64)
    steps = tuple(levels(size, 1, draw(st.sampled_from([1, 2, 4]))) for size in sizes)
    limits = []
    for number in range(draw(st.integers(1, 2))):
        cost = draw(costs(sizes))
        least, most = cost(np.array([own[0] for own in steps])), cost(full)
        limits.append(Limit(f"cost{number}", cost, least + round(draw(st.floats(0, 1.1)) * (most - least))))
    means = np.array([values.mean() for values in scores])
    names = tuple(f"g{number}" for number in range(len(sizes)))
    return Problem(names, full, scores, means, tuple(limits), steps)


def all_widths(case):
    """Return all widths within the limits."""
    found = (np.array(widths, dtype=np.int64) for widths in product(*case.levels))
    return [widths for widths in found if case.fits(widths)]


def values(case):
    """Return per group what each of its levels keeps."""
    totals = [np.append(0.0, np.cumsum(-np.sort(-scores))) for scores in case.scores]
    return [total[own] for total, own in zip(totals, case.levels, strict=True)]
