# SPDX-License-Identifier: Apache-2.0
"""Targets: the files that a command is going to write, refused before the long work where they cannot be written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphprune.errors import ModelFileError, OutputError, UsageError, quote

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
        if self.plan is not None and os.path.realpath(self.plan) == os.path.realpath(self.output):
            raise UsageError(f"the model and the plan would both go to {quote(str(self.output))}")


def beside(model: Path, suffix: str) -> Path:
    """Return the default place of a result: beside the model, ``net.onnx`` giving ``net<suffix>``.

    Raises
    ------
    ModelFileError
        If the path names no file at all, as ``.`` and an empty text do.
    """
    if not model.name:
        raise ModelFileError(f"{quote(str(model))} is a folder", hint="give the .onnx file inside it")
    stem = model.stem if model.suffix.lower() in (".onnx", ".pb", ".ort") else model.name
    return model.with_name(stem + suffix)


def check_target(path: Path, inputs: Iterable[Path], *, force: bool) -> None:
    """Refuse a path that is an input, exists, or cannot be written.

    Raises
    ------
    OutputError
        Naming the path and what stands in the way.
    """
    from graphprune.model import atomic

    with atomic.output_errors(path):
        target = atomic.check_target(path, force=force, inputs=inputs)
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise OutputError(
                f"{quote(str(path))} cannot be written: no permission to write in its folder",
                hint="choose another place with -o and --plan",
            )
