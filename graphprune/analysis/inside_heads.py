# SPDX-License-Identifier: Apache-2.0
"""Where attention loses channels inside its heads although whole heads were asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphprune.array_types import Ints
from graphprune.labels.resolve import Resolution
from graphprune.labels.space import Alternative, LabelSpace

__all__ = ["InsideHeads", "find_inside_heads"]


@dataclass(frozen=True)
class InsideHeads:
    """Nodes at which a part of each head goes.

    Attributes
    ----------
    nodes : tuple of str
        The nodes that split or join heads, in graph order.
    heads : ndarray of int64
        Labels of the whole heads at the first of them.
    """

    nodes: tuple[str, ...]
    heads: Ints


def find_inside_heads(space: LabelSpace, resolution: Resolution) -> InsideHeads | None:
    """Return where whole heads were a possibility and were not taken; None where that is nowhere.

    Complexity: O(labels that choices name).
    """
    if not space.batch:
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
    return InsideHeads(tuple(nodes), next(iter(nodes.values()))) if nodes else None
