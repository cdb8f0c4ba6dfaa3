# SPDX-License-Identifier: Apache-2.0
"""From a recipe to command lines: every step gets its files from the steps before it, and is parsed before one runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from graphprune.errors import UsageError, did_you_mean, quote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from graphprune.cli.recipes.recipe import Recipe, RecipeStep

__all__ = ["CommandLine", "command_lines"]

Role = Literal["model", "plan", "pruned", "latest"]


@dataclass(frozen=True)
class _Use:
    """Which files a command takes, and which it makes.

    Attributes
    ----------
    takes : tuple of str
        Roles of its arguments, in order.
    reads : mapping of str to str
        Options that name files of these roles.
    writes : mapping of str to str
        Options that say where results go, and the ends of their names.
    makes : mapping of str to str
        Which of these results is what from then on.
    forces : bool
        Whether it replaces files only with ``--force``.
    """

    takes: tuple[Role, ...]
    reads: Mapping[str, Role] = field(default_factory=dict)
    writes: Mapping[str, str] = field(default_factory=dict)
    makes: Mapping[str, tuple[Role, ...]] = field(default_factory=dict)
    forces: bool = True


_MODEL_AND_PLAN = {"output": ".onnx", "plan": ".plan.json"}
_PRUNED: tuple[Role, ...] = ("pruned", "latest")
_USES = {
    "solve": _Use(("model",), {}, _MODEL_AND_PLAN, {"output": _PRUNED, "plan": ("plan",)}),
    "train": _Use(
        ("model",),
        {},
        {**_MODEL_AND_PLAN, "trained": ".trained.onnx"},
        {"output": _PRUNED, "plan": ("plan",), "trained": ("model",)},
    ),
    "recover": _Use(("pruned",), {"teacher": "model", "plan": "plan"}, {"output": ".onnx"}, {"output": _PRUNED}),
    "finetune": _Use(("pruned",), {"teacher": "model"}, {"output": ".onnx"}, {"output": _PRUNED}),
    "quantize": _Use(("latest",), {}, {"output": ".onnx"}, {"output": ("latest",)}),
    "eval": _Use(("latest",), forces=False),
    "verify": _Use(("model", "pruned", "plan"), forces=False),
    "check": _Use(("plan", "model", "pruned"), forces=False),
    "inspect": _Use(("model",), forces=False),
    "compare": _Use(("model",), forces=False),
    "report": _Use(("plan",), {"model": "model", "pruned": "pruned"}, {"output": ".html"}),
    "deploy": _Use(("latest",), {"original": "model"}, forces=False),
}


@dataclass(frozen=True)
class CommandLine:
    """A step as it is run.

    Attributes
    ----------
    command : str
    arguments : tuple of str
        What follows the command's name.
    outputs : tuple of str
        The files that it writes.
    inputs : tuple of str
        The files that it is given, samples and the like included.
    """

    command: str
    arguments: tuple[str, ...]
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]


def command_lines(recipe: Recipe, commands: Mapping[str, Any]) -> list[CommandLine]:
    """Return the command lines of a recipe, all of them parsed once.

    Parameters
    ----------
    recipe : Recipe
    commands : mapping of str to command
        All commands of the program by name.

    Raises
    ------
    UsageError
        If a step is no command that a recipe can have, comes before what it needs, or has options or values that the
        command does not take. The command line's own errors of usage come as they are.
    """
    known: dict[Role, str] = {"model": recipe.model, "latest": recipe.model}
    lines = []
    for number, step in enumerate(recipe.steps, 1):
        use = _use(step, number, commands)
        stem = f"{recipe.folder}/{number:02}-{step.command}"
        line = _line(step, use, _Place(known, stem, f"step {number}, {step.command}"), commands[step.command])
        commands[step.command].make_context(f"graphprune {step.command}", list(line.arguments))
        for option, roles in use.makes.items():
            known.update(dict.fromkeys(roles, stem + use.writes[option]))
        lines.append(line)
    return lines


@dataclass(frozen=True)
class _Place:
    """Where in a recipe a step stands: what is known before it, how its results are named, how to speak of it."""

    known: Mapping[Role, str]
    stem: str
    name: str

    def file(self, role: Role) -> str:
        """Return the file of a role.

        Raises
        ------
        UsageError
            If no step before this one made it.
        """
        if role in self.known:
            return self.known[role]
        what = "a plan" if role == "plan" else "a pruned model"
        raise UsageError(f"{self.name}, needs {what}, which no step before it makes", hint="put `solve` before it")


def _use(step: RecipeStep, number: int, commands: Mapping[str, Any]) -> _Use:
    """Return what is known of a command.

    Raises
    ------
    UsageError
        If a recipe cannot have it.
    """
    if step.command in _USES and step.command in commands:
        return _USES[step.command]
    usable = [name for name in _USES if name in commands]
    hint = did_you_mean(step.command, usable) or f"steps can be {', '.join(usable)}"
    raise UsageError(f"step {number} of the recipe is {quote(step.command)}, which is no step", hint=hint)


def _line(step: RecipeStep, use: _Use, place: _Place, command: Any) -> CommandLine:
    """Put a command line together."""
    options = {option.removeprefix("--"): each for each in command.params for option in _spellings(each)}
    arguments = [place.file(role) for role in use.takes]
    inputs = list(arguments)
    outputs = []
    for name, suffix in use.writes.items():
        outputs.append(place.stem + suffix)
        arguments.append(f"--{name}={outputs[-1]}")
    if use.writes and use.forces:
        arguments.append("--force")
    for name, role in use.reads.items():
        if name not in step.options:
            inputs.append(place.file(role))
            arguments.append(f"--{name}={inputs[-1]}")
    for name, values in step.options.items():
        spelled = name.replace("_", "-")
        if spelled in use.writes or spelled == "force":
            raise UsageError(f"{place.name}, sets {quote(spelled)}, which follows from `folder:` of the recipe")
        if spelled not in options:
            raise UsageError(
                f"{place.name}, has no option {quote(spelled)}",
                hint=did_you_mean(spelled, options) or f"`graphprune {step.command} --help` lists them",
            )
        arguments += _given(spelled, values, options[spelled])
        inputs += [str(value) for value in values]
    return CommandLine(step.command, tuple(arguments), tuple(outputs), tuple(inputs))


def _spellings(parameter: Any) -> list[str]:
    return [option for option in (*parameter.opts, *parameter.secondary_opts) if option.startswith("--")]


def _given(name: str, values: Sequence[bool | int | float | str], parameter: Any) -> list[str]:
    """Return an option with its values as they are typed."""
    if values == (True,):
        return [f"--{name}"]
    if values == (False,):
        return list(parameter.secondary_opts[:1])  # --no-timing; what has no such form is off anyway
    texts = [str(value) for value in values]
    if not parameter.multiple:
        texts = [",".join(texts)]
    return [f"--{name}={text}" for text in texts]
