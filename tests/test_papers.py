# SPDX-License-Identifier: Apache-2.0
"""Pages about papers are alike, name what is there, and hold no figure that is not measured on another page."""

from __future__ import annotations

import inspect
import itertools
import re
import shlex

import pytest
import typer
from source_tree import ROOT

from graphprune.cli.app import app
from graphprune.solvers import criteria, training, widths

DOCS = ROOT / "docs"
PAGES = {page.name: page.read_text(encoding="utf-8") for page in sorted((DOCS / "papers").glob("*.md"))}
PAPERS = [name for name in PAGES if name != "README.md"]
MEASURED = "\n".join(page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md")))

HEADINGS = ["What it says", "What graphprune has", "What was measured", "When to use it"]
FEWEST_WORDS, MOST_WORDS = 150, 400
METHODS = {"--criterion": criteria, "--solver": widths, "--method": training}

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
    assert program == "graphprune"
    assert [word for word in words if re.match(r"--?[a-z]", word) and word not in options(command)] == []


@pytest.mark.parametrize(
    "line", [line for _, line in COMMANDS if line.startswith(("graphprune solve", "graphprune train"))]
)
def test_commands_name_methods_and_settings_that_are_there(line: str) -> None:
    pairs = list(itertools.pairwise(shlex.split(line)))
    settings: set[str] = set()
    for option, registry in METHODS.items():
        for name in (given for before, given in pairs if before == option):
            settings |= set(inspect.signature(registry.get(name)).parameters)
    assert {given.partition("=")[0] for before, given in pairs if before == "--set"} <= settings
    competing = [name for before, given in pairs if before == "--adapt" for name in given.split(",")]
    assert set(competing) <= set(criteria.names())


def options(command: str) -> set[str]:
    """Return the names of the options of a command."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    return {name for parameter in group.commands[command].params for name in parameter.opts}
