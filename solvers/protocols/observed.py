# SPDX-License-Identifier: Apache-2.0
"""Observed: what samples say of single channels, the part of the evidence that criteria ask for.

Everything comes group by group, in graph order. None stands for a group of which samples show nothing: what
reads it is no plain weight, or the values lie where they cannot be captured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from graphprune.array_types import Floats
    from graphprune.solvers.protocols.reading import Reading


__all__ = ["Flow", "Flows", "Gradients", "Observed", "Products"]


@dataclass(frozen=True, eq=False)
class Gradients:
    """One figure from gradients for every atom.

    Attributes
    ----------
    per_group : tuple of (ndarray, shape (size,)) or None
    of : str
        What was differentiated, in words: "cross-entropy of the given labels".
    """

    per_group: tuple[Floats | None, ...]
    of: str


@dataclass(frozen=True, eq=False)
class Products:
    """Weights times their gradients.

    Attributes
    ----------
    per_tensor : mapping of str to ndarray
        By stored tensor, of its shape: the mean over batches of ``|w dL/dw|``. A tensor that training does not reach
        is not there.
    of : str
        What was differentiated.
    """

    per_tensor: Mapping[str, npt.NDArray[np.float64]]
    of: str


@dataclass(frozen=True, eq=False)
class Flow:
    """Activations times their gradients at the layers around one group.

    Attributes
    ----------
    made, read : ndarray, shape (size,)
        Added up over the outputs of the layers that make the group, and over the inputs of the convolutions that
        read it: for each channel the mean over samples of the magnitude of the sum of a dL/da over its positions.
    made_points, read_points : ndarray, shape (size,)
        Activations of one sample in these sums.
    """

    made: Floats
    read: Floats
    made_points: Floats
    read_points: Floats


@dataclass(frozen=True, eq=False)
class Flows:
    """The flows of all groups, and what was differentiated."""

    per_group: tuple[Flow | None, ...]
    of: str


class Observed(Protocol):
    """What samples say of the channels of one network; `samples` is the most that are looked at."""

    def readings(self, samples: int) -> tuple[tuple[Reading, ...] | None, ...]:
        """Return what every consumer of a group sees of it; errors count behind a following BatchNormalization."""

    def output_gradients(self, samples: int) -> tuple[tuple[Floats, ...] | None, ...]:
        """Return for each of the `readings` the root mean square of the gradient at each output, shape (outputs,)."""

    def map_ranks(self, samples: int) -> tuple[Floats | None, ...]:
        """Return the mean rank of the feature maps of each atom, as what reads the group sees them."""

    def taylor_activation(self, samples: int) -> Gradients:
        """Return the mean over samples of ``|sum of a dL/da|`` over all places that read the atom."""

    def taylor_weight(self, samples: int) -> Gradients:
        """Return the mean over batches of ``|sum of w dL/dw|`` over all weights that make the atom."""

    def fisher(self, samples: int) -> Gradients:
        """Return half the mean over samples of the squared sum of a dL/da over all places that read the atom."""

    def products(self, samples: int) -> Products:
        """Return weights times gradients, elementwise."""

    def flows(self, samples: int, *, squared: bool) -> Flows:
        """Return activations times gradients, layer by layer; halves of squares instead of magnitudes if `squared`."""
