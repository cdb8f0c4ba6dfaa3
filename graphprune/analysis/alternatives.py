# SPDX-License-Identifier: Apache-2.0
"""Alternatives: how grouped convolutions shrink, by whole groups or by a slice of each, decided by how far that leads.

Which of the two reaches further depends on everything that the channels pass: a channel shuffle between grouped
convolutions allows one of them only. So both are tried on the whole network, and every part of it that is decided
apart from the rest takes the one that leaves fewer FLOPs at the narrowest widths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from graphprune.analysis.groups import Carriers, form_groups
from graphprune.analysis.own_positions import rank_outputs, tied_by_rank
from graphprune.labels.components import components
from graphprune.labels.resolve import Attention, Resolution, Resolver
from graphprune.labels.rules.convolution import EACH_GROUP, WHOLE_GROUPS

if TYPE_CHECKING:
    from graphprune.array_types import Floats, Ints
    from graphprune.choices import Grouped
    from graphprune.labels.operator import Scope
    from graphprune.labels.space import Choice, LabelSpace
    from graphprune.labels.vector import Labels

    Decided = Mapping[str, str | Sequence[int]]

__all__ = ["decided", "resolve_grouped"]

_NAMES = {"groups": WHOLE_GROUPS, "slices": EACH_GROUP}
_ASKED = {**_NAMES, "own": EACH_GROUP}


def resolve_grouped(
    scope: Scope,
    attention: Attention = "heads",
    grouped: Grouped | Decided = "auto",
    carriers: Carriers | None = None,
) -> Resolution:
    """Resolve the labels of a graph, and how its grouped convolutions shrink.

    Parameters
    ----------
    scope : Scope
        After the label pass.
    attention : {"heads", "head-dim"}
    grouped : {"auto", "groups", "slices", "own"}
        What goes from a grouped convolution where both can: whole groups, a slice of each group, or what reaches
        further in its part of the network. Or by node what was decided before (`decided`). Which outputs of each
        group go together is not decided here, but in `own_positions`.
    carriers : Carriers, optional
        Of this scope.

    Complexity: that of a resolution; where some grouped convolution has a choice, what depends on it up to four times.
    """
    space = scope.space
    open_choices = [number for number, choice in enumerate(space.choices) if _is_grouped(choice)]
    resolver = Resolver(space, attention)
    if not open_choices:
        return resolver.resolve()
    if not isinstance(grouped, str):
        return resolver.resolve(_as_decided(space, open_choices, grouped))
    if grouped != "auto":
        return resolver.resolve(dict.fromkeys(open_choices, _ASKED[grouped]))
    carriers = carriers or Carriers(scope)
    tried = {name: resolver.resolve(dict.fromkeys(open_choices, name)) for name in _NAMES.values()}
    costs = {name: _narrowest(scope, carriers, resolution) for name, resolution in tried.items()}
    part, of_layer = _parts(space, open_choices)
    wanted: dict[int, str] = {}
    for number in open_choices:
        own = of_layer == part[number]
        wanted[number] = min(costs, key=lambda name: float(costs[name][own].sum()))  # of equal ones whole groups
    further = [resolver.resolve(), *([resolver.resolve(wanted)] if len({*wanted.values()}) > 1 else [])]
    known = {_outcome(tried[name]): costs[name] for name in tried}
    candidates = [further[0], *tried.values(), *further[1:]]
    for resolution in further:
        if _outcome(resolution) not in known:
            known[_outcome(resolution)] = _narrowest(scope, carriers, resolution)
    return min(candidates, key=lambda candidate: float(known[_outcome(candidate)].sum()))


def _outcome(resolution: Resolution) -> frozenset[tuple[int, int]]:
    """Return what tells resolutions of one label space apart: which alternative was taken of each choice."""
    return frozenset((id(choice), id(taken)) for choice, taken in resolution.committed)


def decided(resolution: Resolution) -> dict[str, str]:
    """Return by node how each grouped convolution came out, where it had a choice."""
    return {
        choice.node.label: taken.name
        for choice, taken in resolution.committed
        if taken is not None and _is_grouped(choice)
    }


def _as_decided(space: LabelSpace, numbers: list[int], before: Decided) -> dict[int, str]:
    labels = {number: space.choices[number].node.label for number in numbers}
    taken = {number: before[label] for number, label in labels.items() if label in before}
    return {number: name if isinstance(name, str) else EACH_GROUP for number, name in taken.items()}


def _is_grouped(choice: Choice) -> bool:
    return {WHOLE_GROUPS, EACH_GROUP} <= {alternative.name for alternative in choice.alternatives}


def _narrowest(scope: Scope, carriers: Carriers, resolution: Resolution) -> Floats:
    """Return the FLOPs of every counted layer where each group keeps a single atom, at positions of its own."""
    ranks = rank_outputs(scope, carriers, resolution, None) if _collapses(scope.space, resolution) else {}
    grouping = form_groups(carriers, tied_by_rank(scope.space, resolution, ranks))
    ones = np.ones_like(grouping.sizes)
    known: dict[tuple[int, int, int], int] = {}

    def length(labels: Labels) -> int:
        key = id(labels.base), labels.repeat, labels.tile
        if key not in known:
            known[key] = grouping.length(labels).at(ones)
        return known[key]

    return np.array(
        [
            sum(2.0 * scale * prod(length(axis) for axis in axes) for scale, axes in cost.products)
            for cost in scope.space.costs
        ]
    )


def _collapses(space: LabelSpace, resolution: Resolution) -> bool:
    """Whether positions in some conv group hang together, so that positions of their own could reach further."""
    inside = (resolution.component[each.positions] for each in space.grouped_channels)
    return any(len(np.unique(own)) < len(own) for own in inside)


def _parts(space: LabelSpace, numbers: list[int]) -> tuple[Mapping[int, int], Ints]:
    """Return the part of the network of each of these choices, and that of every counted layer; -1 for none.

    Choices that look at the same channels belong to one part.
    """
    empty = np.zeros(0, dtype=np.int64)
    left = np.concatenate([empty, *(coupling[0] for coupling in space.couplings)])
    right = np.concatenate([empty, *(coupling[1] for coupling in space.couplings)])
    component = components(space.count, left, right)
    touched = [
        np.unique(component[np.concatenate([part for a in choice.alternatives for part in (a.left, a.right)])])
        for choice in space.choices
    ]
    channels = [own[own != component[0]] for own in touched]
    size = int(component.max()) + 1
    firsts = [np.arange(size, size + len(channels)).repeat([len(own) for own in channels])]
    part = components(size + len(channels), np.concatenate([empty, *firsts]), np.concatenate([empty, *channels]))
    of_component = np.full(size, -1, dtype=np.int64)
    for own in channels:
        of_component[own] = part[own]
    bases = [np.concatenate([cost.inner.base, cost.outer.base]) for cost in space.costs]
    layers = [int(of_component[component[base]].max()) for base in bases]
    return {number: int(part[size + number]) for number in numbers}, np.array(layers, dtype=np.int64)
