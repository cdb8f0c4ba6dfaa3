# SPDX-License-Identifier: Apache-2.0
"""Checks of what the Python API is given: types and choices are refused where they are given, not where they fail."""

from __future__ import annotations

import numbers
from dataclasses import fields
from typing import Any, get_args

from graphprune.errors import UsageError, did_you_mean

__all__ = ["check_choice", "check_fields"]

_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "bool": (bool, "True or False"),
    "int": (numbers.Integral, "a whole number"),
    "float": (numbers.Real, "a number"),
    "str": (str, "a text"),
}


def check_choice(name: str, value: object, kind: Any) -> None:
    """Check a value that is one of a few words.

    Parameters
    ----------
    name : str
        Of the parameter, for the message.
    value : object
    kind : type
        A ``Literal``.

    Raises
    ------
    UsageError
        If it is none of them.
    """
    known = get_args(kind)
    if not isinstance(value, str) or value not in known:
        shown = ", ".join(word for word in known if word)
        raise UsageError(f"{name} is {value!r}, but must be one of {shown}", hint=did_you_mean(value, known))


def check_fields(options: Any, **choices: Any) -> None:
    """Check the fields of a dataclass of options whose types are plain, and those that are choices.

    Parameters
    ----------
    options : dataclass
        Of a module whose annotations are not evaluated.
    **choices : type
        The ``Literal`` of every field that is a choice.

    Raises
    ------
    UsageError
        If a value has another type, or is no choice.
    """
    for field in fields(options):
        value, kind = getattr(options, field.name), str(field.type)
        if field.name in choices:
            check_choice(field.name, value, choices[field.name])
            continue
        optional = kind.endswith(" | None")
        known = _KINDS.get(kind.removesuffix(" | None"))
        if known is None or (optional and value is None):
            continue
        wanted, said = known
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise UsageError(f"{field.name} is {value!r}, but must be {said}")
