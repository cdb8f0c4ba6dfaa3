# SPDX-License-Identifier: Apache-2.0
"""A registry: the methods of one kind, by name, each registered by a decorator in a file of its own.

Every module in the folder of the registry's package is imported at the first look-up, so a new method is one
new file and nothing else has to change.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from typing import TYPE_CHECKING, Generic, TypeVar

from graphprune.errors import InternalError, UsageError, quote

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Registry"]

Method = TypeVar("Method")


class Registry(Generic[Method]):
    """The methods of one kind, by name.

    Parameters
    ----------
    kind : str
        What the methods are, for messages: "criterion".
    package : str
        The package whose modules register methods; a module whose name starts with ``_`` is not imported.
    """

    def __init__(self, kind: str, package: str) -> None:
        self._kind = kind
        self._package = package
        self._methods: dict[str, Method] = {}
        self._discovered = False

    def register(self, name: str) -> Callable[[Method], Method]:
        """Return the decorator that registers a method as `name`, unchanged.

        Raises
        ------
        InternalError
            When `name` is taken by another method.
        """

        def add(method: Method) -> Method:
            if self._methods.setdefault(name, method) is not method:
                raise InternalError(f"two methods are registered as {self._kind} {quote(name)}")
            return method

        return add

    def names(self) -> tuple[str, ...]:
        """Return the names of all methods, sorted."""
        self._discover()
        return tuple(sorted(self._methods))

    def get(self, name: str) -> Method:
        """Return the method called `name`.

        Raises
        ------
        UsageError
            When there is none: the message lists the names, the hint gives the nearest one.
        """
        self._discover()
        if name in self._methods:
            return self._methods[name]
        near = difflib.get_close_matches(name.lower().replace("_", "-"), self.names(), n=1, cutoff=0.5)
        raise UsageError(
            f"unknown {self._kind} {quote(name)}: there are {', '.join(self.names())}",
            hint=f"did you mean {near[0]}?" if near else None,
        )

    def _discover(self) -> None:
        if self._discovered:
            return
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):
                importlib.import_module(f"{self._package}.{module.name}")
        self._discovered = True
