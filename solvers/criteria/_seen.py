# SPDX-License-Identifier: Apache-2.0
"""Seen: scores that come from samples, and what stands in for groups of which samples show nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from graphprune.errors import UsageError
from graphprune.reproducible import settled_all
from graphprune.solvers.criteria._norms import norm_scores
from graphprune.solvers.saliency import Scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.array_types import Floats
    from graphprune.solvers.criteria import Material


__all__ = ["UNSEEN", "check_samples", "seen_scores", "settled_groups", "settled_scores"]

UNSEEN = "L2 norm, brought to the average of the other groups (samples do not show it)"

_DIGITS = 6  # what a processor's order of summation changes lies beyond them


def check_samples(samples: int) -> int:
    """Return the setting `samples`.

    Raises
    ------
    UsageError
        When it is not positive.
    """
    if samples < 1:
        raise UsageError(f"the setting 'samples' is {samples}, but at least one sample has to be looked at")
    return samples


def seen_scores(
    material: Material, per_group: Sequence[Floats | None], source: str, *, comparable: bool, nothing: str
) -> Scores:
    """Return scores from samples, with something for groups of which they show nothing.

    A group that is None, or has a score that is not finite, is ranked by the L2 norms of its filters, and counts on
    average as much as the other groups. If none of the groups has a score above 0, all are scored by L2 norms alone.

    Parameters
    ----------
    material : Material
    per_group : sequence of (ndarray, shape (size,)) or None
        Per group; not negative, and :func:`settled_scores` where the order of summation changes them.
    source : str
        What was read of the groups that were seen.
    comparable : bool
        Whether scores of different groups may be compared as they are.
    nothing : str
        What is said where no score is above 0.
    """
    known = [None if values is None or not np.isfinite(values).all() else values for values in per_group]
    seen = [values for values in known if values is not None]
    if not any(values.any() for values in seen):
        norms = norm_scores(replace(material, aggregate=""), 2)
        because = nothing if seen else "samples show no group"
        return Scores(norms.per_group, tuple(f"{text} ({because})" for text in norms.source))
    average = float(np.mean([values.mean() for values in seen]))
    missing = [group for group, values in zip(material.groups, known, strict=True) if values is None]
    others = iter(norm_scores(replace(material, groups=missing, aggregate=""), 2).per_group)
    filled = tuple(_brought_to(next(others), average) if values is None else values for values in known)
    return Scores(filled, tuple(UNSEEN if values is None else source for values in known), comparable)


def settled_scores(values: Floats) -> Floats:
    """Return values rounded to a few significant digits, which do not depend on the number of threads.

    Examples
    --------
    >>> settled_scores(np.array([0.0, 12345678.0, 0.000123456789])).tolist()
    [0.0, 12345700.0, 0.000123457]
    """
    return settled_all(values, _DIGITS)


def settled_groups(per_group: Sequence[Floats | None]) -> list[Floats | None]:
    """Return the values of every group settled."""
    return [None if values is None else settled_scores(values) for values in per_group]


def _brought_to(norms: Floats, average: float) -> Floats:
    mean = float(norms.mean())
    return norms * (average / mean) if mean > 0 else np.full(len(norms), average)
