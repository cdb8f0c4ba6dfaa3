# SPDX-License-Identifier: Apache-2.0
"""Multiple-choice knapsack: one item of every class, with the least sum of errors within all limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import block_diag, csr_array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.array_types import Floats


__all__ = ["choose"]


def choose(errors: Sequence[Floats], costs: Sequence[Floats], room: Floats) -> list[int] | None:
    """Return which item of every class to take; None if no choice is within the limits.

    Parameters
    ----------
    errors : sequence of ndarray, shape (items,)
        Per class.
    costs : sequence of ndarray, shape (items, limits)
        Per class; they add up.
    room : ndarray, shape (limits,)
        What the sums of costs may be at most.

    Complexity: that of an integer program with as many binary variables as there are items (HiGHS).
    """
    if not errors:
        return [] if (room >= 0).all() else None
    scale = np.maximum(np.abs(np.concatenate(costs)).max(axis=0), 1.0)  # integers of very different size otherwise
    one_each = csr_array(block_diag([np.ones((1, len(own))) for own in errors]))
    solution = milp(
        np.concatenate(errors),
        integrality=np.ones(sum(len(own) for own in errors), dtype=np.int64),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(np.concatenate(costs).T / scale[:, None], -np.inf, room / scale),
        ],
    )
    if solution.x is None:
        return None
    picked, start = [], 0
    for own in errors:
        picked.append(int(np.argmax(solution.x[start : start + len(own)])))
        start += len(own)
    total = np.sum([own[at] for own, at in zip(costs, picked, strict=True)], axis=0)
    if (total <= room).all():
        return picked
    return choose(errors, costs, room - 1e-6 * scale)  # HiGHS meets a limit only to its own tolerance
