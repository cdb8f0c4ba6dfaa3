# SPDX-License-Identifier: Apache-2.0
"""Where attention loses channels inside its heads although whole heads were asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.array_types import Ints
    from graphprune.labels.space import Alternative, Reason

__all__ = ["InsideHeads", "find_inside_heads"]


@dataclass(frozen=True)
class InsideHeads:
    """Nodes at which a part of each head goes.

    Attributes
    ----------
    nodes : tuple of str
        The nodes that split or join heads, in graph order.
    reason : Reason or None
        Why whole heads cannot go at the first of them.
    """

    nodes: tuple[str, ...]
    reason: Reason | None


def find_inside_heads(analysis: Analysis) -> InsideHeads | None:
    """Return where whole heads were a possibility and could not be taken; None where that is nowhere.

    Complexity: O(labels that choices name).
    """
    space, resolution = analysis.scope.space, analysis.resolution
    if analysis.attention != "heads" or not space.batch:
        return None
    is_head = np.zeros(int(resolution.component.max()) + 1, dtype=np.bool_)
    is_head[resolution.component[np.concatenate(space.batch)]] = True

    def heads_of(alternative: Alternative) -> Ints:
        labels = np.concatenate([alternative.left, alternative.right])
        named: Ints = labels[is_head[resolution.component[labels]] & (labels != 0)]
        return named

    nodes: dict[str, Ints] = {}
    for choice, taken in resolution.committed:
        if taken is None or len(heads_of(taken)):
            continue
        left = np.concatenate([heads_of(other) for other in choice.alternatives])
        if len(left):
            nodes.setdefault(choice.node.label, left)
    if not nodes:
        return None
    first = resolution.component[next(iter(nodes.values()))]
    number = int(analysis.first_freezes[first].max())
    reason = None if number < 0 else resolution.freezes[number][1]
    return InsideHeads(tuple(nodes), reason if reason is None else analysis.origins.behind(reason, len(first)).reason)
