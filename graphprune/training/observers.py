# SPDX-License-Identifier: Apache-2.0
"""Observers: values inside a network and the gradients of a loss at them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor

from graphprune.array_types import Floats32
from graphprune.training.bridge import Trainable
from graphprune.training.gradient_saliency import LossSum
from graphprune.training.inner_values import Tap, insert_tap
from graphprune.training.loader import Samples

__all__ = ["observed"]


class _Observer(Tap):
    """Hands on a value, and remembers it with its gradient."""

    def forward(self, x: Tensor) -> Tensor:
        self.value = x
        if x.requires_grad:
            x.retain_grad()
        return x

    def pair(self) -> tuple[Floats32, Floats32] | None:
        """Return the value and its gradient, None where there is none."""
        if self.value is None or self.value.grad is None:
            return None
        return self.value.detach().float().numpy(), self.value.grad.float().numpy()


def observed(
    net: Trainable, names: Sequence[str], batches: Iterable[Samples], loss: LossSum
) -> Iterator[dict[str, tuple[Floats32, Floats32]]]:
    """Yield for every batch values and the gradients of the loss at them, by the names in the file.

    A value that the module does not have, because it lies in a branch, or that does not depend on any weight, is left
    out.

    Parameters
    ----------
    net : Trainable
        Observers are inserted into it.
    names : sequence of str
    batches : iterable of Samples
    loss : callable
    """
    observers = {name: _Observer() for name in names if name in net.values}
    for number, (name, observer) in enumerate(observers.items()):
        insert_tap(net, name, observer, f"observer_{number}")
    net.module.recompile()
    for samples in batches:
        net.module.zero_grad()
        loss(net.run(samples.feeds), samples.labels).backward()  # type: ignore[no-untyped-call]  # torch declares no types here
        pairs = {name: observer.pair() for name, observer in observers.items()}
        yield {name: pair for name, pair in pairs.items() if pair is not None}
