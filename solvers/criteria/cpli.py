# SPDX-License-Identifier: Apache-2.0
"""CPLI: an atom is as salient as it is early on the LASSO path that rebuilds what its readers compute.

Each output of a reader counts by how much the loss depends on it, and outputs that are likely to go themselves hardly
count. The paper's objective is not public in full; this is a reconstruction on top of LASSO channel selection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphprune.errors import UsageError
from graphprune.reproducible import one_blas_thread
from graphprune.solvers.criteria import criterion
from graphprune.solvers.criteria._lasso import lasso_entries
from graphprune.solvers.criteria._seen import check_samples, seen_scores, settled_scores
from graphprune.solvers.evidence import needed

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from graphprune.analysis.groups import Group
    from graphprune.array_types import Floats
    from graphprune.solvers.criteria import Material
    from graphprune.solvers.protocols.reading import Reading
    from graphprune.solvers.saliency import Scores


__all__ = ["gram", "score"]


@criterion("cpli", samples=True, torch=lambda given: str(given.get("guided", True)).lower() == "true")
@one_blas_thread()
def score(
    material: Material, *, guided: bool = True, suppress: float = 0.1, keep: float = 0.5, samples: int = 1024
) -> Scores:
    """Score atoms by the penalty at which they enter the LASSO path; atoms that never do score 0.

    The penalties of different groups are not comparable.

    Parameters
    ----------
    material : Material
    guided : bool
        Weight outputs by the root mean square of the loss's gradient at them; otherwise all alike, which needs no
        gradients. The loss is that of `taylor`.
    suppress : float, 0 to 1
        The weight of an output that is likely to go; 1 to treat it as any other.
    keep : float, 0 to 1
        The share of each reader's own channels that are taken to stay: those with the largest gradients.
    samples : int
        The most samples that are looked at.

    Raises
    ------
    UsageError
        Without samples, or if a setting is out of range.

    Notes
    -----
    Source: Guo et al., Channel Pruning Guided by Classification Loss and Feature Importance, AAAI 2020,
    arXiv:2003.06757, as far as it can be told from its description; He et al., Channel Pruning for Accelerating Very
    Deep Neural Networks, ICCV 2017, arXiv:1707.06168, for selection by LASSO.
    """
    for name, value in (("suppress", suppress), ("keep", keep)):
        if not 0 <= value <= 1:
            raise UsageError(f"the setting {name!r} is {value}, but must be between 0 and 1")
    material.refuse_aggregate("all readers enter one LASSO", hint="leave --aggregate out", allowed=("sum",))
    evidence = needed(material.evidence, "cpli")
    readings = evidence.readings(check_samples(samples))
    gradients = evidence.output_gradients(samples) if guided else None
    weighing = _Weighing(_owners(material.groups), suppress, keep)
    entries: list[Floats | None] = []
    for number, read in enumerate(readings):
        if read is None:
            entries.append(None)
            continue
        at_outputs = None if gradients is None else gradients[number]
        weights = [
            weighing.of(one, None if at_outputs is None else at_outputs[place]) for place, one in enumerate(read)
        ]
        entries.append(settled_scores(_entries(gram(read, weights))))
    source = "penalty at which it enters the LASSO of its readers" + (", by gradients" if guided else "")
    return seen_scores(material, entries, source, comparable=False, nothing="its readers see no variance")


def gram(readings: Sequence[Reading], weights: Sequence[Floats]) -> Floats:
    """Return the Gram matrix of the atoms' parts in what the readers compute, shape (atoms, atoms).

    ``G_ij`` is the covariance of the parts of atoms i and j, outputs weighted by the squares of `weights`; each
    reader is divided by the sum over all pairs, which is the weighted variance of its outputs.
    """
    count = len(readings[0].columns)
    total = np.zeros((count, count))
    for reading, weight in zip(readings, weights, strict=True):
        pairs = reading.gram * ((reading.weight * weight**2) @ reading.weight.T)
        columns = reading.columns.ravel()
        blocks = pairs[np.ix_(columns, columns)].reshape(count, reading.columns.shape[1], count, -1).sum(axis=(1, 3))
        variance = float(blocks.sum())
        total += blocks / variance if variance > 0 else 0.0
    return total


def _entries(matrix: Floats) -> Floats:
    """Return the penalty at which each atom enters the rebuilding of the sum of all."""
    return lasso_entries(matrix, matrix.sum(axis=1))


@dataclass(frozen=True, eq=False)
class _Weighing:
    """How much each output of a reader counts."""

    owners: dict[str, list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]]]
    suppress: float
    keep: float

    def of(self, reading: Reading, gradient: Floats | None) -> Floats:
        """Return the weights of the outputs, of mean 1 where gradients are given and not all 0."""
        outputs = reading.weight.shape[1]
        plain = np.ones(outputs)
        weights = plain if gradient is None or not gradient.any() else gradient / gradient.mean()
        factor = np.ones(outputs)
        if self.suppress < 1:
            size = weights if gradient is not None else np.abs(reading.weight).sum(axis=0)
            for positions, atoms, count in self.owners.get(reading.tensor, ()):
                ranked = np.bincount(atoms, weights=size[positions], minlength=count)
                going = np.argsort(-ranked, kind="stable")[int(np.ceil(self.keep * count)) :]
                factor[positions[np.isin(atoms, going)]] = self.suppress
        return weights * factor


def _owners(groups: Sequence[Group]) -> dict[str, list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]]]:
    """Return for each stored tensor which of its outputs belong to which atoms of a group, and how many that has."""
    owners: dict[str, list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]]] = {}
    for group in groups:
        for member in group.members:
            if member.role == "out":
                owners.setdefault(member.initializer, []).append((member.positions, member.atoms, group.size))
    return owners
