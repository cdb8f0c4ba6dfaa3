# SPDX-License-Identifier: Apache-2.0
"""Methods that prune while training. One file per method.

A method is a class that fulfils :class:`graphprune.training.pruning.method.Method`. Unlike everything else in
`graphprune.solvers` it is given a network in torch, and lies above :mod:`graphprune.training`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from graphprune.solvers.registry import Registry
from graphprune.training.pruning.method import Method

__all__ = ["get", "method", "names"]

_registry: Registry[type[Method]] = Registry("method", __name__, "graphprune.methods")
get = _registry.get
names = _registry.names

Some = TypeVar("Some", bound=type[Method])


def method(name: str) -> Callable[[Some], Some]:
    """Return the decorator that registers a class as the method `name`."""

    def add(own: Some) -> Some:
        own.name = name
        _registry.register(name)(own)
        return own

    return add
