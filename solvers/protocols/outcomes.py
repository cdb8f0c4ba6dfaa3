# SPDX-License-Identifier: Apache-2.0
"""Outcomes: what becomes of a network when channels go, measured on samples, for solvers that try things out.

Solvers see this protocol alone: arrays per group, never a node. Atoms always have the numbers that they have in the
whole group, whatever went before. Errors are squared errors of outputs against those of the dense network, relative to
their variance, to as many digits as are the same on every machine; scores are what users count by (:class:`Outcome`).
Both are taken on samples that nothing was fitted to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from graphprune.array_types import Floats, Ints

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Choose", "Kept", "Outcome", "Outcomes", "Present", "Profile"]

Kept = tuple[Ints, ...]
"""Per group the atoms that stay, ascending."""
Choose = Callable[[int, "Profile", Callable[[int], float]], int]
"""Called with a group, its profile, and what gives the score at a width; returns the width that the group takes."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a pruned and recovered network is worth on held-out samples.

    Attributes
    ----------
    error : float
        Of its outputs.
    score : float
        Higher is better: what `measure` names.
    measure : {"accuracy", "agreement", "error"}
        Share of samples whose class is right, where there are labels; whose class is that of the dense network, where
        the first output is logits; the negative error for all else.
    samples : int
        Held-out samples that were counted.
    """

    error: float
    score: float
    measure: str
    samples: int


@dataclass(frozen=True, eq=False)
class Profile:
    """What one group can give up while the others stay as they are.

    Attributes
    ----------
    order : ndarray of int64
        The atoms that are there, in the order in which they go.
    widths : ndarray of int64, increasing
        At which errors are known; the last one is the present width.
    errors : ndarray of float64, shape (len(widths),)
        What is added to the error at each width, non-increasing; 0 at the present one.
    """

    order: Ints
    widths: Ints
    errors: Floats

    def at(self, widths: Ints) -> Floats:
        """Return the errors at any widths up to the present one: their roots are interpolated.

        Small errors grow with the square of what is missing. Below the narrowest width that was measured, the root
        goes on as between the two narrowest ones.
        """
        roots, known = np.sqrt(np.maximum(self.errors, 0.0)), self.widths
        interpolated = np.interp(widths, known, roots)
        if len(known) > 1:
            slope = (roots[0] - roots[1]) / (known[1] - known[0])
            interpolated = interpolated + slope * np.maximum(known[0] - widths, 0)
        result: Floats = np.square(interpolated)
        return result

    def kept(self, width: int) -> Ints:
        """Return the atoms that stay at a width, ascending."""
        return np.sort(self.order[len(self.order) - width :])


class Present(Protocol):
    """The network as it has been pruned and recovered so far."""

    @property
    def curves(self) -> tuple[Profile | None, ...]:
        """Per group, what the layers that read it lose at every width: in closed form, no outputs are looked at.

        Errors are relative to the variance of what these layers give, summed over them. None for a group that something
        other than weights reads.
        """

    def errors(self, widths: Ints) -> Floats:
        """Return what each group adds to the error of the outputs if it alone has such a width.

        A width of -1 says that a group is not to be measured; its error is NaN, as is that of a group without a curve.
        """


class Outcomes(Protocol):
    """What becomes of one network."""

    @property
    def streams(self) -> tuple[bool, ...]:
        """Per group, whether several layers make its channels, as along a residual stream."""

    @property
    def stages(self) -> tuple[int, ...]:
        """Per group, the stage (between two changes of resolution) that holds all of it; -1 if none does."""

    def realise(self, kept: Kept, method: str = "least-squares") -> Outcome:
        """Prune to these atoms, recover by a method without training ("none" for not at all), and measure."""

    def profiles(self, kept: Kept, levels: Sequence[Ints], count: int) -> tuple[Profile | None, ...]:
        """Measure each group at up to `count` of its levels below its present width, in the recovered network.

        None for a group that something other than weights reads: there nothing can be made good, or measured.
        """

    def present(self, kept: Kept) -> Present:
        """Prune to these atoms, recover, and return the network for its groups to be measured."""

    def reconstructions(self, kept: Kept) -> tuple[Profile | None, ...]:
        """Return what the layers that read a group of the dense network lose at every width: no outputs are looked at.

        Errors are relative to the variance of what these layers give, summed over them. Atoms outside `kept` are gone.
        """

    def go_forward(self, kept: Kept, choose: Choose) -> None:
        """Go through the groups from the inputs to the outputs; what is chosen for one is there for all that follow."""

    def stage_errors(self, stage: int, candidates: Sequence[Kept]) -> Floats:
        """Return the error of what a stage gives, fed with what the dense network feeds it, for each of some choices.

        Groups outside the stage are whole.
        """
