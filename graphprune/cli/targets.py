# SPDX-License-Identifier: Apache-2.0
"""Targets: the files that a command is going to write, refused before the long work where they cannot be written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from graphprune.errors import GraphPruneError, ModelFileError, OutputError, UsageError, quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Targets", "beside", "check_apart", "check_target", "check_targets"]


@dataclass(frozen=True)
class Targets:
    """Where the pruned model and its plan go, and what else the command writes.

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
    further : mapping of str to Path
        Whatever else is written, by what it is.
    """

    output: Path
    plan: Path | None
    force: bool = False
    dry: bool = False
    further: Mapping[str, Path] = field(default_factory=dict)

    def check(self, inputs: Iterable[Path | str | None], log: Path | None = None) -> None:
        """Refuse what could not be written in the end, or would destroy an input or another result.

        Parameters
        ----------
        inputs : iterable of Path, str or None
            What the command was given, as for :func:`check_targets`.
        log : Path, optional

        Raises
        ------
        OutputError, UsageError
        """
        written = {"model": self.output, "plan": self.plan, **self.further}
        check_targets(written, inputs, force=self.force or self.dry, log=log)


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


def check_targets(
    written: Mapping[str, Path | None],
    inputs: Iterable[Path | str | None],
    *,
    force: bool,
    log: Path | None = None,
) -> None:
    """Refuse results of one command that would replace each other or what it was given, or cannot be written.

    Parameters
    ----------
    written : mapping of str to Path or None
        Where results go, by what they are; None for those that are not written.
    inputs : iterable of Path, str or None
        Files that the command was given; as texts what ``--calib`` and ``--data`` take, which may be a file, a folder
        or a function of a module. Where one of them is missing, nothing is checked: reading it says so.
    force : bool
        Replace existing files, but never one of these.
    log : Path, optional
        Where the log goes, which replaces older logs.

    Raises
    ------
    OutputError, UsageError
    """
    given = [each for each in inputs if each is not None]
    if any(isinstance(each, Path) and not each.exists() for each in given):
        return
    targets = {name: path for name, path in written.items() if path is not None}
    check_apart({**targets, "log": log})
    for path in targets.values():
        check_target(path, (file for each in given for file in _files(each, path)), force=force)


def check_apart(written: Mapping[str, Path | None]) -> None:
    """Refuse two results that would have the same name, links resolved.

    Raises
    ------
    UsageError
    """
    places: dict[str, str] = {}
    for name, path in written.items():
        if path is None:
            continue
        place = os.path.normcase(os.path.realpath(path))
        if place in places:
            raise UsageError(
                f"the {places[place]} and the {name} would both go to {quote(str(path))}",
                hint="give one of them another name",
            )
        places[place] = name


def check_target(path: Path, inputs: Iterable[Path], *, force: bool) -> None:
    """Refuse a path that is an input, exists, or cannot be written.

    Raises
    ------
    OutputError
        Naming the path and what stands in the way.
    """
    from graphprune.model.files import atomic

    with atomic.output_errors(path):
        target = atomic.check_target(path, force=force, inputs=inputs)
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise OutputError(
                f"{quote(str(path))} cannot be written: no permission to write in its folder",
                hint="choose another place",
            )


def _files(given: Path | str, target: Path) -> Iterator[Path]:
    """Yield the files that something stands for, as far as they may be the one that a result would replace."""
    if isinstance(given, Path):
        yield given
        if target.is_file() and given.is_file() and _is_data_of(given, target):
            yield target
        return
    try:
        place = Path(given)
        if place.is_file():
            yield place
        elif place.is_dir() and target.is_file() and _is_image_in(place, target):
            yield target
        elif ":" in given:
            module = Path(*given.partition(":")[0].split("."))
            yield from (module.with_name(module.name + ".py"), module / "__init__.py")
    except (OSError, ValueError):  # a text that cannot be a path is none
        return


def _is_image_in(folder: Path, file: Path) -> bool:
    """Whether a file is one of the images that a folder is given for."""
    from graphprune.data.image_folder import SUFFIXES

    return file.suffix.lower() in SUFFIXES and file.resolve().is_relative_to(folder.resolve())


def _is_data_of(model: Path, file: Path) -> bool:
    """Whether a file holds weights of a model, which names it; that is read only where the name is in its bytes."""
    if not file.resolve().is_relative_to(model.resolve().parent) or file.suffix == model.suffix:
        return False
    with model.open("rb") as stream:
        tail, name = b"", file.name.encode()
        while piece := stream.read(_PIECE):
            if name in tail + piece:
                break
            tail = piece[-len(name) :]
        else:
            return False

    from graphprune import api

    try:
        files = api.load(model).tensors.files.values()
    except GraphPruneError:  # it is no model, or no good one, and reading it in earnest says so
        return False
    return any(each.path.resolve() == file.resolve() for each in files)


_PIECE = 1 << 22
