# SPDX-License-Identifier: Apache-2.0
"""Profiles of all groups of a problem: errors at its levels, and which atoms stay at them.

A group that could not be measured counts as sensitive as the most sensitive measured group is at the same share of its
atoms, so it gives up only what the others cannot; of its atoms the most salient ones stay.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from graphprune.array_types import Floats, Ints
from graphprune.solvers.saliency import select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.solvers.problem import Problem
    from graphprune.solvers.protocols.outcomes import Kept, Profile

__all__ = ["ELIMINATION", "chosen_by", "errors_at_levels", "kept_at", "narrowed", "starting", "values_at_levels"]


ELIMINATION = "backward elimination"
"""By what the atoms of a group are chosen that could be measured."""

_MOST_LEVELS = 16
_SHARES = np.linspace(0.0, 1.0, 65)


def starting(problem: Problem) -> Kept:
    """Return the atoms at the widest levels: all of a group, or the most salient ones where it may not be whole."""
    return tuple(select(scores, int(levels[-1])) for scores, levels in zip(problem.scores, problem.levels, strict=True))


def narrowed(problem: Problem, kept: Kept, held: Sequence[bool] = ()) -> Problem:
    """Return the problem with no levels above the present widths, and the present ones among them.

    Of many levels a few are left, evenly spaced: what lies between measured widths is a guess, and filling up to all
    levels comes later.

    Parameters
    ----------
    kept : tuple of ndarray of int64
        The present atoms of each group.
    held : sequence of bool, optional
        Groups that stay at their present width.
    """
    levels = []
    for group, (own, atoms) in enumerate(zip(problem.levels, kept, strict=True)):
        below = own[:0] if held and held[group] else own[own < len(atoms)]
        at = np.unique(np.round(np.linspace(0, len(below) - 1, min(len(below), _MOST_LEVELS))).astype(np.int64))
        levels.append(np.append(below[at], len(atoms)).astype(np.int64))
    return replace(problem, levels=tuple(levels))


def errors_at_levels(problem: Problem, profiles: Sequence[Profile | None]) -> list[Floats]:
    """Return the errors of each group at its levels, the last of which is its present width."""
    measured = [profile for profile in profiles if profile is not None]
    per_group = []
    for levels, profile in zip(problem.levels, profiles, strict=True):
        if profile is not None:
            per_group.append(profile.at(levels))
            continue
        shares = levels / max(1, int(levels[-1]))
        per_group.append(np.where(shares < 1, np.interp(shares, _SHARES, _envelope(measured)), 0.0))
    return per_group


def kept_at(problem: Problem, kept: Kept, profiles: Sequence[Profile | None], widths: Ints) -> Kept:
    """Return the atoms that stay at some widths, of those present."""
    per_group = []
    for atoms, scores, profile, width in zip(kept, problem.scores, profiles, widths.tolist(), strict=True):
        if width == len(atoms):
            per_group.append(atoms)
        elif profile is None:
            per_group.append(atoms[select(scores[atoms], width)])
        else:
            per_group.append(profile.kept(width))
    return tuple(per_group)


def chosen_by(profiles: Sequence[Profile | None]) -> tuple[str, ...]:
    """Return by what the atoms of each group are chosen, as :func:`kept_at` does; empty for their saliency."""
    return tuple("" if profile is None else ELIMINATION for profile in profiles)


def values_at_levels(problem: Problem, part: Problem, errors: Sequence[Floats]) -> list[Floats]:
    """Return what each level of a problem is worth, given the errors at the levels up to the present widths.

    Levels above these were not measured: each atom there counts half as much as the atoms just below the present width.

    Parameters
    ----------
    part : Problem
        Of :func:`narrowed`.
    """
    per_group = []
    for levels, below, own in zip(problem.levels, part.levels, errors, strict=True):
        present = below[-1]
        slope = (own[-2] - own[-1]) / (present - below[-2]) if len(below) > 1 else 0.0
        values = -np.interp(levels, below, own)
        per_group.append(np.where(levels > present, slope / 2 * (levels - present), values))
    return per_group


def _envelope(measured: Sequence[Profile]) -> Floats:
    """Return the largest error that a measured group has at each share of its present width.

    Where none is measured, the square of what is missing stands for it: all groups give up equal shares.
    """
    if not measured:
        return np.square(1 - _SHARES)
    curves = [
        profile.at(np.maximum(1, np.round(_SHARES * profile.widths[-1])).astype(np.int64)) for profile in measured
    ]
    highest: Floats = np.max(curves, axis=0)
    return highest
