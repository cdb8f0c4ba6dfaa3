# SPDX-License-Identifier: Apache-2.0
"""Criteria: how salient each atom of a group is. One file per criterion."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from graphprune.solvers.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.groups import Group
    from graphprune.solvers.saliency import Scores

__all__ = ["Criterion", "Read", "criterion", "get", "names"]

Read = Callable[[str], npt.NDArray[Any]]  # gives the tensor that a member names, of any float type


class Criterion(Protocol):
    """A function that scores the atoms of all groups."""

    def __call__(self, groups: Sequence[Group], read: Read, seed: int, /) -> Scores:
        """Return a saliency per atom of each group, and what was read for it.

        Parameters
        ----------
        groups : sequence of Group, in graph order
        read : callable
            Gives the tensor that a member names.
        seed : int
            For criteria that draw.
        """


_registry: Registry[Criterion] = Registry("criterion", __name__)
criterion = _registry.register
get = _registry.get
names = _registry.names
