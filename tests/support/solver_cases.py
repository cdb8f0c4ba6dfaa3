# SPDX-License-Identifier: Apache-2.0
"""Small width problems with a cost that can be checked by hand, and coupled groups made of arrays."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import strategies as st

from graphprune.solvers.moves.levels import levels
from graphprune.solvers.problem import Limit, Problem


@dataclass(eq=False)
class Multilinear:
    """A sum of products ``constant * (b1 + A1 . widths) * (b2 + A2 . widths)``, as layers between groups cost."""

    constants: np.ndarray  # (L,)
    offsets: np.ndarray  # (L, 2)
    slopes: np.ndarray  # (L, 2, groups)
    evaluations: int = 0
    changes: int = 0
    layers_of: list[np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        self.layers_of = [np.flatnonzero(self.slopes[:, :, group].any(axis=1)) for group in range(self.slopes.shape[2])]

    def __call__(self, widths: np.ndarray) -> int:
        self.evaluations += 1
        return int((self.constants * (self.offsets + self.slopes @ widths).prod(axis=1)).sum())

    def change(self, widths: np.ndarray, group: int, width: int) -> int:
        self.changes += 1
        layers = self.layers_of[group]
        before = self.offsets[layers] + self.slopes[layers] @ widths
        after = before + self.slopes[layers, :, group] * (width - widths[group])
        return int((self.constants[layers] * (after.prod(axis=1) - before.prod(axis=1))).sum())


def chain(sizes: list[int], seed: int = 0) -> Multilinear:
    """Return the cost of a chain of layers, some of which also read the group before last."""
    rng = np.random.default_rng(seed)
    count = len(sizes)
    slopes = np.zeros((count + 1, 2, count), dtype=np.int64)
    for layer in range(count + 1):
        for side, group in ((0, layer - 1), (1, layer)):
            if 0 <= group < count:
                slopes[layer, side, group] = 1
        if layer >= 2 and rng.random() < 0.3:
            slopes[layer, 0, layer - 2] = 1
    offsets = np.zeros((count + 1, 2), dtype=np.int64)
    offsets[0, 0], offsets[-1, 1] = 3, 10
    return Multilinear(rng.integers(1, 200, count + 1), offsets, slopes)


def problem(
    sizes: list[int],
    scores: list[np.ndarray] | None = None,
    share: float = 0.5,
    round_to: int = 1,
    seed: int = 0,
    importance: np.ndarray | None = None,
) -> Problem:
    """Return the problem of pruning a chain to a share of its full cost."""
    rng = np.random.default_rng(seed + 1)
    per_group = tuple(scores if scores is not None else [rng.random(size) * rng.uniform(0.2, 3) for size in sizes])
    cost = chain(sizes, seed)
    full = np.array(sizes, dtype=np.int64)
    return Problem(
        groups=tuple(f"g{index:03}" for index in range(len(sizes))),
        sizes=full,
        scores=per_group,
        importance=np.array([values.mean() for values in per_group]) if importance is None else importance,
        limits=(Limit("flops", cost, int(share * cost(full))),),
        levels=tuple(levels(size, 1, round_to) for size in sizes),
        filters=lambda group: np.random.default_rng([seed, group]).standard_normal((sizes[group], 5)),
    )


def limited(case: Problem, limit: int) -> Problem:
    """Return the same problem with another limit."""
    (leading,) = case.limits
    return replace(case, limits=(replace(leading, limit=limit),))


@st.composite
def problems(draw: st.DrawFn, largest: int = 40) -> Problem:
    """Draw problems whose budget the narrowest levels meet."""
    sizes = draw(st.lists(st.integers(1, largest), min_size=1, max_size=7))
    drawn = problem(
        sizes,
        share=1.0,
        round_to=draw(st.sampled_from([1, 2, 4, 8])),
        seed=draw(st.integers(0, 10_000)),
    )
    (full,) = drawn.limits
    least, most = full.cost(drawn.narrowest), full.limit
    limit = least + round(draw(st.floats(0, 1.1)) * (most - least))
    return limited(drawn, limit)


@st.composite
def odd_problems(draw: st.DrawFn, largest: int = 16) -> Problem:
    """Draw problems with any levels, some from 0 on and some not up to the size, and up to three limits."""
    sizes = draw(st.lists(st.integers(1, largest), min_size=1, max_size=5))
    seed = draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    case = problem(sizes, share=1.0, seed=seed)
    allowed = [np.sort(rng.choice(size + 1, rng.integers(1, size + 2), replace=False)) for size in sizes]
    case = replace(case, levels=tuple(allowed), comparable=draw(st.booleans()))
    limits = []
    for number in range(draw(st.integers(1, 3))):
        cost = chain(sizes, seed + 100 * number)
        least, most = cost(case.narrowest), cost(case.widest)
        limits.append(Limit(f"metric{number}", cost, least + round(draw(st.floats(0, 1.1)) * (most - least))))
    return replace(case, limits=tuple(limits))


@dataclass(frozen=True, eq=False)
class Member:
    """Stands in for graphprune.analysis.groups.Member."""

    initializer: str
    axis: int
    role: str
    op: str
    slot: int
    node: str
    positions: np.ndarray
    atoms: np.ndarray
    masked: bool = True


@dataclass(frozen=True, eq=False)
class Group:
    """Stands in for graphprune.analysis.groups.Group."""

    id: str
    size: int
    members: tuple[Member, ...]
    name: str = "made for a test"
    channels: int = 1
    exact: bool = True


def member(
    initializer: str, axis: int, role: str, op: str, slot: int, atoms: np.ndarray | int, start: int = 0
) -> Member:
    """Return a member whose positions run from `start`; `atoms` is their count, or the atom of each position."""
    of = np.arange(atoms) if isinstance(atoms, int) else np.asarray(atoms)
    node = initializer.split(".")[0]
    return Member(initializer, axis, role, op, slot, node, start + np.arange(len(of)), of)
