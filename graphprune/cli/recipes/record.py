# SPDX-License-Identifier: Apache-2.0
"""The record of a recipe: what was run, on what, for how long, and what came of it; later runs go on from there."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from graphprune import __version__
from graphprune.errors import UsageError, quote
from graphprune.model.write import write_bytes_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from graphprune.cli.recipes.command_lines import CommandLine

__all__ = ["Done", "Record"]

_FILE = "run.json"
_PIECE = 1 << 20


@dataclass(frozen=True)
class Done:
    """A step that was carried out.

    Attributes
    ----------
    command : str
        The whole command line.
    key : str
        Digest of the command line, of what it read, and of the version: a step with the same key need not run again.
    seconds : float
    outputs : dict of str to str
        Digests of the files that it wrote.
    printed : str
        Where what it printed is kept.
    when : str
        UTC, ISO 8601.
    """

    command: str
    key: str
    seconds: float
    outputs: dict[str, str]
    printed: str
    when: str


class Record:
    """What was done so far, kept as ``run.json`` in the folder of the results.

    Parameters
    ----------
    home : Path
        The folder of the recipe, from which paths are seen.
    folder : Path
        That of the results; made where it is missing.

    Raises
    ------
    UsageError
        If the folder holds other things, or the record cannot be read.
    """

    def __init__(self, home: Path, folder: Path) -> None:
        self._home = home
        self._path = folder / _FILE
        folder.mkdir(parents=True, exist_ok=True)
        if not self._path.exists():
            if any(folder.iterdir()):
                raise UsageError(f"{quote(str(folder))} holds files of something else", hint="name another `folder:`")
            self.steps: list[Done] = []
            self._write()  # so that the folder is known as its own, whatever becomes of the first step
            return
        try:
            self.steps = [Done(**entry) for entry in json.loads(self._path.read_text("utf-8"))["steps"]]
        except (OSError, ValueError, TypeError, KeyError) as error:
            hint = "delete the folder to begin anew"
            raise UsageError(f"{quote(str(self._path))} is no record of a run", hint=hint) from error

    def key(self, line: CommandLine) -> str:
        """Return the digest of everything that the results of a step follow from."""
        digest = hashlib.sha256(json.dumps([__version__, line.command, *line.arguments]).encode())
        for name in line.inputs:
            for part in self._traces(self._home / name):
                digest.update(part.encode())
        return digest.hexdigest()

    def holds(self, number: int, key: str) -> bool:
        """Whether a step was done like this, and what it wrote is still there, unchanged."""
        if number >= len(self.steps) or self.steps[number].key != key:
            return False
        written = self.steps[number].outputs
        return all((self._home / name).is_file() and _sha256(self._home / name) == own for name, own in written.items())

    def add(self, number: int, done: Done) -> None:
        """Keep what a step came to."""
        self.steps = [*self.steps[:number], done, *self.steps[number + 1 :]]
        self._write()

    def make_room(self, line: CommandLine) -> None:
        """Remove folders that a step is going to write anew, as far as nothing is in them but what it wrote before."""
        own = {name: trace for step in self.steps for name, trace in step.outputs.items()}
        for name in line.outputs:
            if (self._home / name).is_dir():
                held = self.digests([name])
                if held and all(own.get(each) == trace for each, trace in held.items()):
                    shutil.rmtree(self._home / name)

    def _write(self) -> None:
        content = {"graphprune": __version__, "steps": [asdict(step) for step in self.steps]}
        write_bytes_atomically((json.dumps(content, indent=2) + "\n").encode(), self._path, force=True)

    def digests(self, names: Sequence[str]) -> dict[str, str]:
        """Return the digests of files that a step wrote, in folders too; of what it left out there is none."""
        files = [path for name in names for path in (self._home / name, *sorted((self._home / name).rglob("*")))]
        return {str(path.relative_to(self._home)): _sha256(path) for path in files if path.is_file()}

    def _traces(self, path: Path) -> Iterator[str]:
        """Tell what a name stands for: a file by its content, a folder by what lies in it, anything else by nothing."""
        try:
            if path.is_file():
                yield _sha256(path)
            elif path.is_dir():
                for each in sorted(path.rglob("*")):
                    facts = each.stat()
                    yield f"{each.relative_to(path)} {facts.st_size} {facts.st_mtime_ns}"
        except (OSError, ValueError):  # a value that is no path
            return


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
