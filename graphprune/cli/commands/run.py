# SPDX-License-Identifier: Apache-2.0
"""`graphprune run`: the whole chain as a recipe says, recorded, and gone on with where it was ended."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphprune.cli.console import print_json
from graphprune.cli.help_panels import examples

if TYPE_CHECKING:
    from graphprune.cli.recipes.command_lines import CommandLine

__all__ = ["run"]


@examples("graphprune run recipe.yaml", "graphprune run recipe.yaml --dry-run")
def run(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="The YAML file.", show_default=False)],
    *,
    again: Annotated[
        bool, typer.Option("--again", help="Run every step, also where nothing changed.", rich_help_panel="Output")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the recipe and print its commands.", rich_help_panel="Output")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of tables.", rich_help_panel="Output")
    ] = False,
) -> None:
    """Run the commands of a recipe, one after the other.

    All steps are checked before the first one runs. Results and a record (run.json) go to one folder; run it again
    to go on from where it was ended, or from the first step that something changed for. Ends with the exit code of
    the step that failed.
    """
    from graphprune.cli.recipes.check_lines import check_lines
    from graphprune.cli.recipes.command_lines import command_lines
    from graphprune.cli.recipes.recipe import read_recipe
    from graphprune.cli.recipes.record import Done, Record

    written = read_recipe(recipe)
    commands = context.find_root().command.commands  # type: ignore[attr-defined]  # the root is a group
    lines = command_lines(written, commands)
    check_lines(written, lines, commands)
    home = recipe.resolve().parent
    facts = {"command": "run", "recipe": str(recipe), "folder": written.folder}
    if dry_run:
        if as_json:
            print_json({**facts, "commands": [_shown(line) for line in lines]})
        else:
            typer.echo("\n".join(map(_shown, lines)))
        return
    record = Record(home, home / written.folder)
    for number, line in enumerate(lines):
        key = record.key(line)
        if not again and record.holds(number, key):
            _say(f"step {number + 1} of {len(lines)}  {line.command}: done before, nothing changed")
            continue
        _say(f"step {number + 1} of {len(lines)}  {_shown(line)}")
        printed = f"{written.folder}/{number + 1:02}-{line.command}.{'json' if as_json else 'txt'}"
        record.make_room(line)
        began, when = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
        code = _carry_out(line, home, home / printed, as_json=as_json)
        if code:
            _say(f"error: step {number + 1}, {line.command}, ended with exit code {code}; nothing after it was run")
            _say(f"hint: mend it and run `graphprune run {recipe}` again: what is done stays done")
            if as_json:
                done = [asdict(step) for step in record.steps[:number]]
                print_json({**facts, "steps": done, "failed": _shown(line), "error": _error(home / printed, code)})
            raise typer.Exit(code)
        seconds = round(time.monotonic() - began, 2)
        record.add(number, Done(_shown(line), key, seconds, record.digests(line.outputs), printed, when))
    if as_json:
        print_json({**facts, "steps": [asdict(step) for step in record.steps]})
    else:
        typer.echo(f"\nrecord  {Path(written.folder, 'run.json')}")


def _error(printed: Path, code: int) -> dict[str, Any]:
    """Return what a step that failed says of it, in its own object if it came to print one."""
    try:
        error: dict[str, Any] = json.loads(printed.read_text("utf-8"))["error"]
    except (OSError, ValueError, KeyError):  # it was ended from outside
        return {"type": None, "message": f"the step ended with exit code {code}", "hint": None, "exit_code": code}
    return error


def _shown(line: CommandLine) -> str:
    import shlex

    return shlex.join(["graphprune", line.command, *line.arguments])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _carry_out(line: CommandLine, home: Path, printed: Path, *, as_json: bool) -> int:
    """Run a command in a process of its own; keep what it prints, and show it."""
    command = [sys.executable, "-m", "graphprune", line.command, *line.arguments, *(["--json"] if as_json else [])]
    with (
        printed.open("w", encoding="utf-8") as kept,
        subprocess.Popen(  # noqa: S603 - graphprune itself, whose arguments were parsed
            command, cwd=home, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        ) as child,
    ):
        try:
            for text in child.stdout or ():
                kept.write(text)
                if not as_json:
                    sys.stdout.write(text)
                    sys.stdout.flush()
        except BaseException:  # a step does not outlive the chain
            child.terminate()
            raise
    return child.returncode
