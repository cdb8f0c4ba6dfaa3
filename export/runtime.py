# SPDX-License-Identifier: Apache-2.0
"""What a runtime is: something that converts a network, loads it and runs it, once for given inputs.

Each is a class in a file of its own in :mod:`graphprune.export.runtimes`; other packages offer theirs through entry
points of the group ``graphprune.runtimes``. All of it happens in a child process (:mod:`graphprune.export.cell`), so a
runtime may crash, print and hang as it likes. It computes in float32 on one thread, so that what differs is not a
matter of precision.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from graphprune.array_types import Array
from graphprune.model.children.lifeline import end_with_parent
from graphprune.solvers.registry import Registry

__all__ = [
    "RUNTIMES",
    "CannotConvertError",
    "LayersRun",
    "ModelSignature",
    "NetworkRun",
    "Runtime",
    "call_program",
    "make_runtime",
]

NetworkRun = Callable[[Mapping[str, Array]], list[Array]]
"""Runs a network on inputs by name; gives its outputs in their order in the file."""
LayersRun = Callable[[Mapping[str, Array]], float]
"""Runs a network once; gives the seconds that its layers took, without what brings data in and out."""

_LINES = 3
_MARKS = " \t•*"
"""What stands around lines of lists."""


class CannotConvertError(Exception):
    """A runtime does not take the network, and says why."""


@dataclass(frozen=True)
class ModelSignature:
    """What goes into a network and comes out.

    Attributes
    ----------
    shapes : dict of str to tuple of int
        Of the inputs, in the order in which the file has them.
    dtypes : dict of str to str
        Names of their numpy types.
    outputs : tuple of str
    """

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    outputs: tuple[str, ...]


class Runtime(ABC):
    """A runtime.

    Attributes
    ----------
    modules : tuple of str
        What is imported; without one of them the runtime is not installed.
    clock : callable
        Seconds: processor time of all threads, which a busy machine does not change, where the processor does the work.
    distribution : str
        The installed package whose version is shown.
    converts : bool
        Whether it has files of its own, which `convert` writes.
    refused : frozenset of str
        In what ONNX files may be stored that it does not take: "int8" (QDQ), "fp16".
    """

    modules: ClassVar[tuple[str, ...]] = ()
    clock: ClassVar[Callable[[], float]] = time.process_time
    distribution: ClassVar[str] = ""
    converts: ClassVar[bool] = False
    refused: ClassVar[frozenset[str]] = frozenset()

    def missing(self) -> str:
        """Return what is not installed; empty where all is there. Nothing is imported."""
        return ", ".join(name for name in self.modules if find_spec(name) is None)

    def version(self) -> str:
        """Return the installed version; empty where nobody tells."""
        if not self.distribution:
            return ""
        try:
            return metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            return ""

    def convert(self, model: Path, signature: ModelSignature, folder: Path) -> Path:
        """Write a network in the runtime's own form.

        Parameters
        ----------
        model : Path
            The ONNX file.
        signature : ModelSignature
        folder : Path
            An empty one for everything that is written.

        Returns
        -------
        Path
            What `open` takes; the ONNX file itself where the runtime reads that.

        Raises
        ------
        Exception
            Whatever the runtime raises where it does not take the network.
        """
        del signature, folder
        return model

    @abstractmethod
    def open(self, path: Path, signature: ModelSignature) -> NetworkRun:
        """Load what `convert` wrote, and return what runs it."""

    def profile(self, path: Path, signature: ModelSignature) -> LayersRun | None:
        """Load it, and return what times its layers; None where the runtime does not tell what single ones take.

        Then whole calls are timed, and of that goes what a network without work takes for as much data. Layers for a
        latency budget are measured by either.
        """
        del path, signature
        return None


RUNTIMES: Registry[Callable[[], Runtime]] = Registry("runtime", "graphprune.export.runtimes", "graphprune.runtimes")


def make_runtime(name: str) -> Runtime:
    """Return the runtime called `name`.

    Raises
    ------
    UsageError
        If there is none.
    PluginError
        If another package offers it, but it cannot be loaded.
    """
    return RUNTIMES.get(name)()


def call_program(command: Sequence[str], folder: Path, written: Path) -> Path:
    """Run a converter that is a program of its own, and return what it wrote. It ends with this process.

    Raises
    ------
    CannotConvertError
        With the last of what it said, if it fails or writes nothing.
    """
    done = subprocess.run(  # noqa: S603 - a fixed command, no shell
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        preexec_fn=end_with_parent if sys.platform == "linux" else None,
        env={**os.environ, "PYTHONPATH": ""},
    )
    if done.returncode or not written.exists():
        lines = [line.strip(_MARKS) for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip(_MARKS)]
        said = "; ".join(lines[-_LINES:]) or "it says nothing"
        raise CannotConvertError(f"{Path(command[0]).name} {_ending(done.returncode)}: {said}")
    return written


def _ending(code: int) -> str:
    return f"ended with {signal.Signals(-code).name}" if code < 0 else "failed"
