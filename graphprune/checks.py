# SPDX-License-Identifier: Apache-2.0
"""The boundary of the Python API: types and choices of what it is given, and what comes out where something fails."""

from __future__ import annotations

import inspect
import numbers
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_args

from graphprune.errors import GraphPruneError, InternalError, UnsafeModelError, UsageError, did_you_mean, quote
from graphprune.extras import importing

__all__ = ["check_choice", "check_fields", "contained"]

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")

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


def contained(function: Callable[Arguments, Returned]) -> Callable[Arguments, Returned]:
    """Let no exception of another library out of a public function: callers catch one base class.

    Where one is raised and an argument is of no type that the function takes, that is what the error says. What the
    system says about files (`OSError`) passes, so does what ends a program, and so does an exception of a class of the
    caller's own, with which code that was called back ends the work.
    """

    @wraps(function)
    def inner(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Returned:
        try:
            with importing():
                return function(*args, **kwargs)
        except (GraphPruneError, OSError):
            raise
        except MemoryError as error:
            raise UnsafeModelError(
                "there is not enough memory for this model", hint="give smaller input sizes: --input-shape NAME=SIZES"
            ) from error
        except Exception as error:  # the last boundary: nothing foreign reaches the caller
            if _is_of_the_caller(error):
                raise
            misfit = _misfit(function, args, kwargs)
            if misfit is not None:
                raise misfit from error
            raise InternalError(
                f"internal error: {type(error).__name__}: {quote(str(error))[1:-1]}",
                hint="this is a fault of graphprune; run again with --debug and report what it prints",
            ) from error

    return inner


_HERE = Path(__file__).resolve().parents[1]
_PARTS = ("graphprune", "solvers", "export")
"""Where this package lies, and its folders there: in a checkout other things lie beside them."""

_INSTALLED = {"site-packages", "dist-packages"}


def _is_of_the_caller(error: Exception) -> bool:
    """Return whether it is of a class of its own, and raised by neither this package nor an installed library."""
    if type(error).__module__ == "builtins":
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    path = Path(trace.tb_frame.f_code.co_filename)
    if not path.is_file():
        return False
    path = path.resolve()
    ours = path.is_relative_to(_HERE) and path.relative_to(_HERE).parts[0] in _PARTS
    return not (ours or _INSTALLED & {*path.parts} or path.is_relative_to(Path(os.__file__).resolve().parent))


def _misfit(
    function: Callable[..., object], args: tuple[object, ...], kwargs: Mapping[str, object]
) -> UsageError | None:
    """Return what says which argument is of no type that a function takes; None if there is no such argument."""
    signature = inspect.signature(function)
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError as error:
        return UsageError(f"{function.__name__}: {error}")
    for name, value in given.items():
        parameter = signature.parameters[name]
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        kinds = _alternatives(str(parameter.annotation))
        if not any(_is_a(value, kind) for kind in kinds):
            made = next((_MAKERS[kind] for kind in kinds if kind in _MAKERS), None)
            return UsageError(f"{name} is {quote(value)}, but must be {' or '.join(kinds)}", hint=made)
    return None


def _alternatives(annotation: str) -> list[str]:
    """Return the names of the types that an annotation allows, without modules and what they hold.

    Examples
    --------
    >>> _alternatives("str | onnx.ModelProto | Mapping[str, int | None] | None")
    ['str', 'ModelProto', 'Mapping', 'None']
    """
    names, depth = [""], 0
    for letter in annotation.replace(" ", ""):
        depth += (letter == "[") - (letter == "]")
        if letter == "|" and depth == 0:
            names.append("")
        elif depth == 0 and letter != "]":
            names[-1] += letter
    return [name.rpartition(".")[2] for name in names]


_MAKERS = {
    "Source": "graphprune.samples(model, data) makes one of arrays, loaders and paths",
    "Plan": "graphprune.read_plan(path) reads one, and graphprune.solve makes one",
    "Model": "graphprune.load(path) reads one",
}
"""How to get what is most often wanted and not given, by the name of its type."""

_ABSTRACT: dict[str, Any] = {"Callable": Callable, "Iterable": Iterable, "Mapping": Mapping, "Sequence": Sequence}
_ALIASES = {"Array": "ndarray"}
"""Names that annotations give to types, and the types' own."""


def _is_a(value: object, kind: str) -> bool:
    """Return whether a value is of a type, of which only the name is known."""
    if kind in ("None", "object", "Any"):
        return value is None or kind != "None"
    known = _KINDS[kind][0] if kind in _KINDS else _ABSTRACT.get(kind)
    if known is not None:
        return isinstance(value, known)
    return any(base.__name__ == _ALIASES.get(kind, kind) for base in type(value).__mro__)
