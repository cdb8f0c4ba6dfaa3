# SPDX-License-Identifier: Apache-2.0
"""Joined samples: those of two sources as one, such as images of somebody's own and images that are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.array_types import Array, Ints
from graphprune.data.source import Batch, Source

__all__ = ["joined"]


def joined(first: Source, second: Source | None) -> Source:
    """Return the samples of two sources for the same model, without labels, under the name of the first one.

    Parameters
    ----------
    first : Source
    second : Source, optional
        Nothing is joined where it is None.
    """
    return first if second is None else Source.whole(first.name, _Joined(first, second))


@dataclass(frozen=True, eq=False)
class _Joined:
    """Reads the samples of one source, and behind them those of another one."""

    first: Source
    second: Source

    labelled: ClassVar[bool] = False
    """Whether there are labels: not every sample has one."""
    classes: ClassVar[tuple[str, ...]] = ()

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def read(self, positions: Ints) -> Batch:
        """Return the samples at these positions, in this order."""
        behind = positions >= len(self.first)
        if not behind.any():
            return self.first.read(positions)
        if behind.all():
            return self.second.read(positions - len(self.first))
        parts = self.first.read(positions[~behind]), self.second.read(positions[behind] - len(self.first))
        order = np.argsort(np.concatenate([np.flatnonzero(~behind), np.flatnonzero(behind)]))
        shared, axes = parts[0].shared, parts[0].axes
        return Batch({name: _merged(name, parts, order) for name in parts[0].feeds}, None, shared, axes)


def _merged(name: str, parts: tuple[Batch, Batch], order: Ints) -> Array:
    """Return the values of an input for the samples of two batches, in an order."""
    first, second = (part.feeds[name] for part in parts)
    if name in parts[0].shared:
        return first
    axis = parts[0].axes.get(name, 0)
    return np.take(np.concatenate([first, second], axis=axis), order, axis=axis)
