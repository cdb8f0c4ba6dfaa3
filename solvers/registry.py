# SPDX-License-Identifier: Apache-2.0
"""A registry: the methods of one kind, by name, each registered by a decorator in a file of its own.

Every module in the folder of the registry's package is imported at the first look-up, so a new method is one
new file and nothing else has to change. Other installed packages offer methods through entry points; what graphprune
has itself comes first, and is found without looking at them.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from graphprune.errors import InternalError, UsageError, did_you_mean, quote
from graphprune.extras import require
from graphprune.solvers.plugins import Fault, Plugins

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Registry", "Setting", "chosen", "one_of", "settings"]

Setting = bool | int | float | str

Method = TypeVar("Method")
NeedsTorch = Callable[["Mapping[str, Setting]"], bool]


class Registry(Generic[Method]):
    """The methods of one kind, by name.

    Parameters
    ----------
    kind : str
        What the methods are, for messages: "criterion".
    package : str
        The package whose modules register methods; a module whose name starts with ``_`` is not imported.
    plugins : str
        The group of entry points through which other packages offer methods.
    fault : callable, optional
        Says what is wrong with a result of theirs, given that and the first argument; nothing if it is sound.
    words : sequence of str
        Words that stand for a method until it is known which one: they are listed, but cannot be looked up.
    """

    def __init__(
        self, kind: str, package: str, plugins: str = "", fault: Fault | None = None, words: Sequence[str] = ()
    ) -> None:
        self._kind = kind
        self._words = words
        self._package = package
        self._plugins = Plugins(kind, plugins, fault) if plugins else None
        self._methods: dict[str, Method] = {}
        self._sampled: set[str] = set()
        self._torch: dict[str, NeedsTorch] = {}
        self._discovered = False

    def register(
        self, name: str, *, samples: bool = False, torch: NeedsTorch | None = None
    ) -> Callable[[Method], Method]:
        """Return the decorator that registers a method as `name`, unchanged.

        Parameters
        ----------
        name : str
        samples : bool
            Whether the method looks at samples, and can do nothing without.
        torch : callable, optional
            Says whether the method needs torch, given the settings that somebody chose; without it, it never does.

        Raises
        ------
        InternalError
            When `name` is taken by another method.
        """

        def add(method: Method) -> Method:
            if self._methods.setdefault(name, method) is not method:
                raise InternalError(f"two methods are registered as {self._kind} {quote(name)}")
            if samples:
                self._sampled.add(name)
            if torch is not None:
                self._torch[name] = torch
            return method

        return add

    def names(self) -> tuple[str, ...]:
        """Return the names of all methods, sorted; other packages are not imported for it."""
        self._discover()
        return tuple(sorted({*self._methods, *(self._plugins.names() if self._plugins else ())}))

    def needs_samples(self, name: str) -> bool:
        """Whether a method is known to look at samples; of those of other packages nothing is known."""
        self._discover()
        return name in self._sampled

    def require(self, name: str, given: Mapping[str, Setting]) -> None:
        """Refuse a method that cannot work with what is installed, before anything is done for it.

        Parameters
        ----------
        name : str
            One that is not known is left to :meth:`get`.
        given : mapping of str to bool, int, float or str
            Settings that somebody chose.

        Raises
        ------
        UsageError
            If it needs torch, which is not installed.
        """
        self._discover()
        needs = self._torch.get(name)
        if needs is not None and needs(given):
            require("train", f"the {self._kind} {quote(name)}, which reads gradients")

    def get(self, name: str) -> Method:
        """Return the method called `name`.

        Raises
        ------
        UsageError
            When there is none: the message lists the names, the hint gives the nearest one.
        PluginError
            When another package offers it, but it cannot be loaded.
        """
        self._discover()
        if name in self._methods:
            return self._methods[name]
        if self._plugins and (offered := self._plugins.load(name)) is not None:
            return self._methods.setdefault(name, cast(Method, offered))
        if name in self._words:
            raise UsageError(
                f"{quote(name)} is no {self._kind} of its own and cannot be named here",
                hint=f"name one of {', '.join(self.names())}",
            )
        known = sorted({*self.names(), *self._words})
        raise UsageError(
            f"unknown {self._kind} {quote(name)}: there are {', '.join(known)}", hint=did_you_mean(name, known)
        )

    def _discover(self) -> None:
        if self._discovered:
            return
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):
                importlib.import_module(f"{self._package}.{module.name}")
        self._discovered = True


def settings(method: Callable[..., object]) -> dict[str, Setting]:
    """Return the settings of a method, its keyword-only parameters, with their defaults."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(method).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def chosen(given: Mapping[str, Setting], *methods: Callable[..., object]) -> list[dict[str, Setting]]:
    """Sort given settings to the methods that have them, as values of the type of their default.

    Raises
    ------
    UsageError
        When no method has a setting, or its value is of another kind.
    """
    known = [settings(method) for method in methods]
    names = sorted({name for own in known for name in own})
    for name in given:
        if name not in names:
            there = f"there are {', '.join(names)}" if names else "there are none"
            near = did_you_mean(name, names) or "settings belong to a solver or criterion"
            raise UsageError(f"unknown setting {quote(name)}: {there}", hint=near)
    return [{name: _cast(name, given[name], own[name]) for name in own if name in given} for own in known]


def one_of(name: str, value: str, known: Sequence[str]) -> None:
    """Check the value of a setting that is one of a few words.

    Raises
    ------
    UsageError
        When it is none of them.
    """
    if value not in known:
        raise UsageError(f"the setting {quote(name)} cannot be {quote(value)}: there are {', '.join(known)}")


def _cast(name: str, value: Setting, default: Setting) -> Setting:
    """Return a value, perhaps given as text, as the type of the default."""
    kind = type(default)
    if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    if isinstance(value, str):
        text = value.strip().lower()
        if kind is bool and text in ("true", "false"):
            return text == "true"
        if kind is int and re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
            return int(text)
        if kind is float and _NUMBER.fullmatch(text):
            return float(text)
    elif kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    wanted = {bool: "true or false", int: "a whole number", float: "a number"}.get(kind, "a text")
    raise UsageError(f"the setting {quote(name)} is {value!r}, but must be {wanted}, such as {default!r}")


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII)
