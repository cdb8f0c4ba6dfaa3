# SPDX-License-Identifier: Apache-2.0
"""Pages about papers are alike, name what is there, and hold no figure that is not measured on another page."""

from __future__ import annotations

import re
import shlex

import pytest
import typer
from source_tree import ROOT

from graphprune.cli.app import app
from graphprune.solvers import criteria, widths

DOCS = ROOT / "docs"
PAGES = {page.name: page.read_text(encoding="utf-8") for page in sorted((DOCS / "papers").glob("*.md"))}
PAPERS = [name for name in PAGES if name != "README.md"]
MEASURED = "\n".join(page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md")))

HEADINGS = ["What it says", "What graphprune has", "What was measured", "When to use it"]
FEWEST_WORDS, MOST_WORDS = 150, 400

COMMANDS = [
    (name, line)
    for name in PAPERS
    for block in re.findall(r"```sh\n(.*?)```", PAGES[name], re.DOTALL)
    for line in block.strip().splitlines()
]


@pytest.mark.parametrize("name", PAPERS)
def test_a_page_has_its_four_parts(name: str) -> None:
    title, citation, *_ = PAGES[name].split("\n\n")
    assert title.startswith("# ")
    assert re.search(r"\*[^*]+\*.*\b(19|20)\d\d\b", citation, re.DOTALL)
    assert re.findall(r"^## (.*)$", PAGES[name], re.MULTILINE) == HEADINGS
    assert FEWEST_WORDS <= len(PAGES[name].split()) <= MOST_WORDS


@pytest.mark.parametrize("name", PAPERS)
def test_accuracies_are_those_of_the_pages_that_measure(name: str) -> None:
    said = set(re.findall(r"\d+\.\d\d(?= ?%)", PAGES[name]))
    assert sorted(said - set(re.findall(r"\d+\.\d\d(?= ?%)", MEASURED))) == []


def test_every_page_shows_a_command() -> None:
    assert sorted({name for name, _ in COMMANDS}) == PAPERS


@pytest.mark.parametrize(("name", "line"), COMMANDS)
def test_commands_have_the_options_that_pages_give_them(name: str, line: str) -> None:
    program, command, *words = shlex.split(line)
    known = {option for each in parameters(command) for option in each.opts}
    assert program == "graphprune"
    assert [word for word in words if re.match(r"--?[a-z]", word) and word not in known] == []
    given = dict(zip(words, words[1:], strict=False))
    if command == "solve":
        assert given.get("--criterion", "l1") in criteria.names()
        assert given.get("--solver", "uniform") in widths.names()
        assert {*given.get("--adapt", "l1").split(",")} <= {*criteria.names()}
    if command == "train":
        assert (ROOT / f"solvers/training/{given['--method'].replace('-', '_')}.py").exists()


def parameters(command: str) -> list[typer.core.TyperOption | typer.core.TyperArgument]:
    """Return the options and arguments of a command."""
    group = typer.main.get_command(app)
    return list(group.commands[command].params)  # type: ignore[attr-defined]  # the program is a group of commands
