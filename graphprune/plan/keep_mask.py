# SPDX-License-Identifier: Apache-2.0
"""The keep mask: what a plan keeps, as one mask over the atoms of an analysis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.array_types import Mask
    from graphprune.plan.schema import Plan

__all__ = ["keep_mask"]


def keep_mask(analysis: Analysis, plan: Plan) -> Mask:
    """Return which atoms stay, in the order of `analysis.grouping` (bool, shape (atoms,))."""
    grouping = analysis.grouping
    keep = np.zeros(len(grouping.group_of), dtype=np.bool_)
    for start, group in zip(grouping.starts.tolist(), plan.groups, strict=False):
        keep[start + np.asarray(group.kept, dtype=np.int64)] = True
    return keep
