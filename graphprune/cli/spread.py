# SPDX-License-Identifier: Apache-2.0
"""Option groups: a dataclass whose fields are options, for commands that share many of them.

A parameter of a command that is annotated with such a dataclass is spread over its fields on the command line, and
arrives in one piece::

    @dataclass(frozen=True)
    class Budgets:
        flops: Annotated[str | None, typer.Option(help="...")] = None

    @spread
    def solve(model: ModelFile, budgets: Budgets) -> None: ...
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import MISSING, fields, is_dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["spread"]


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that takes every field of its dataclass parameters as an option of its own."""
    hints = get_type_hints(command, include_extras=True)
    whole = [
        parameter.replace(annotation=hints[parameter.name])
        for parameter in inspect.signature(command).parameters.values()
    ]
    groups: dict[str, Any] = {item.name: item.annotation for item in whole if is_dataclass(item.annotation)}

    @functools.wraps(command)
    def flat(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    single = [part for parameter in whole for part in _parts(parameter)]
    flat.__signature__ = inspect.Signature(single)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in single}
    del flat.__wrapped__
    return flat


def _parts(parameter: inspect.Parameter) -> Iterable[inspect.Parameter]:
    """Yield a parameter, or the fields of the dataclass that it is annotated with, as keyword-only parameters."""
    group = parameter.annotation
    if not is_dataclass(group):
        yield parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        return
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        yield inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[field.name]
        )
