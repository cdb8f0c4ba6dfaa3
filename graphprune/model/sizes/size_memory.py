# SPDX-License-Identifier: Apache-2.0
"""A memory of sizes: what axes became for other inputs, and so what becomes of sizes that nothing but a file names."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import prod
from typing import Final

__all__ = ["SizeMemory", "UnfitError"]

_MOST_TRIED: Final = 4096
_MOST_KNOWN: Final = 3


class UnfitError(Exception):
    """A size cannot become smaller."""


class SizeMemory:
    """What sizes became, by axis, and anywhere."""

    def __init__(self) -> None:
        self._became: dict[tuple[int | None, int], list[int]] = {}

    def learn(self, before: Sequence[int], now: Sequence[int]) -> None:
        """Remember what became of a value that is not stored."""
        if len(before) != len(now):
            return
        for axis, (size, smaller) in enumerate(zip(before, now, strict=True)):
            for key in ((axis, size), (None, size)):
                known = self._became.setdefault(key, [])
                if smaller not in known:
                    known.append(smaller)

    def usual(self, axis: int, size: int) -> int:
        """Return what axes of a size became, those at this place first; the same if none is known."""
        return (self._became.get((axis, size)) or self._became.get((None, size)) or [size])[-1]

    def split(self, axes: Sequence[tuple[int, int]], total: int) -> Sequence[int]:
        """Return what sizes become whose product becomes another one.

        Raises
        ------
        UnfitError
            If nothing has that product.
        """
        whole = prod(size for _, size in axes)
        if whole == total:
            return [size for _, size in axes]
        choices = [
            list(dict.fromkeys([*self._known(axis, size), size, *_share(size, total, whole)])) for axis, size in axes
        ]
        tried = itertools.islice(itertools.product(*(list(enumerate(sizes)) for sizes in choices)), _MOST_TRIED)

        def order(option: Sequence[tuple[int, int]]) -> tuple[int, int]:
            """Put what is known first, then changes of positions before those of the few parts of a block."""
            changed = [size for (_, size), (_, now) in zip(axes, option, strict=True) if size != now]
            return sum(rank for rank, _ in option), -max(changed, default=0)

        options = sorted(tried, key=order)
        for option in options:
            if prod(size for _, size in option) == total:
                return [size for _, size in option]
        raise UnfitError

    def _known(self, axis: int, size: int) -> list[int]:
        here, anywhere = self._became.get((axis, size), []), self._became.get((None, size), [])
        return [*here[-_MOST_KNOWN:], *anywhere[-_MOST_KNOWN:]]


def _share(size: int, total: int, whole: int) -> list[int]:
    """Return what a size is if it takes all of a change."""
    return [size * total // whole] if size * total % whole == 0 else []
