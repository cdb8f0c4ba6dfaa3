# SPDX-License-Identifier: Apache-2.0
"""Learning rates over a run: a linear warm-up, then half a cosine down to zero."""

from __future__ import annotations

import math

__all__ = ["rate_at"]


def rate_at(step: int, total: int, base: float, warmup: int = 0) -> float:
    """Return the learning rate of a step.

    Parameters
    ----------
    step, total : int
        Of `total` steps, ``0 <= step < total``.
    base : float
        The highest rate.
    warmup : int
        Steps that lead up to it.

    Source: Loshchilov and Hutter, SGDR, ICLR 2017, arXiv:1608.03983, eq. 5, with one period.
    """
    if step < warmup:
        return base * (step + 1) / (warmup + 1)
    left = max(1, total - warmup)
    return 0.5 * base * (1.0 + math.cos(math.pi * (step - warmup) / left))
