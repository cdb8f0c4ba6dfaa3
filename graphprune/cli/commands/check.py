# SPDX-License-Identifier: Apache-2.0
"""`graphprune check`: whether plans, their models and pruned files belong together; quick, for hooks."""

from __future__ import annotations

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

    from graphprune.cli.belonging import Trio

__all__ = ["check"]


@examples(
    "graphprune check model.plan.json model.onnx",
    "graphprune check model.plan.json",
    "graphprune check model.plan.json model.onnx model.pruned.onnx",
    "graphprune check --hook a.onnx b.plan.json b.pruned.onnx",
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
    hook: Annotated[
        bool,
        typer.Option(
            "--hook",
            help="As a hook is called, with whatever was changed: pass over models that no plan is about.",
            rich_help_panel="Model",
        ),
    ] = False,
    printing: Printing,
) -> None:
    """Check that plans, models and pruned files belong together.

    Made for hooks and pipelines: nothing is run. Takes the files of one plan or of several in any order, and looks for
    MODEL.onnx and MODEL.pruned.onnx beside MODEL.plan.json. Exit code 2 if something does not belong together.
    `graphprune verify` proves more.
    """
    from graphprune.cli.belonging import Belonging
    from graphprune.consistency import check_consistency

    talk = printing.talk()
    for path in files:
        if not path.is_file():
            hint = "name the plan or the model in it" if path.is_dir() else near_file(path)
            raise UsageError(f"{quote(str(path))} {'is a folder' if path.is_dir() else 'does not exist'}", hint=hint)
    known = Belonging.of(files, hook=hook)
    if known.without_plan and not hook:
        raise UsageError(
            f"there is no plan beside {quote(str(known.without_plan[0]))}, and none that is named is about it",
            hint="name it: graphprune check MODEL.plan.json MODEL.onnx; --hook passes over such models",
        )
    checked = []
    for trio in known.trios:
        pruned = None if trio.pruned is None else known.load(trio.pruned)
        for note in check_consistency(known.load(trio.model), trio.plan, pruned, rebind=rebind):
            talk.note(note)
        checked.append(trio)
        if not printing.as_json:
            made = f", and {trio.pruned} is what it makes" if trio.pruned else ""
            typer.echo(f"ok  {trio.path} fits {trio.model}{made}")
    passed_over = [*known.quantised, *known.without_plan]
    _show_rest(passed_over, known.quantised, checked, as_json=printing.as_json)


def _show_rest(
    passed_over: Sequence[Path], quantised: Sequence[Path], checked: Sequence[Trio], *, as_json: bool
) -> None:
    """Print which files were not checked, or everything for machines."""
    if as_json:
        rows = [{"plan": str(t.path), "model": str(t.model), "pruned": t.pruned and str(t.pruned)} for t in checked]
        print_json({"command": "check", "checked": rows, "passed_over": [str(path) for path in passed_over]})
        return
    for path in passed_over:
        why = "its numbers are in lower precision than the plan's" if path in quantised else "no plan is about it"
        typer.echo(f"--  {path} is not checked: {why}")
