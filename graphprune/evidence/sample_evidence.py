# SPDX-License-Identifier: Apache-2.0
"""Evidence for criteria and solvers: what samples say about a network, computed when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from graphprune.evidence.channels import Channels

if TYPE_CHECKING:
    from graphprune.evidence.measured_outcomes import Listen, MeasuredOutcomes

__all__ = ["SampleEvidence"]


@dataclass(eq=False)
class SampleEvidence(Channels):
    """What samples say; it fulfils :class:`graphprune.solvers.evidence.Evidence`.

    Parameters
    ----------
    analysis : Analysis
        Of the network.
    source : Source
        Samples as the network meets them in use.
    seed : int
        For what is drawn.
    listen : callable, optional
        Told what is being done, how much of it is done, and how much there is to do.
    """

    listen: Listen | None = None

    @cached_property
    def outcomes(self) -> MeasuredOutcomes:
        """What becomes of the network when channels go."""
        from graphprune.evidence.measured_outcomes import MeasuredOutcomes

        return MeasuredOutcomes(self.analysis, self.source, self.seed, self.listen)
