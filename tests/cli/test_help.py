# SPDX-License-Identifier: Apache-2.0
"""Help for people: commands stand by task, options by concern, and every command has examples that are valid."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
import typer

from graphprune.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

    Run = Callable[..., Outcome]

TASKS = {
    "Prune": ["solve", "apply", "compare", "sweep", "run"],
    "Look": ["inspect", "report", "verify", "check"],
    "Accuracy": ["eval", "recover"],
    "Train": ["train", "finetune"],
    "Deploy": ["quantize", "deploy"],
    "Files": ["init", "export", "normalize", "synthesize", "widen"],
    "Help": ["doctor"],
}
PANELS = {
    "Budget",
    "Widths",
    "Channels",
    "Model",
    "Samples",
    "Recovery",
    "Training",
    "Processes",
    "Questions",
    "Output",
    "Precision",
    "Runtimes",
}
COMMANDS = [name for task, names in TASKS.items() for name in names if task != "Help"]


def sections(text: str) -> dict[str, list[str]]:
    """Return the first words of what stands under each heading."""
    rows: dict[str, list[str]] = {}
    for line in text.splitlines():
        if heading := re.fullmatch(r"(\w+):", line):
            rows[heading[1]] = []
        elif rows and (row := re.match(r"  (\S+)", line)):
            list(rows.values())[-1].append(row[1].rstrip(","))
    return rows


def group() -> Any:
    return typer.main.get_command(app)


def test_commands_stand_by_task(quick: Run) -> None:
    shown = sections(quick("--help").out)
    assert {title: names for title, names in shown.items() if title in TASKS} | {"Help": shown["Help"][:1]} == TASKS


@pytest.mark.parametrize("name", COMMANDS)
def test_options_stand_by_concern(name: str, quick: Run) -> None:
    shown = sections(quick(name, "--help").out)
    assert shown.pop("Arguments")
    assert shown.pop("Options")[0] == "-h"
    assert shown
    assert set(shown) <= PANELS
    assert all(option.startswith("-") for options in shown.values() for option in options)


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_is_lost_between_the_headings(name: str, quick: Run) -> None:
    text = quick(name, "--help").out
    for parameter in group().commands[name].params:
        shown = parameter.opts if parameter.param_type_name == "option" else [parameter.metavar]
        assert all(re.search(rf"(?m)^  .*{re.escape(part)}(?!\w)", text) for part in shown), shown


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_valid(name: str, quick: Run) -> None:
    text = quick(name, "--help").out
    lines = re.findall(r"(?m)^    (graphprune .*)$", text.partition("Examples:")[2])
    assert len(lines) >= 2
    for line in lines:
        program, command, *arguments = shlex.split(line)
        assert (program, command) == ("graphprune", name)
        context = group().commands[name].make_context(name, arguments)
        assert context.params


def test_one_option_under_two_concerns_has_one_text(quick: Run) -> None:
    assert "Size to which image files are brought." in quick("eval", "--help").out
    assert re.search(r"--size BUDGET", quick("solve", "--help").out)
    assert re.search(r"--image-size HxW", quick("eval", "--help").out)


def test_every_command_says_what_it_does_in_a_line(quick: Run) -> None:
    assert "..." not in quick("--help").out.partition("ARGS]...")[2]


@pytest.mark.parametrize("name", [*COMMANDS, "doctor"])
def test_values_are_called_by_words_and_not_by_types(name: str, quick: Run) -> None:
    text = quick(name, "--help").out
    assert not re.search(r"<(int|float|str|path|list|bool)\b|INTEGER|FLOAT|\{", text)
    usage, *_ = text.splitlines()
    assert re.fullmatch(rf"Usage: graphprune {name} \[OPTIONS\]( [A-Z|]+(\.\.\.)?)*", usage)


@pytest.mark.parametrize(
    ("option", "hint"), [("--flop", "did you mean --flops?"), ("--xyzzy", "see `graphprune solve --help`")]
)
def test_an_option_that_there_is_not_is_told_from_what_was_meant(option: str, hint: str, quick: Run) -> None:
    done = quick("solve", "net.onnx", option, "0.5")
    assert done.code == 2
    assert done.err.splitlines() == [f"error: No such option: {option}", f"hint: {hint}"]


@pytest.mark.parametrize(("given", "meant"), [("bn", "bn-scale"), ("tayler", "taylor"), ("fish", "fisher")])
def test_the_beginning_of_a_name_is_enough_to_be_understood(given: str, meant: str, quick: Run, model: Path) -> None:
    done = quick("solve", model, "--flops", "0.5", "--criterion", given)
    assert done.code == 2
    assert done.err.splitlines()[-1] == f"hint: did you mean {meant}?"
