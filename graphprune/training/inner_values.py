# SPDX-License-Identifier: Apache-2.0
"""Values inside of a network: modules that hand one on, and see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from graphprune.training.bridge import Trainable

__all__ = ["Tap", "insert_tap"]


class Tap(nn.Module):
    """Hands on a value, and remembers it.

    Attributes
    ----------
    value : Tensor or None
        What passed last.
    """

    def __init__(self) -> None:
        super().__init__()
        self.value: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` itself."""
        self.value = x
        return x

    def take(self) -> Tensor:
        """Return the latest value, and forget it: with it goes the memory of what made it."""
        assert self.value is not None  # noqa: S101 - whoever takes has run the network
        value, self.value = self.value, None
        return value


def insert_tap(net: Trainable, name: str, tap: nn.Module, path: str) -> None:
    """Let everybody who reads a value read it through a module.

    Parameters
    ----------
    net : Trainable
        Changed in place; it has to be recompiled before it is run.
    name : str
        Of the value, in the file.
    tap : nn.Module
        Takes the value and returns it.
    path : str
        Where the network keeps the module.
    """
    net.module.add_submodule(path, tap)
    source = net.values[name]
    with net.module.graph.inserting_after(source):
        seen = net.module.graph.call_module(path, (source,))
    source.replace_all_uses_with(seen, lambda user: user is not seen)
