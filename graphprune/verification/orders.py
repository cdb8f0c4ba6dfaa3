# SPDX-License-Identifier: Apache-2.0
"""Orders: which slices of the original's tensors the other model has, as the parent tells the child of a comparison.

Thousands of tensors may have the very same slices along an axis, so each order is written once.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

import numpy as np

from graphprune.array_types import Array

__all__ = ["Orders"]

_FILE = "keep.npz"
_PLACES = "places"


class Orders:
    """The slices that are taken of tensors, by the number of the tensor and the axis."""

    def __init__(self) -> None:
        self._arrays: list[Array] = []
        self._known: dict[Hashable, int] = {}
        self._places: dict[tuple[int, int], int] = {}

    def put(self, key: Hashable, order: Array) -> None:
        """Put an order in."""
        self._known[key] = len(self._arrays)
        self._arrays.append(order)

    def use(self, tensor: int, axis: int, key: Hashable) -> None:
        """Take the slices of a known order along an axis."""
        self._places[tensor, axis] = self._known[key]

    def of(self, tensor: int, axis: int) -> Array | None:
        """Return the slices that are taken along an axis; None where all are, as they lie."""
        number = self._places.get((tensor, axis))
        return None if number is None else self._arrays[number]

    def write(self, folder: Path) -> None:
        """Leave them for the child."""
        places = np.array([(*place, number) for place, number in self._places.items()], dtype=np.int64)
        arrays = {str(number): order for number, order in enumerate(self._arrays)}
        np.savez(folder / _FILE, **{_PLACES: places.reshape(-1, 3)}, **arrays)  # type: ignore[arg-type]  # numpy takes the names for its options, too

    @classmethod
    def read(cls, folder: Path) -> Orders:
        """Return what the parent has left."""
        orders = cls()
        with np.load(folder / _FILE) as written:
            orders._arrays = [written[str(number)] for number in range(len(written.files) - 1)]
            orders._places = {(tensor, axis): number for tensor, axis, number in written[_PLACES].tolist()}
        return orders
