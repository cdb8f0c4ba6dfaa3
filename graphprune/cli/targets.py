# SPDX-License-Identifier: Apache-2.0
"""Targets: the files that a command is going to write, refused before the long work where they cannot be written."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphprune.errors import OutputError, UsageError, quote

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Targets", "beside", "check_target"]


@dataclass(frozen=True)
class Targets:
    """Where the pruned model and its plan go.

    Parameters
    ----------
    output : Path
        The pruned model.
    plan : Path or None
        The plan; None if it is not written.
    force : bool
        Replace existing files.
    dry : bool
        Write nothing.
    """

    output: Path
    plan: Path | None
    force: bool = False
    dry: bool = False

    def check(self, inputs: Iterable[Path]) -> None:
        """Refuse what could not be written in the end, or would destroy an input.

        Raises
        ------
        OutputError, UsageError
        """
        inputs = tuple(inputs)
        if not all(path.exists() for path in inputs):
            return  # reading them will fail first, and say it better
        for path in (self.output, self.plan):
            if path is not None:
                check_target(path, inputs, force=self.force or self.dry)
        if self.plan is not None and _same(self.plan, self.output):
            raise UsageError(f"the model and the plan would both go to {quote(str(self.output))}")


def beside(model: Path, suffix: str) -> Path:
    """Return the default place of a result: beside the model, ``net.onnx`` giving ``net<suffix>``."""
    stem = model.stem if model.suffix.lower() in (".onnx", ".pb", ".ort") else model.name
    return model.with_name(stem + suffix)


def check_target(path: Path, inputs: Iterable[Path], *, force: bool) -> None:
    """Refuse a path that is an input, exists, or cannot be written.

    Raises
    ------
    OutputError
        Naming the path and what stands in the way.
    """
    shown = quote(str(path))
    try:
        if any(_same(path, source) for source in inputs):
            raise OutputError(f"{shown} is the input itself", hint="choose another output with -o")
        if path.is_dir():
            raise OutputError(f"{shown} is a folder", hint="name a file")
        if path.exists() and not force:
            raise OutputError(f"{shown} exists already", hint="use --force to replace it, or choose another name")
        folder = path.parent
        if not folder.is_dir():
            problem = "is not a folder" if folder.exists() else "does not exist"
            raise OutputError(f"cannot write {shown}: the folder {quote(str(folder))} {problem}")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"cannot write {shown}: no permission to write in {quote(str(folder))}")
        os.stat(path) if path.exists() else None  # noqa: PTH116 - a name that is too long fails here
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise OutputError(f"cannot write {shown}: {reason}") from None


def _same(first: Path, second: Path) -> bool:
    """Tell whether two paths are one file, also through links and before it exists."""
    with suppress(OSError):
        return first.samefile(second)
    return first.resolve() == second.resolve()
