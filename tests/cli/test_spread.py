# SPDX-License-Identifier: Apache-2.0
"""Option groups: what a command line gives arrives in the dataclasses that declare it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pytest
import typer
from typer.models import OptionInfo

from graphprune.cli.spread import spread


@dataclass(frozen=True)
class Limits:
    """A group."""

    panel: ClassVar[str] = "Limits"

    least: Annotated[int, typer.Option(help="The least.")] = 1
    names: Annotated[list[str] | None, typer.Option("--name", rich_help_panel="Names")] = None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A group that holds another."""

    panel: ClassVar[str] = "Choice"

    how: Annotated[str, typer.Option(help="How.")]
    limits: Limits


@dataclass(frozen=True)
class Wider(Limits):
    """A group that adds to another, and gives another default."""

    least: Annotated[int, typer.Option(help="More.")] = 8
    most: Annotated[int, typer.Option(help="The most.")] = 9


Seen = list[tuple[Any, ...]]


@pytest.fixture
def seen() -> Seen:
    return []


def run(command: Any, *arguments: str) -> None:
    app = typer.Typer(add_completion=False)
    app.command()(command)
    typer.main.get_command(app).main(list(arguments), standalone_mode=False)


def test_nested_groups_arrive_in_one_piece(seen: Seen) -> None:
    @spread
    def command(model: Annotated[str, typer.Argument()], choice: Choice) -> None:
        seen.append((model, choice))

    run(command, "net.onnx", "--how", "well", "--least", "3", "--name", "a", "--name", "b")
    assert seen == [("net.onnx", Choice(how="well", limits=Limits(3, ["a", "b"])))]


def test_an_heir_has_the_options_of_both_and_its_own_defaults(seen: Seen) -> None:
    @spread
    def command(limits: Wider) -> None:
        seen.append((limits,))

    run(command)
    assert seen == [(Wider(least=8, names=None, most=9),)]


def test_an_option_stands_under_the_heading_of_its_group_unless_it_names_one() -> None:
    @spread
    def command(choice: Choice) -> None:
        del choice

    panels = {
        name: info.rich_help_panel
        for name, annotation in command.__annotations__.items()
        for info in annotation.__metadata__
        if isinstance(info, OptionInfo)
    }
    assert panels == {"how": "Choice", "least": "Limits", "names": "Names"}
