# SPDX-License-Identifier: Apache-2.0
"""Evidence: what samples say about a network, for the criteria and solvers that ask for it.

They see this protocol alone; what computes it is :mod:`graphprune.evidence`. Nothing is computed before it is asked
for, and what was asked for twice is computed once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from graphprune.errors import UsageError, quote
from graphprune.solvers.protocols.observed import Observed

if TYPE_CHECKING:
    from graphprune.solvers.protocols.outcomes import Outcomes

__all__ = ["Evidence", "needed"]


class Evidence(Observed, Protocol):
    """What samples say about the groups of one network."""

    @property
    def outcomes(self) -> Outcomes:
        """What becomes of the network when channels go, for solvers."""


Some = TypeVar("Some", bound=Evidence)


def needed(evidence: Some | None, method: str) -> Some:
    """Return evidence, which a method cannot do without.

    Raises
    ------
    UsageError
        If there is none.
    """
    if evidence is None:
        raise UsageError(f"{quote(method)} looks at samples, and none are given", hint="give some with --calib SOURCE")
    return evidence
