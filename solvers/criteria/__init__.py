# SPDX-License-Identifier: Apache-2.0
"""Criteria: how salient each atom of a group is. One file per criterion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from graphprune.choices import Aggregate
from graphprune.errors import UsageError, quote
from graphprune.solvers.registry import Registry

if TYPE_CHECKING:
    from graphprune.analysis.groups import Group
    from graphprune.solvers.evidence import Evidence
    from graphprune.solvers.saliency import Scores

__all__ = ["Aggregate", "Criterion", "Material", "Read", "criterion", "get", "names", "needs_samples", "require"]

Read = Callable[[str], npt.NDArray[Any]]  # gives the tensor that a member names, of any float type


@dataclass(frozen=True, eq=False)
class Material:
    """What a criterion may look at.

    Attributes
    ----------
    groups : tuple of Group, in graph order
    read : callable
        Gives the tensor that a member names.
    seed : int
        For criteria that draw.
    aggregate : {"", "sum", "mean", "max", "first"}
        How the scores of the members of a group become one; "" is what the criterion does by itself.
    evidence : Evidence, optional
        What samples say, for criteria that need some.
    """

    groups: Sequence[Group]
    read: Read
    seed: int = 0
    aggregate: Aggregate = ""
    evidence: Evidence | None = None

    def refuse_aggregate(self, because: str, hint: str, allowed: Sequence[Aggregate] = ()) -> None:
        """Refuse a way of aggregating that a criterion cannot follow.

        Raises
        ------
        UsageError
            When `aggregate` is given and not among those `allowed`.
        """
        if self.aggregate and self.aggregate not in allowed:
            raise UsageError(f"scores of members cannot be aggregated by {quote(self.aggregate)}: {because}", hint=hint)


Criterion = Callable[..., "Scores"]
"""A function ``(material, *, setting=default, ...)`` that gives a saliency per atom of each group, and what was read
for it. Its keyword-only parameters are settings that a user may give."""


def _fault(given: object, material: Material) -> str | None:
    """Say what is wrong with scores that another package gave."""
    from graphprune.solvers.saliency import Scores

    if not isinstance(given, Scores):
        return f"it gave a {type(given).__name__}, not Scores"
    if len(given.per_group) != len(material.groups):
        return f"it gave scores for {len(given.per_group)} of {len(material.groups)} groups"
    for group, scores in zip(material.groups, given.per_group, strict=True):
        if np.shape(scores) != (group.size,) or np.isnan(scores).any():
            return f"group {quote(group.id)} has {group.size} atoms, but not a number for each"
    return None


_registry: Registry[Criterion] = Registry("criterion", __name__, "graphprune.criteria", _fault)
criterion = _registry.register
get = _registry.get
names = _registry.names
needs_samples = _registry.needs_samples
require = _registry.require
