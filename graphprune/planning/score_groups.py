# SPDX-License-Identifier: Apache-2.0
"""Scoring: what a criterion says of the atoms of every group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.model.finite import check_finite
from graphprune.solvers import criteria
from graphprune.solvers.registry import chosen, settings

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.planning.solve_options import SolveOptions
    from graphprune.solvers.evidence import Evidence
    from graphprune.solvers.saliency import Scores

__all__ = ["score_groups"]


def score_groups(analysis: Analysis, options: SolveOptions, evidence: Evidence | None = None) -> Scores:
    """Return what the criterion says of the atoms of each group.

    Raises
    ------
    UnsupportedModelError
        If a weight that may lose channels holds NaN or infinity.
    UsageError
        If there is no such criterion, or one of its settings is no value for it.
    """
    score = criteria.get(options.criterion)
    (own,) = chosen({name: value for name, value in options.settings.items() if name in settings(score)}, score)
    # A channel with NaN in it would look like the most important or the least important one, by chance.
    check_finite(analysis.model, {member.initializer for group in analysis.groups for member in group.members})
    material = criteria.Material(analysis.groups, analysis.read, options.seed, options.aggregate, evidence)
    return score(material, **own)
