# SPDX-License-Identifier: Apache-2.0
"""Help in plain text: options under the heading of their concern, commands under that of their task, and examples.

typer draws such panels with rich alone, which takes longer to load than all the rest of ``--help``, reads brackets in
help texts as markup, and draws boxes into files and pipes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["PanelCommand", "PanelGroup", "epilog", "examples"]

_EXAMPLES = "examples"
_FIRST_COLUMN = 30  # what is longer stands on a line of its own
_BRACES = re.compile(r"^\{(.*?)(?:\.\.\.)?\}((?:\.\.\.)?)$")
_TYPE = re.compile(r" <.*>$")
"""The type that typer puts behind the name of an argument, in Python's words."""


def examples(*lines: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command examples, which its help ends with."""

    def attach(command: Callable[..., None]) -> Callable[..., None]:
        setattr(command, _EXAMPLES, lines)
        return command

    return attach


def epilog(command: Callable[..., None]) -> str:
    """Return the end of a command's help: its examples, each on a line of its own."""
    lines = getattr(command, _EXAMPLES)
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))  # \b: the lines are not filled


class PanelCommand(TyperCommand):
    """A command whose help groups options by ``rich_help_panel``; those without one come last."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what stands behind the command's name: arguments as they are called, which typer puts in braces."""
        return [_BRACES.sub(r"\1\2", piece) for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options."""
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        others: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                panels["Arguments"].append((_TYPE.sub("", record[0]), record[1]))
            elif panel := getattr(parameter, "rich_help_panel", None):
                panels.setdefault(panel, []).append(record)
            else:
                others.append(record)
        _write(formatter, [*panels.items(), ("Options", others)])


class PanelGroup(TyperGroup):
    """A group whose help shows commands by their ``rich_help_panel``."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write commands with their short help."""
        commands = [(name, command) for name in self.list_commands(ctx) if (command := self.get_command(ctx, name))]
        space = formatter.width - 6 - max(len(name) for name, _ in commands)
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, command in commands:
            panel = getattr(command, "rich_help_panel", None) or "Commands"
            panels.setdefault(panel, []).append((name, command.get_short_help_str(space)))
        _write(formatter, panels.items())


def _write(formatter: Any, panels: Iterable[tuple[str, list[tuple[str, str]]]]) -> None:
    """Write each panel that has rows; their second columns stand below one another."""
    shown = [(title, rows) for title, rows in panels if rows]
    width = min(max(len(first) for _, rows in shown for first, _ in rows), _FIRST_COLUMN)
    for title, rows in shown:
        with formatter.section(title):
            formatter.write_dl([(first.ljust(width), second) for first, second in rows], col_max=_FIRST_COLUMN)
