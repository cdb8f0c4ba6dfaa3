# SPDX-License-Identifier: Apache-2.0
"""Option groups: a dataclass whose fields are options, for commands that share many of them.

A parameter of a command that is annotated with such a dataclass is spread over its fields on the command line, and
arrives in one piece::

    @dataclass(frozen=True)
    class Budgets:
        panel: ClassVar[str] = "Budget"
        flops: Annotated[str | None, typer.Option(help="...")] = None

    @spread
    def solve(model: ModelFile, budgets: Budgets) -> None: ...

A field that is itself such a dataclass is spread likewise. ``panel`` is the heading in ``--help`` under which its
options stand, unless an option names another one.
"""

from __future__ import annotations

import copy
import functools
import inspect
from dataclasses import MISSING, fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_origin, get_type_hints

from typer.models import OptionInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["option_groups", "spread"]

_GROUPS = "option_groups"


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
            values[name] = _gathered(group, values)
        command(**values)

    single = [part for parameter in whole for part in _parts(parameter)]
    setattr(flat, _GROUPS, groups)
    flat.__signature__ = inspect.Signature(single)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in single}
    del flat.__wrapped__
    return flat


def option_groups(command: Callable[..., None], values: dict[str, Any]) -> list[Any]:
    """Return the option groups of a command, given the values of its parsed command line."""
    known = dict(values)
    return [_gathered(group, known) for group in getattr(command, _GROUPS, {}).values()]


def _gathered(group: Any, values: dict[str, Any]) -> Any:
    """Take the fields of a dataclass out of the values of the command line, and return it in one piece."""
    hints = get_type_hints(group)
    return group(
        **{
            field.name: _gathered(hints[field.name], values)
            if is_dataclass(hints[field.name])
            else values.pop(field.name)
            for field in fields(group)
        }
    )


def _parts(parameter: inspect.Parameter) -> Iterable[inspect.Parameter]:
    """Yield a parameter, or the fields of the dataclass that it is annotated with, as keyword-only parameters."""
    group = parameter.annotation
    if not is_dataclass(group):
        yield parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        return
    hints = get_type_hints(group, include_extras=True)
    panel = getattr(group, "panel", None)
    for field in fields(group):
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        annotation = _under(panel, hints[field.name])
        yield from _parts(
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        )


def _under(panel: str | None, annotation: Any) -> Any:
    """Return the annotation of an option with the heading under which help shows it."""
    if get_origin(annotation) is not Annotated:
        return annotation
    return Annotated[(annotation.__origin__, *(_headed(panel, item) for item in annotation.__metadata__))]


def _headed(panel: str | None, item: Any) -> Any:
    if not isinstance(item, OptionInfo) or item.rich_help_panel is not None:
        return item
    headed = copy.copy(item)  # an option that several groups share stands under each one's heading
    headed.rich_help_panel = panel
    return headed
