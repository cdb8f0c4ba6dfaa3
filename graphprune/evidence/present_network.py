# SPDX-License-Identifier: Apache-2.0
"""Present networks: a network as it has been pruned and recovered so far, in which groups are measured.

What the layers that read a group lose at every width follows from their moments. What that does to the outputs is
measured at single widths only, since each of them takes a run of everything behind these layers.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from graphprune.array_types import Floats, Ints
from graphprune.evidence.downstream import DownstreamErrors
from graphprune.reproducible import one_blas_thread, settled_all
from graphprune.solvers.protocols.outcomes import Profile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.data.source import Source
    from graphprune.evidence.downstream import Readings
    from graphprune.evidence.elimination import Elimination
    from graphprune.model.load import Model
    from graphprune.recovery.recover_options import Progress
    from graphprune.solvers.protocols.outcomes import Kept

__all__ = ["PresentNetwork", "closed_form"]


class PresentNetwork:
    """A network in which groups are measured; it fulfils :class:`graphprune.solvers.protocols.outcomes.Present`.

    Parameters
    ----------
    kept : tuple of ndarray of int64
        Per group of the dense network, the atoms that are there.
    places : sequence of int or None
        Per group of the dense network, the number of that group in the present one; None where it has no such group.
    read : Readings
        Of the present network.
    ridge : float
        As for recovery.
    held : Source
        Samples on which errors are measured.
    teacher : Model
        The dense network.
    progress : callable, optional
        Told how many groups are measured.
    """

    def __init__(
        self,
        kept: Kept,
        places: Sequence[int | None],
        read: Readings,
        ridge: float,
        held: Source,
        teacher: Model,
        progress: Progress | None = None,
    ) -> None:
        self._kept = kept
        self._places = places
        self._read = read
        self._ridge = ridge
        self._held = held
        self._teacher = teacher
        self._progress = progress

    @property
    def curves(self) -> tuple[Profile | None, ...]:
        """Per group, what the layers that read it lose at every width; None where something else than weights does."""
        return tuple(
            None if at is None or (order := self._read.orders[at]) is None else closed_form(order, atoms)
            for atoms, at in zip(self._kept, self._places, strict=True)
        )

    @one_blas_thread()
    def errors(self, widths: Ints) -> Floats:
        """Return what each group adds to the error of the outputs if it alone has such a width.

        Parameters
        ----------
        widths : ndarray of int64, shape (groups,)
            -1 for groups that are not to be measured.

        Returns
        -------
        ndarray, shape (groups,)
            NaN where nothing was measured.
        """
        levels = [np.zeros(0, dtype=np.int64)] * len(self._read.orders)
        for at, width in zip(self._places, widths.tolist(), strict=True):
            if at is not None and width >= 0:
                levels[at] = np.array([width])
        made = self._downstream.measure(levels, self._progress)
        return np.array(
            [
                np.nan if at is None or width < 0 else made.get(at, {}).get(width, np.nan)
                for at, width in zip(self._places, widths.tolist(), strict=True)
            ]
        )

    @cached_property
    def _downstream(self) -> DownstreamErrors:
        teacher = None if self._teacher is self._read.editable.model else self._teacher
        return DownstreamErrors(self._read, self._ridge, self._held, teacher)


def closed_form(elimination: Elimination, atoms: Ints) -> Profile:
    """Return what the readers of a group lose at every width, from one elimination of its atoms.

    Parameters
    ----------
    elimination : Elimination
        Of the atoms that are there, numbered from 0.
    atoms : ndarray of int64
        Their numbers in the dense network.
    """
    lost = settled_all(np.cumsum(elimination.costs))  # after one atom, two, ... all are gone
    return Profile(atoms[elimination.order], np.arange(len(atoms) + 1, dtype=np.int64), np.append(lost[::-1], 0.0))
