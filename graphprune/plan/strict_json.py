# SPDX-License-Identifier: Apache-2.0
"""Strict JSON: the unambiguous part of JSON, read with a path to every value and written to be read by people.

What :mod:`json` lets through and this module does not: duplicate keys, ``NaN`` and
``Infinity``, numbers that overflow, integers of absurd length, lone surrogates, and
``true`` or ``1.0`` where an integer is meant.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from graphprune.errors import PlanError, quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_Container: TypeAlias = dict[Any, Any] | list[Any] | tuple[Any, ...]

__all__ = ["Value", "dumps", "loads"]

_LINE = 118
_MOST_DIGITS = 18
_UNSAFE = re.compile("[\ud800-\udfff]")
_MAYBE_UNSAFE = re.compile(r"[\ud800-\udfff]|\\u[dD][89a-fA-F]")


def loads(text: str, source: str) -> Value:
    """Parse ``text``.

    Parameters
    ----------
    text : str
        A JSON document.
    source : str
        What to call the document in messages, e.g. ``"plan.json"``.

    Returns
    -------
    Value
        The root of the document.

    Raises
    ------
    PlanError
        If ``text`` is not JSON, or uses one of the ambiguities named in the module docstring.
    """
    try:
        data = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_float
        )
    except json.JSONDecodeError as error:
        message = f"{source} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise PlanError(message, hint="a plan file is the JSON that `graphprune solve` writes") from None
    except RecursionError:
        raise PlanError(f"{source} is nested too deeply for a plan file") from None
    except _AmbiguityError as error:
        raise PlanError(f"{source}: {error}") from None
    if _MAYBE_UNSAFE.search(text):
        _refuse_surrogates(data, source)
    return Value(data, "", source)


@dataclass(frozen=True)
class Value:
    """A parsed JSON value that knows where it stands, and can be asked for one type only.

    Parameters
    ----------
    data : object
        What :mod:`json` returned.
    path : str
        The place within the document, e.g. ``"groups[3].kept"``.
    source : str
        The name of the document.
    """

    data: Any
    path: str
    source: str

    def fail(self, message: str, *, hint: str | None = None) -> NoReturn:
        """Raise a :class:`~graphprune.errors.PlanError` that names this place."""
        where = f"{self.source}: {self.path}" if self.path else self.source
        raise PlanError(f"{where}: {message}", hint=hint)

    def at(self, label: str) -> Value:
        """Return the same value, called ``label`` in messages."""
        return Value(self.data, label, self.source)

    def fields(self, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Value]:
        """Return the members of an object that has all ``required`` keys and no key beyond the optional ones."""
        if not isinstance(self.data, dict):
            self._expected("an object")
        for key in self.data:
            if key not in required and key not in optional:
                self.fail(f"unknown key {quote(key)}", hint=f"known keys are {', '.join([*required, *optional])}")
        for key in required:
            if key not in self.data:
                self.fail(f"the key {quote(key)} is missing")
        return {key: self._child(key, value) for key, value in self.data.items()}

    def entries(self) -> dict[str, Value]:
        """Return the members of an object with free keys."""
        if not isinstance(self.data, dict):
            self._expected("an object")
        return {key: self._child(quote(key), value) for key, value in self.data.items()}

    def items(self) -> Iterator[Value]:
        """Yield the elements of an array."""
        if not isinstance(self.data, list):
            self._expected("an array")
        for index, value in enumerate(self.data):
            yield Value(value, f"{self.path}[{index}]", self.source)

    def text(self) -> str:
        """Return a string."""
        if not isinstance(self.data, str):
            self._expected("a string")
        return str(self.data)

    def boolean(self) -> bool:
        """Return ``true`` or ``false``."""
        if not isinstance(self.data, bool):
            self._expected("true or false")
        return bool(self.data)

    def integer(self, low: int, high: int = 2**63 - 1) -> int:
        """Return an integer with ``low <= value <= high``; neither ``true`` nor ``1.0`` is one."""
        if type(self.data) is not int:
            self._expected("an integer")
        if not low <= self.data <= high:
            self.fail(f"{self.data} is outside {low}..{high}")
        return int(self.data)

    def number(self) -> int | float:
        """Return a finite number."""
        if type(self.data) not in (int, float):
            self._expected("a number")
        number: int | float = self.data
        return number

    def ascending(self, size: int) -> tuple[int, ...]:
        """Return an array of integers, strictly ascending, each with ``0 <= value < size``."""
        if not isinstance(self.data, list):
            self._expected("an array of integers")
        previous = -1
        for index, value in enumerate(self.data):
            if type(value) is not int:
                self.fail(f"element {index} is {_shown(value)}, not an integer")
            if not 0 <= value < size:
                self.fail(f"index {value} (element {index}) is outside 0..{size - 1}")
            if value <= previous:
                problem = "appears twice" if value == previous else f"comes after {previous}"
                self.fail(f"index {value} (element {index}) {problem}", hint="indices are sorted, each appears once")
            previous = value
        return tuple(self.data)

    def _child(self, key: str, value: object) -> Value:
        return Value(value, f"{self.path}.{key}" if self.path else key, self.source)

    def _expected(self, kind: str) -> NoReturn:
        self.fail(f"expected {kind}, got {_shown(self.data)}")


def dumps(data: object) -> str:
    """Return ``data`` as JSON in which short lists and objects take one line and long ones are wrapped.

    The order of keys is kept; the text ends with a line break and is pure ASCII, so it is the
    same on every system.
    """
    return _render(data, 0, 0) + "\n"


def _render(data: object, depth: int, used: int) -> str:
    if not isinstance(data, (dict, list, tuple)):
        return _flat(data)
    if len(data) < _LINE and not _has_objects(data):
        flat = _flat(data)
        if len(flat) + used <= _LINE:
            return flat
    pair = "{}" if isinstance(data, dict) else "[]"
    indent = "\n" + "  " * (depth + 1)
    return f"{pair[0]}{indent}{f',{indent}'.join(_lines(data, depth + 1))}\n{'  ' * depth}{pair[1]}"


def _lines(data: _Container, depth: int) -> Iterable[str]:
    """Yield the parts of a container, each for a line of its own or, if all are scalars, as many on a line as fit."""
    if isinstance(data, dict):
        parts: Iterable[str] = (_entry(key, value, depth) for key, value in data.items())
    elif set(map(type, data)) == {int}:
        parts = map(str, data)
    else:
        parts = (_render(value, depth, 2 * depth + 1) for value in data)
    return _filled(parts, depth) if _has_scalars_only(data) else parts


def _entry(key: object, value: object, depth: int) -> str:
    name = json.dumps(str(key)) + ": "
    return name + _render(value, depth, 2 * depth + len(name) + 1)


def _filled(parts: Iterable[str], depth: int) -> Iterator[str]:
    """Yield lines that hold as many parts as fit; a line ends without its comma."""
    room = _LINE - 2 * depth
    line: list[str] = []
    length = -2
    for part in parts:
        if line and length + len(part) + 2 > room:
            yield ", ".join(line)
            line, length = [], -2
        line.append(part)
        length += len(part) + 2
    yield ", ".join(line)


def _has_scalars_only(data: _Container) -> bool:
    return not any(isinstance(value, (dict, list, tuple)) for value in _values(data))


def _has_objects(data: _Container) -> bool:
    return any(
        isinstance(value, dict) or (isinstance(value, (list, tuple)) and _has_objects(value)) for value in _values(data)
    )


def _values(data: _Container) -> Iterable[Any]:
    return data.values() if isinstance(data, dict) else data


def _flat(data: object) -> str:
    return json.dumps(data, ensure_ascii=True, allow_nan=False)


class _AmbiguityError(ValueError):
    """Something JSON parsers disagree about."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _AmbiguityError(f"the key {quote(key)} appears twice in one object")
            seen.add(key)
    return result


def _constant(name: str) -> NoReturn:
    raise _AmbiguityError(f"{name} is not a number")


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise _AmbiguityError(f"the integer {digits[:12]}... has {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _AmbiguityError(f"the number {digits[:24]} is too large")
    return number


def _refuse_surrogates(data: object, source: str) -> None:
    pending = [data]
    while pending:
        value = pending.pop()
        if isinstance(value, str) and _UNSAFE.search(value):
            raise PlanError(f"{source}: the string {quote(value)} has half a character (a lone surrogate)")
        if isinstance(value, dict):
            pending.extend(value)
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _shown(value: object) -> str:
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "an array"
    return quote(value) if isinstance(value, str) else json.dumps(value)
