# SPDX-License-Identifier: Apache-2.0
"""Reconstruct: an atom is worth what its readers lose, once refitted, if it and all less useful ones go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.errors import UsageError
from graphprune.solvers.criteria import criterion
from graphprune.solvers.criteria._forward import forward_selection
from graphprune.solvers.criteria._seen import check_samples, seen_scores, settled_scores
from graphprune.solvers.evidence import needed

if TYPE_CHECKING:
    import numpy.typing as npt

    from graphprune.solvers.criteria import Material
    from graphprune.solvers.criteria._forward import Selection
    from graphprune.solvers.saliency import Scores

__all__ = ["score"]

_LEAST_RIDGE = 1e-9  # below it, what copies of an atom leave of each other is rounding
_STEP = 1e-9  # between atoms of equal error, relative to the largest; well below what the scores are rounded to


@criterion("reconstruct", samples=True)
def score(material: Material, *, ridge: float = 1e-3, samples: int = 1024) -> Scores:
    """Score atoms by the order in which forward selection chooses them, and by the error that is left before.

    The score of an atom is the squared error of what reads the group, refitted to the atoms chosen before this one,
    relative to the variance of its outputs and added up over all readers. So keeping the `n` most salient atoms
    loses the score of the next one. The errors of different groups are comparable: 1 is all that a layer reads.

    Parameters
    ----------
    material : Material
    ridge : float, >= 1e-9
        Of the refits, relative to the mean variance of the inputs.
    samples : int
        The most samples that are looked at.

    Raises
    ------
    UsageError
        Without samples, or if a setting is out of range.

    Notes
    -----
    Source: the ranking of CaP (Xie et al., Compensation-aware pruning); see `graphprune.solvers.criteria._forward`.
    """
    if not _LEAST_RIDGE <= ridge < np.inf:
        raise UsageError(f"the setting 'ridge' is {ridge}, but must be at least {_LEAST_RIDGE}")
    material.refuse_aggregate("the errors of all readers are added up", hint="leave --aggregate out", allowed=("sum",))
    readings = needed(material.evidence, "reconstruct").readings(check_samples(samples))
    remaining = [None if read is None else _scores(forward_selection(read, ridge)) for read in readings]
    return seen_scores(
        material, remaining, "error of its readers without it", comparable=True, nothing="its readers see no variance"
    )


def _scores(selection: Selection) -> npt.NDArray[np.float64]:
    """Return the error before each atom was chosen, strictly falling along the order."""
    errors = settled_scores(selection.errors[:-1])
    scores = np.empty(len(errors))
    scores[selection.order] = errors + _STEP * errors[0] * np.arange(len(errors), 0, -1)
    return scores
