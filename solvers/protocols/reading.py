# SPDX-License-Identifier: Apache-2.0
"""Readings: what one consumer sees of a coupled group, as moments and weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Reading"]


@dataclass(frozen=True, eq=False)
class Reading:
    """What one consumer sees of a group.

    Attributes
    ----------
    gram : ndarray of float64, shape (columns, columns)
        Covariance of its inputs.
    weight : ndarray of float64, shape (columns, outputs)
    columns : ndarray of int64, shape (atoms, m)
        The columns that belong to each atom.
    tensor : str
        The stored tensor that its weights are from, empty where nobody asks.
    """

    gram: npt.NDArray[np.float64]
    weight: npt.NDArray[np.float64]
    columns: npt.NDArray[np.int64]
    tensor: str = ""
