# SPDX-License-Identifier: Apache-2.0
"""Plugins: methods that other installed packages offer through an entry point.

Names are read from the packages' metadata. The code of a package is imported when one of its names is looked up, and
not before, so that a broken one stands in nobody else's way.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphprune.errors import GraphPruneError, PluginError, quote

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["Fault", "Plugins"]

Fault = Callable[[object, Any], str | None]


class Plugins:
    """The methods of one kind that installed packages offer.

    Parameters
    ----------
    kind : str
        What the methods are, for messages: "criterion".
    group : str
        The group of entry points: "graphprune.criteria". An entry point's name is that of the method, and its object
        the function.
    fault : callable, optional
        Says what is wrong with a result, given that and the first argument; nothing if it is sound.
    """

    def __init__(self, kind: str, group: str, fault: Fault | None = None) -> None:
        self._kind = kind
        self._group = group
        self._fault = fault

    def names(self) -> set[str]:
        """Return the names of all methods; nothing is imported."""
        return set(self._offers())

    def load(self, name: str) -> Callable[..., Any] | None:
        """Import and return the method called `name`, None if no package offers it.

        Whatever the method raises, besides errors of graphprune, comes as a `PluginError`.

        Raises
        ------
        PluginError
            If several packages offer the name, or what is offered cannot be imported or used.
        """
        offers = self._offers().get(name, [])
        if not offers:
            return None
        if len(offers) > 1:
            packages = " and ".join(sorted(_package(offer) for offer in offers))
            raise PluginError(f"{packages} all offer a {self._kind} {quote(name)}", hint="uninstall all but one")
        what = f"the {self._kind} {quote(name)} of {_package(offers[0])}"
        try:
            method = offers[0].load()
        except Exception as error:  # importing a package may raise anything
            raise PluginError(f"{what} cannot be loaded: {_said(error)}", hint="repair or uninstall it") from error
        fault = _fault(method)
        if fault:
            raise PluginError(f"{what} cannot be used: {fault}", hint="docs/writing_a_solver.md says what is expected")
        return _guarded(method, what, self._fault)

    def _offers(self) -> dict[str, list[EntryPoint]]:
        """Return the entry points by name; one that a search path leads to twice counts once."""
        from importlib.metadata import entry_points

        by_name: dict[str, dict[tuple[str, str], EntryPoint]] = {}
        for offer in entry_points(group=self._group):
            by_name.setdefault(offer.name, {}).setdefault((_package(offer), offer.value), offer)
        return {name: list(offers.values()) for name, offers in by_name.items()}


def _package(offer: EntryPoint) -> str:
    """Return what offers a method: a distribution with its version."""
    return f"{offer.dist.name} {offer.dist.version}" if offer.dist else "an unknown package"


def _fault(method: object) -> str | None:
    """Say what is wrong with an object that should be a method."""
    if not callable(method):
        return f"it is a {type(method).__name__}, not a function"
    for name, parameter in inspect.signature(method).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not isinstance(
            parameter.default, bool | int | float | str
        ):
            return f"its setting {quote(name)} has no default that is a number, a text, true or false"
    return None


def _guarded(method: Callable[..., Any], what: str, fault: Fault | None) -> Callable[..., Any]:
    @functools.wraps(method)
    def guarded(*arguments: Any, **settings: Any) -> Any:
        try:
            result = method(*arguments, **settings)
        except GraphPruneError:
            raise
        except Exception as error:  # the method of another package may raise anything
            raise PluginError(
                f"{what} failed: {_said(error)}", hint="this is a fault of that package; --debug shows where"
            ) from error
        wrong = fault(result, arguments[0]) if fault is not None else None
        if wrong:
            raise PluginError(f"{what} failed: {wrong}", hint="this is a fault of that package")
        return result

    return guarded


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {quote(str(error))[1:-1]}"
