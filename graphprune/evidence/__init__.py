# SPDX-License-Identifier: Apache-2.0
"""Evidence for criteria and solvers: what samples say about a network, computed when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from graphprune.evidence.channels import Channels

__all__ = ["Samples"]


@dataclass(eq=False)
class Samples(Channels):
    """What samples say; it fulfils :class:`graphprune.solvers.evidence.Evidence`.

    Parameters
    ----------
    analysis : Analysis
        Of the network.
    source : Source
        Samples as the network meets them in use.
    seed : int
        For what is drawn.
    """
