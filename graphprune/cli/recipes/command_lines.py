# SPDX-License-Identifier: Apache-2.0
"""From a recipe to command lines: every step gets its files from the steps before it, and is parsed before one runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from graphprune.cli.command_line_error import CommandLineError
from graphprune.errors import UsageError, did_you_mean, quote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from graphprune.cli.recipes.recipe import Recipe, RecipeStep, Value

__all__ = ["CommandLine", "command_lines", "parsed_options"]

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
    names : tuple of str
        Options by which the recipe may name more results, in places of its own.
    """

    takes: tuple[Role, ...]
    reads: Mapping[str, Role] = field(default_factory=dict)
    writes: Mapping[str, str] = field(default_factory=dict)
    makes: Mapping[str, tuple[Role, ...]] = field(default_factory=dict)
    names: tuple[str, ...] = ()


_MODEL_AND_PLAN = {"output": ".onnx", "plan": ".plan.json"}
_PRUNED: tuple[Role, ...] = ("pruned", "latest")
_PAIR = 2
"""Arguments of an option such as ``--to NAME DIR``."""
_USES = {
    "solve": _Use(("model",), {}, _MODEL_AND_PLAN, {"output": _PRUNED, "plan": ("plan",)}, ("report",)),
    "train": _Use(
        ("model",),
        {},
        {**_MODEL_AND_PLAN, "trained": ".trained.onnx"},
        {"output": _PRUNED, "plan": ("plan",), "trained": ("model",)},
    ),
    "recover": _Use(("pruned",), {"teacher": "model", "plan": "plan"}, {"output": ".onnx"}, {"output": _PRUNED}),
    "finetune": _Use(("pruned",), {"teacher": "model"}, {"output": ".onnx"}, {"output": _PRUNED}),
    "quantize": _Use(("latest",), {}, {"output": ".onnx"}, {"output": ("latest",)}),
    "eval": _Use(("latest",)),
    "verify": _Use(("model", "pruned", "plan")),
    "check": _Use(("plan", "model", "pruned")),
    "inspect": _Use(("model",), names=("graph",)),
    "compare": _Use(("model",)),
    "report": _Use(("plan",), {"model": "model", "pruned": "pruned"}, {"output": ".html"}),
    "deploy": _Use(("latest",), {"original": "model"}, names=("to",)),
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
        The files that it writes, or folders of them.
    inputs : tuple of str
        The files that it is given, samples and the like included.
    place : str
        How messages call it: "step 2, eval".
    """

    command: str
    arguments: tuple[str, ...]
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    place: str


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
        command does not take.
    """
    known: dict[Role, str] = {"model": recipe.model, "latest": recipe.model}
    lines = []
    for number, step in enumerate(recipe.steps, 1):
        use = _use(step, number, commands)
        stem = f"{recipe.folder}/{number:02}-{step.command}"
        line = _line(step, use, _Place(known, stem, f"step {number}, {step.command}"), commands[step.command])
        parsed_options(line, commands)
        for option, roles in use.makes.items():
            known.update(dict.fromkeys(roles, stem + use.writes[option]))
        if "quantize" in step.options and step.command == "solve":
            known["latest"] = line.outputs[-1]
        lines.append(line)
    return lines


def parsed_options(line: CommandLine, commands: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a command line by the names of its parameters.

    Raises
    ------
    UsageError
        If its command does not take them, naming the step.
    """
    try:
        context = commands[line.command].make_context(f"graphprune {line.command}", list(line.arguments))
    except CommandLineError as error:
        said = getattr(error, "format_message", error.__str__)().replace("Value error, ", "")
        hint = f"`graphprune {line.command} --help` says what it takes"
        raise UsageError(f"{line.place}: {said}", hint=hint) from error
    values: dict[str, Any] = context.params
    return values


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
    named = [name for name in step.options if name.replace("_", "-") in (*use.names, "log")]
    if "force" in options and (use.writes or named):
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
        arguments += _given(f"{place.name}", spelled, values, options[spelled])
        (outputs if name in named else inputs).extend(_last(value) for value in values[-1 if name in named else 0 :])
    if step.command == "solve" and (precision := step.options.get("quantize")):
        outputs.append(f"{place.stem}.{precision[0]}.onnx")
    return CommandLine(step.command, tuple(arguments), tuple(outputs), tuple(inputs), place.name)


def _last(value: Value | tuple[str, Value]) -> str:
    """Return a value, or that of a pair, as text."""
    return str(value[1] if isinstance(value, tuple) else value)


def _spellings(parameter: Any) -> list[str]:
    return [option for option in (*parameter.opts, *parameter.secondary_opts) if option.startswith("--")]


def _given(place: str, name: str, values: Sequence[Value | tuple[str, Value]], parameter: Any) -> list[str]:
    """Return an option with its values as they are typed.

    Raises
    ------
    UsageError
        If it is a mapping where the option takes none.
    """
    pairs = [value for value in values if isinstance(value, tuple)]
    if parameter.nargs == _PAIR:
        texts = [str(text) for value in values for text in (value if isinstance(value, tuple) else (value,))]
        return [f"--{name}", *texts]
    if pairs and "=" not in str(parameter.metavar):
        raise UsageError(f"{place}: {name} is a mapping", hint="give a number, a text, true, or a list of them")
    if pairs:
        return [f"--{name}={key}={value}" for key, value in pairs]
    if len(values) == 1 and values[0] is True:  # not 1, which equals it
        return [f"--{name}"]
    if len(values) == 1 and values[0] is False:
        return list(parameter.secondary_opts[:1])  # --no-timing; what has no such form is off anyway
    texts = [str(value) for value in values]
    if not parameter.multiple:
        texts = [",".join(texts)]
    return [f"--{name}={text}" for text in texts]
