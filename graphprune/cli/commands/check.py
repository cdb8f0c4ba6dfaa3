# SPDX-License-Identifier: Apache-2.0
"""`graphprune check`: whether plans, their models and pruned files belong together; quick, for hooks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphprune.cli.console import print_json
from graphprune.cli.help_panels import examples
from graphprune.cli.options.model_reading import Rebind
from graphprune.cli.options.output import Printing
from graphprune.cli.spread import spread
from graphprune.errors import UsageError, near_file, quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan

__all__ = ["check"]

_PLAN, _PRUNED = ".plan.json", ".pruned.onnx"


@dataclass(frozen=True)
class _Trio:
    """A plan, and the files that should belong to it."""

    plan: Path
    model: Path
    pruned: Path | None


@examples(
    "graphprune check model.plan.json model.onnx",
    "graphprune check model.plan.json",
    "graphprune check model.plan.json model.onnx model.pruned.onnx",
)
@spread
def check(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Plans (.json) and models. What is not named is looked for beside them, by its name.",
            show_default=False,
        ),
    ],
    *,
    rebind: Rebind = False,
    printing: Printing,
) -> None:
    """Check that plans, models and pruned files belong together.

    Made for hooks and pipelines: nothing is run. Takes the files in any order, and looks for MODEL.onnx and
    MODEL.pruned.onnx beside MODEL.plan.json. Exit code 2 if something does not belong together. `graphprune verify`
    proves more.
    """
    from graphprune import api
    from graphprune.consistency import check_consistency
    from graphprune.plan.file import read_plan

    talk = printing.talk()
    plans, models = _sorted(files)
    checked = []
    for path in plans:
        plan = read_plan(path)
        trio = _trio(path, plan, [api.load(each) for each in models])
        pruned = None if trio.pruned is None else api.load(trio.pruned)
        for note in check_consistency(api.load(trio.model), plan, pruned, rebind=rebind):
            talk.note(note)
        checked.append(trio)
        if not printing.as_json:
            typer.echo(f"ok  {trio.plan} fits {trio.model}{f', and {trio.pruned} is what it makes' if pruned else ''}")
    if printing.as_json:
        rows = [{"plan": str(t.plan), "model": str(t.model), "pruned": t.pruned and str(t.pruned)} for t in checked]
        print_json({"command": "check", "checked": rows})


def _sorted(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Tell plans from models; where no plan is named, those beside the models are meant.

    Raises
    ------
    UsageError
        If there is no plan.
    """
    for path in files:
        if not path.exists():
            raise UsageError(f"{quote(str(path))} does not exist", hint=near_file(path))
    plans = [path for path in files if path.suffix.lower() == ".json"]
    models = [path for path in files if path not in plans]
    if not plans:
        beside = [path.with_name(path.name.removesuffix(_PRUNED).removesuffix(".onnx") + _PLAN) for path in models]
        plans = list(dict.fromkeys(path for path in beside if path.exists()))
        models = []
    if not plans:
        raise UsageError(
            f"there is no plan beside {quote(str(files[0]))}",
            hint="name it: graphprune check MODEL.plan.json MODEL.onnx",
        )
    return plans, models


def _trio(path: Path, plan: Plan, given: Sequence[Model]) -> _Trio:
    """Find out which of the given models is the original of a plan; what is not given is looked for.

    Raises
    ------
    UsageError
        If no original is found.
    """
    stem = path.name.removesuffix(_PLAN)
    own = [model.path for model in given if model.path is not None and model.sha256 == plan.model.sha256]
    paths = [model.path for model in given if model.path is not None]
    named = (path.with_name(f"{plan.model.name}.onnx"), path.with_name(f"{stem}.onnx"))
    original = next(iter([*own, *paths[:1], *(each for each in named if each.exists())]), None)
    if original is None:
        looked = " and ".join(dict.fromkeys(quote(str(each)) for each in named))
        raise UsageError(
            f"the model of {quote(str(path))} is not found: {looked} would be its name",
            hint=f"name it: graphprune check {path} MODEL.onnx",
        )
    others = [each for each in paths if each != original]
    beside = path.with_name(stem + _PRUNED)
    pruned = others[0] if others else beside if beside.exists() else None
    return _Trio(path, original, pruned)
