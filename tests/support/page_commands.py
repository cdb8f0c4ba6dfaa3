# SPDX-License-Identifier: Apache-2.0
"""The command lines of graphprune that pages show, in blocks and in the text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass

__all__ = ["ShownCommand", "shown_commands"]

_BLOCK = re.compile(r"^( *)```[^\n`]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)", re.DOTALL)
_INDENTED = re.compile(r"^(?: {4,}|\t)(.*)$", re.MULTILINE)
_REDIRECTED = re.compile(r"\d?>>?\s*(?:&\d|\S+)|<\s*\S+")
_ENDS = re.compile(r"(?:\|\||&&|[|;&)])")
_BEGINS = re.compile(r"(?:^|[\s/(])graphprune\s+(?=[a-z-])")
_LEFT_OUT = re.compile(r"\.\.\.|…|\[[A-Za-z-]")
"""What says that something is left out of a command."""
_LEFT_OUT_PARTS = re.compile(r"\[:N\]|\|[a-z|-]+")
"""What may be left out of a value, and its alternatives."""


@dataclass(frozen=True)
class ShownCommand:
    """A command as a page shows it.

    Attributes
    ----------
    text : str
    arguments : tuple of str
        What follows the name of the program.
    whole : bool
        Whether it could be typed like this: it stands in a block, and nothing is left out of it.
    options_only : bool
        Whether it is no command, but options of one that the text speaks of.
    """

    text: str
    arguments: tuple[str, ...]
    whole: bool
    options_only: bool = False


def shown_commands(page: str, commands: Collection[str]) -> Iterator[ShownCommand]:
    """Yield the command lines of a page in Markdown; in the text also those without the program's name, and options.

    Parameters
    ----------
    page : str
    commands : collection of str
        Names of all commands.
    """
    rest = _BLOCK.sub("\n", page)
    for block in _BLOCK.finditer(page):
        for line in block[2].replace("\\\n", " ").splitlines():
            yield from _commands(line, whole=True)
    for line in _INDENTED.finditer(rest):
        yield from _commands(line[1], whole=True)
    for span in _SPAN.finditer(rest):
        said = " ".join(span[1].split())
        if said.startswith("--"):
            yield ShownCommand(said, tuple(_words(_LEFT_OUT_PARTS.sub("", said))), whole=False, options_only=True)
        elif said.partition(" ")[0] in commands and " --" in said:
            yield ShownCommand(said, tuple(_words(said)), whole=False)
        else:
            yield from _commands(said, whole=False)


def _commands(line: str, *, whole: bool) -> Iterator[ShownCommand]:
    """Yield the commands of a line: what begins with the program's name, up to a pipe or the like."""
    if line.lstrip().startswith(("#", "Usage:", "import ", "from ", "pip ", "docker build")):
        return
    for begin in _BEGINS.finditer(line):
        said = line[begin.end() :]
        try:
            words = _words(said)
        except ValueError:  # an apostrophe of prose
            continue
        yield ShownCommand(f"graphprune {said}", tuple(words), whole and not _LEFT_OUT.search(said))


def _words(said: str) -> list[str]:
    """Return the words of a command as a shell would, without what follows it."""
    lexer = shlex.shlex(_REDIRECTED.sub(" ", said), posix=True, punctuation_chars=";|&()")
    lexer.whitespace_split = True
    words = []
    for word in lexer:
        if _ENDS.fullmatch(word):
            break
        words.append(word)
    return words
