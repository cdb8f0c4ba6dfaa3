# SPDX-License-Identifier: Apache-2.0
"""A recipe: a model and the commands that are to be run on it, one after the other, as a YAML file.

::

    model: model.onnx
    folder: built              # where everything goes; RECIPE.run by default
    steps:
      - solve: {flops: 0.5, calib: photos/}
      - finetune: {data: photos/, epochs: 3}
      - report

A step is a command of graphprune with its options, written without dashes in front. What a step reads and writes
follows from the steps before it: ``finetune`` takes what ``solve`` made, its teacher is the model. Paths are those
seen from the folder of the recipe.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphprune.errors import UsageError, did_you_mean, quote
from graphprune.regular_file import check_regular

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Recipe", "RecipeStep", "read_recipe"]

Value = bool | int | float | str

_LARGEST_FILE = 1 << 16
_KEYS = ("model", "folder", "steps")
_FORM = "a recipe has `model:`, `steps:` and perhaps `folder:`; docs/how_to/recipes.md shows one"


@dataclass(frozen=True)
class RecipeStep:
    """A command with its options.

    Attributes
    ----------
    command : str
    options : mapping of str to tuple
        By the option's name without dashes; several values where it is given several times.
    """

    command: str
    options: Mapping[str, tuple[Value, ...]]


@dataclass(frozen=True)
class Recipe:
    """What is to be done.

    Attributes
    ----------
    path : Path
        The file.
    model, folder : str
        As seen from the folder of the file.
    steps : tuple of RecipeStep
    """

    path: Path
    model: str
    folder: str
    steps: tuple[RecipeStep, ...]


def read_recipe(path: Path) -> Recipe:
    """Read a recipe; whether its steps exist and take their options is not asked here.

    Raises
    ------
    UsageError
        If the file cannot be read, or is no recipe.
    """
    content = _mapping(_parsed(path), f"the recipe {quote(str(path))}")
    for key in content:
        if key not in _KEYS:
            raise UsageError(f"the recipe has {quote(str(key))}", hint=did_you_mean(str(key), _KEYS) or _FORM)
    if not isinstance(content.get("model"), str):
        raise UsageError("the recipe names no model", hint=_FORM)
    steps = content.get("steps")
    if not isinstance(steps, list) or not steps:
        raise UsageError("the recipe has no steps", hint=_FORM)
    folder = content.get("folder", f"{path.stem}.run")
    if not isinstance(folder, str) or not folder:
        raise UsageError("`folder:` of the recipe is no name", hint=_FORM)
    return Recipe(path, content["model"], folder, tuple(_step(number, entry) for number, entry in enumerate(steps, 1)))


def _parsed(path: Path) -> object:
    """Read YAML of a bounded size."""
    import yaml

    try:
        check_regular(path, UsageError)
        size = path.stat().st_size
        if size > _LARGEST_FILE:
            raise UsageError(
                f"the recipe {quote(str(path))} is {size} bytes long, more than {_LARGEST_FILE}", hint=_FORM
            )
        return yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"the recipe {quote(str(path))} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the recipe {quote(str(path))} is no text in UTF-8") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"the recipe {quote(str(path))} is no YAML: {said}", hint=_FORM) from error


def _mapping(value: object, what: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{what} is {_kind(value)}, where names and values are expected", hint=_FORM)
    return value


def _step(number: int, entry: object) -> RecipeStep:
    """Return a step: the name of a command, or that with its options."""
    what = f"step {number} of the recipe"
    if isinstance(entry, str):
        return RecipeStep(entry, {})
    steps = _mapping(entry, what)
    if len(steps) != 1:
        raise UsageError(
            f"{what} has {len(steps)} commands", hint="write `- ` before each step, and its options indented"
        )
    command, options = next(iter(steps.items()))
    given = {} if options is None else _mapping(options, f"{what} ({command})")
    return RecipeStep(str(command), {str(name): _values(what, name, value) for name, value in given.items()})


def _values(what: str, name: object, value: object) -> tuple[Value, ...]:
    values = value if isinstance(value, list) else [value]
    for each in values:
        if not isinstance(each, Value):
            raise UsageError(
                f"{name} of {what} is {_kind(each)}", hint="give a number, a text, true, or a list of them"
            )
    return tuple(values)


def _kind(value: object) -> str:
    kinds = {dict: "a mapping", list: "a list", type(None): "empty"}
    return kinds.get(type(value), f"{quote(str(value)[:40])}")
