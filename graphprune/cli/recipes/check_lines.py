# SPDX-License-Identifier: Apache-2.0
"""What is known of a recipe before its first step runs: files that are missing or in each other's way, wrong values."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from graphprune.cli.commands.deploy import RuntimeChecking
from graphprune.cli.options.budgets import Budgets
from graphprune.cli.options.channel_choice import SolvedChannels
from graphprune.cli.options.model_reading import ExactReading
from graphprune.cli.options.widths import AUTOMATIC, SolvedWidths, WidthLimits, split_names
from graphprune.cli.recipes.command_lines import parsed_options
from graphprune.cli.spread import option_groups
from graphprune.errors import GraphPruneError, UsageError, near_file, quote
from graphprune.extras import Extra, require

if TYPE_CHECKING:
    from graphprune.cli.recipes.command_lines import CommandLine
    from graphprune.cli.recipes.recipe import Recipe

__all__ = ["check_lines"]

_EXTRAS: dict[str, Extra] = {"train": "train", "finetune": "train", "report": "report"}
"""What commands need as a whole."""
_WORDS = (AUTOMATIC, "all")
"""What stands for solvers that are not named."""


def check_lines(recipe: Recipe, lines: Sequence[CommandLine], commands: Mapping[str, Any]) -> None:
    """Refuse a recipe of which a step is known to fail.

    Parameters
    ----------
    recipe : Recipe
    lines : sequence of CommandLine
        Its steps.
    commands : mapping of str to command
        All commands of the program by name.

    Raises
    ------
    UsageError
        If a file is missing that no step before writes; if a step would replace the recipe, what it was given, or what
        another step writes; if a value means nothing, or a package is missing. The message names the step.
    """
    files = _Files(recipe)
    for line in lines:
        with _named(line.place):
            values = parsed_options(line, commands)
            callback = commands[line.command].callback
            files.pass_through(line, _read(callback, values, line))
            if line.command in _EXTRAS:
                require(_EXTRAS[line.command], f"`graphprune {line.command}`")
            _check_values(option_groups(callback, values))


@contextmanager
def _named(place: str) -> Iterator[None]:
    """Name the step in whatever is wrong with it."""
    try:
        yield
    except GraphPruneError as error:
        told = error.message if error.message.startswith(place) else f"{place}: {error.message}"
        raise UsageError(told, hint=error.hint) from error


class _Files:
    """The files that a recipe was given, and those that its steps have written by then."""

    def __init__(self, recipe: Recipe) -> None:
        self._home = recipe.path.resolve().parent
        self._given = {self._place(recipe.path.resolve()), self._place(recipe.model)}
        self._written: dict[str, str] = {}

    def pass_through(self, line: CommandLine, read: Sequence[str]) -> None:
        """Let a step read and write.

        Raises
        ------
        UsageError
        """
        for name in read:
            if self._place(name) not in self._written and not (self._home / name).exists():
                raise UsageError(f"{quote(name)} does not exist", hint=near_file(self._home / name))
        inputs = {self._place(name) for name in (*line.inputs, *read) if "\0" not in name}
        self._given |= inputs - self._written.keys()
        for name in line.outputs:
            place = self._place(name)
            if place in self._given or place in inputs:
                raise UsageError(f"{quote(name)} would be replaced, which the recipe reads", hint="name another file")
            if place in self._written:
                raise UsageError(f"{quote(name)} is written by {self._written[place]}", hint="name another file")
            self._written[place] = line.place

    def _place(self, name: str | Path) -> str:
        return os.path.normcase(os.path.realpath(self._home / name))


def _read(command: Any, values: Mapping[str, Any], line: CommandLine) -> list[str]:
    """Return the files and folders that a command line names to be read."""
    from graphprune.data.open_source import names_files

    named = []
    for name, parameter in inspect.signature(command).parameters.items():
        kind, *marks = get_args(parameter.annotation) or (parameter.annotation,)
        given = values.get(name)
        several = given if isinstance(given, list | tuple) else [given]
        if given is None or any(str(each) in line.outputs for each in several):
            continue
        if kind is Path or Path in get_args(kind):
            named += [str(each) for each in several]
        elif any(getattr(mark, "metavar", "") == "SOURCE" for mark in marks) and names_files(given):
            named.append(given)
    return named


def _check_values(groups: Sequence[Any]) -> None:
    """Refuse values that mean nothing, as the command would."""
    for group in groups:
        if isinstance(group, Budgets):
            group.requests()
        elif isinstance(group, ExactReading):
            group.options()
        elif isinstance(group, RuntimeChecking):
            from graphprune.export.deploy import check_names

            check_names(group.names)
    widths = next((group for group in groups if isinstance(group, SolvedWidths)), None)
    channels = next((group for group in groups if isinstance(group, SolvedChannels)), None)
    if widths is not None and channels is not None:
        _check_choice(widths, channels)


def _check_choice(widths: SolvedWidths, channels: SolvedChannels) -> None:
    """Look up whatever is named; the files of widths may be those that a step before makes."""
    from graphprune.solvers import criteria
    from graphprune.solvers import widths as solvers

    for name in split_names(widths.solver):
        if name not in _WORDS:
            solvers.get(name)
    for name in split_names(channels.criterion):
        if name not in _WORDS:
            criteria.get(name)
    limits: WidthLimits = replace(widths.limits, widths=None, start=None)
    channels.solve_options(replace(widths, limits=limits))
