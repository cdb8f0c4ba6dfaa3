# SPDX-License-Identifier: Apache-2.0
"""LAMP: an atom's share of what is left of its group once all smaller ones are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.solvers.criteria import criterion
from graphprune.solvers.criteria._norms import norm_scores
from graphprune.solvers.saliency import Scores

if TYPE_CHECKING:
    import numpy.typing as npt

    from graphprune.solvers.criteria import Material

__all__ = ["score", "shares_of_what_is_left"]


@criterion("lamp")
def score(material: Material) -> Scores:
    """Score atoms by their squared norm over that of all atoms of their group that are at least as large.

    The squared norms of the members are added, or aggregated as the material says. Scores are made to be compared
    across groups: the largest atom of every group scores 1, so that a global ranking takes it last.

    Notes
    -----
    Source: Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning, ICLR 2021, arXiv:2010.07611, for single
    weights; for channels as in Torch-Pruning.
    """
    squares = norm_scores(material, order=2, squared=True)
    return Scores(tuple(map(shares_of_what_is_left, squares.per_group)), squares.source, comparable=True)


def shares_of_what_is_left(squares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return each value over the sum of itself and all values that rank above it; of equals, the first ranks highest.

    Examples
    --------
    >>> shares_of_what_is_left(np.array([1.0, 3.0, 0.0, 2.0])).round(3).tolist()
    [0.167, 1.0, 0.0, 0.4]
    """
    descending = np.argsort(-squares, kind="stable")
    left = np.cumsum(squares[descending])
    shares = np.zeros_like(squares)
    np.divide(squares[descending], left, out=left, where=left > 0)
    shares[descending] = left
    return shares
