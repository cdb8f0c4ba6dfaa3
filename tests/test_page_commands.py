# SPDX-License-Identifier: Apache-2.0
"""Every command line of graphprune that a page shows is one that the program takes: commands, options and choices."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import typer
from page_commands import ShownCommand, shown_commands
from source_tree import ROOT

from graphprune.cli.app import app
from graphprune.cli.command_line_error import CommandLineError

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # the app is a group
PAGES = sorted(
    {*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")}
    - {ROOT / "docs" / "reference.md"}  # prose of docstrings
)
OTHERS = {"--build-arg", "--cpu", "--multi_gpu", "--num_processes", "--rm", "--user"}
"""Options of other programs that pages speak of by themselves."""
OF_ALL = {"--debug", "--help", "--install-completion", "--show-completion", "--version"}
"""What goes with any command, or with none."""
_UNSAID = re.compile(r"requires an argument\.$|'[A-Z]{2,}' is not one of")
"""A text may speak of an option alone, or of any value of it: ``--recover METHOD``."""
_ANY_NUMBER = re.compile(r"[A-Z]")
"""What stands for a number in a text: ``--noise S``."""


@cache
def options(name: str) -> frozenset[str]:
    """Return the options of a command."""
    return frozenset(
        option
        for each in COMMANDS[name].get_params(COMMANDS[name].make_context("", [], resilient_parsing=True))
        for option in (*each.opts, *each.secondary_opts)
    )


@cache
def of_tools() -> str:
    """Return the sources of all tools, which name their options."""
    return "\n".join(path.read_text("utf-8") for path in sorted((ROOT / "tools").rglob("*.py")))


def fault(name: str, arguments: tuple[str, ...], *, whole: bool) -> str:
    """Return what the parser of a command says against arguments; empty if it takes them."""
    try:
        COMMANDS[name].make_context(f"graphprune {name}", list(arguments))
    except CommandLineError as error:
        said = str(getattr(error, "format_message", error.__str__)())
        unsaid = type(error).__name__ == "MissingParameter" or _UNSAID.search(said)
        return "" if unsaid and not whole else said
    except typer.Exit:  # --help
        return ""
    return ""


def what_is_wrong(shown: ShownCommand) -> str:
    """Return what is wrong with what a page shows; empty if nothing is."""
    name, *rest = shown.arguments
    arguments = tuple("1" if _ANY_NUMBER.fullmatch(word) else word for word in rest if "..." not in word)
    if name in COMMANDS:
        return fault(name, arguments, whole=shown.whole and bool(rest))
    if shown.options_only:
        given = [word.split("=")[0] for word in shown.arguments if word.startswith("--")]
        able = [each for each in COMMANDS if {*given} <= options(each)]
        if able:
            faults = [fault(each, (name, *arguments), whole=False) for each in able]
            return "" if "" in faults else faults[0]
        strange = [each for each in given if f'"{each}"' not in of_tools() and each not in OTHERS | OF_ALL]
        known = {option for each in COMMANDS for option in options(each)}
        return "".join(f"there is no option {each}" for each in strange if each not in known)
    return "" if name in {*OF_ALL, "COMMAND"} else f"there is no command {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_program_takes_what_a_page_shows(page: Any) -> None:
    wrong = [
        (shown.text, said)
        for shown in shown_commands(page.read_text("utf-8"), frozenset(COMMANDS))
        if (said := what_is_wrong(shown))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("```sh\ngraphprune solve m.onnx --flops 0.5 --atention heads\n```\n", "--atention"),
        ("```sh\nX=1 graphprune inspect m.onnx \\\n  --attention dims | head > out.txt\n```\n", "'dims'"),
        ("```\n$ graphprune slove m.onnx\n```\n", "no command slove"),
        ("```sh\ndocker run --rm graphprune solve --flops 0.5\n```\n", "MODEL"),
        ("Say `graphprune recover --method blox`.", "'blox'"),
        ("Say `recover --method blox`.", "'blox'"),
        ("| heads | `--attention dims` |", "'dims'"),
        ("`--nothing-of-that-kind 3`", "no option --nothing-of-that-kind"),
    ],
)
def test_what_nobody_could_type_is_found(page: str, said: str) -> None:
    (shown,) = shown_commands(page, frozenset(COMMANDS))
    assert said in what_is_wrong(shown)


def test_what_can_be_typed_is_left_alone() -> None:
    page = (
        "```sh\nfor f in *.onnx; do graphprune inspect \"$f\" --why 'a (b)' 2>&1 | tail -n 1; done  # all\n```\n"
        "`graphprune solve ... --finetune`, `solve --latency 0.5 --runtime mine`, `--recover none`, `--draw 0 1 2`\n"
    )
    shown = [*shown_commands(page, frozenset(COMMANDS))]
    assert len(shown) == 5 and [what_is_wrong(each) for each in shown] == [""] * 5
