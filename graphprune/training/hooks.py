# SPDX-License-Identifier: Apache-2.0
"""A hook: what a method may do at every step of training, beside what the optimiser does.

The trainer calls it at fixed places of a step; in a loop of your own you call it there yourself::

    moment = Moment(step, total, samples)
    hook.begin(moment)                                  # gates get the values of this step
    moment.outputs = net.run(samples.feeds)
    hook.loss(moment, loss_of(moment.outputs)).backward()
    hook.rewrite(moment)                                # gradients are changed
    optimizer.step()
    hook.end(moment)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from graphprune.training.loader import Samples

__all__ = ["Hook", "Moment"]


@dataclass(eq=False)
class Moment:
    """One step of training.

    Attributes
    ----------
    step, total : int
        ``0 <= step < total``.
    samples : Samples
        The batch, on the device of the module.
    target : mapping of str to Tensor or None
        The teacher's outputs, if there is a teacher.
    outputs : mapping of str to Tensor
        What the module gave; empty before the forward pass.
    """

    step: int
    total: int
    samples: Samples
    target: Mapping[str, Tensor] | None = None
    outputs: Mapping[str, Tensor] | None = None


class Hook:
    """Does nothing: a method overrides what it needs."""

    @property
    def undecayed(self) -> frozenset[int]:
        """Ids of parameters that the optimiser must not decay, because the hook does."""
        return frozenset()

    def begin(self, moment: Moment) -> None:
        """Prepare the forward pass, e.g. give gates their values."""

    def loss(self, moment: Moment, usual: Tensor) -> Tensor:
        """Return the loss of the step, given the usual one."""
        return usual

    def rewrite(self, moment: Moment) -> None:
        """Change the gradients; they are clipped already, and the optimiser's step comes next."""

    def end(self, moment: Moment) -> None:
        """Take note of what happened in the step."""

    def rest(self) -> None:
        """Let the module be the network that is judged: everything random is switched off."""

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint has to keep, by name."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `tensors` returned."""
