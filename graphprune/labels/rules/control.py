# SPDX-License-Identifier: Apache-2.0
"""`If`, whose branches are laid out before it (see `model.bodies`)."""

from __future__ import annotations

from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.model.bodies import DOMAIN


@rule("If", domain=DOMAIN)
def if_(op: Operator) -> None:
    """What a branch gives stays whole; inside its branches channels are pruned like anywhere else."""
    op.barrier("control flow", "is the result of a branch")
