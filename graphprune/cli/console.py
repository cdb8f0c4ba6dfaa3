# SPDX-License-Identifier: Apache-2.0
"""Where commands print: data on stdout, as tables or one JSON object; talk on stderr."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from graphprune.phases import phase, progress, remark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import RenderableType

__all__ = ["Talk", "print_json", "print_line", "print_tables"]

_FILE_WIDTH = 160  # a file or a pipe has no width: wide enough that no table is cut


class Talk:
    """What a command says on stderr while it works; whoever listens to the logger "graphprune" hears it, too.

    Parameters
    ----------
    verbose : bool
        Say how long each stage takes, too.
    """

    def __init__(self, *, verbose: bool = False) -> None:
        self.verbose = verbose

    def note(self, text: str) -> None:
        """Say something the user should know."""
        self._say(f"note: {text}")

    def say(self, label: str, text: str) -> None:
        """Say a fact that belongs to every run."""
        self._say(f"{label}  {text}")

    def warn(self, text: str) -> None:
        """Say what is probably wrong."""
        self._say(f"warning: {text}")

    def detail(self, text: str) -> None:
        """Say something only with ``-v``."""
        if self.verbose:
            self._say(text)

    @staticmethod
    def _say(text: str) -> None:
        print(text, file=sys.stderr)
        remark(text)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Name a stage of the work; it is shown where it takes a while."""
        with phase(name):
            yield

    @contextmanager
    def progress(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """Show how far a long stage is.

        Yields what is to be called with the part that is done and the whole.
        """
        with phase(name):
            yield lambda done, total: progress(done, total)

    @contextmanager
    def steps(self, name: str) -> Iterator[Callable[[str, int, int], None]]:
        """Show how far a long stage of several steps is; the same, called with the name of a step as well."""
        with phase(name):
            yield lambda step, done, total: progress(done, total, step)


def print_json(data: dict[str, Any]) -> None:
    """Print one JSON object."""
    print(json.dumps(data, indent=2, allow_nan=False))


def print_line(label: str, text: str) -> None:
    """Print what belongs to a label on one line, however long: it is meant to be copied."""
    print(f"{label:<10} {text}")


def print_tables(tables: RenderableType) -> None:
    """Print tables; colours and bold letters only on a terminal, and not with ``NO_COLOR``."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _FILE_WIDTH
    colours: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    console = Console(file=sys.stdout, width=width, color_system=colours, highlight=False, emoji=False, markup=False)
    with console.capture() as capture:
        console.print(tables)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    single = [line for line, before in zip(lines, [" ", *lines], strict=False) if line or before]
    print("\n".join(single).strip("\n"))
