# SPDX-License-Identifier: Apache-2.0
"""A passage: a model is run once from its inputs to its outputs, in one piece or in several (in the child process).

Every stop gives the tensors that are wanted there; between two pieces nothing is kept but what later ones need, so
that all tensors of a large model can be looked at in one run and in bounded memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, Future
from functools import cached_property
from pathlib import Path
from typing import Literal

import onnxruntime as ort

from graphprune.array_types import Array
from graphprune.data.providers import ChosenDevice
from graphprune.model.children.sandbox import unless_exhausted
from graphprune.verification.spec import PieceSpec

__all__ = ["Feeds", "Passage", "RunError"]

Feeds = dict[str, Array]


class RunError(Exception):
    """A model cannot be opened, or does not run; the message starts with the type of what onnxruntime raised."""


class Passage:
    """One model, ready to be run.

    Parameters
    ----------
    folder : Path
        Where its files are.
    pieces : sequence of PieceSpec
        In order.
    failure : type of RunError
        What is raised if it cannot be opened or run.
    plain : bool
        Open it as its users do, with default options; otherwise without graph optimisation.
    device : {"cpu", "cuda"}
    """

    def __init__(
        self,
        folder: Path,
        pieces: Sequence[PieceSpec],
        failure: type[RunError],
        *,
        plain: bool = False,
        device: Literal["cpu", "cuda"] = "cpu",
    ) -> None:
        self._folder = folder
        self._pieces = pieces
        self._failure = failure
        self._plain = plain
        self._device = device
        self._session: tuple[int, ort.InferenceSession] | None = None
        self._coming: Future[ort.InferenceSession] | None = None
        self._live: Feeds = {}

    @cached_property
    def other(self) -> Passage:
        """The same model with optimisation where this one is without, and without where this one is with.

        Both are what onnxruntime makes of the model, with kernels that sum in another order.
        """
        return Passage(self._folder, self._pieces, self._failure, plain=not self._plain, device=self._device)

    @property
    def unoptimised(self) -> Passage:
        """The same model without optimisation: this one, or the other."""
        return self.other if self._plain else self

    def open_ahead(self, pool: Executor) -> None:
        """Begin to open a model of one piece, which takes one core, while something else runs."""
        self._coming = pool.submit(self._opened, 0)

    def start(self, feeds: Feeds) -> None:
        """Begin anew at the inputs."""
        self._live = dict(feeds)

    def give(self, values: Feeds) -> None:
        """Feed further inputs of pieces that have not run yet."""
        self._live.update(values)

    def step(self, number: int, names: Sequence[str]) -> Feeds:
        """Run the next piece and return the tensors that are wanted of it."""
        wanted = list(dict.fromkeys((*names, *self._pieces[number].gives)))
        later = {name for further in self._pieces[number + 1 :] for name in further.needs}
        try:
            session = self._open(number)
            feeds = {item.name: self._live[item.name] for item in session.get_inputs() if item.name in self._live}
            made = dict(zip(wanted, session.run(wanted, feeds), strict=True)) if wanted else {}
        except Exception as error:  # onnxruntime's exceptions share no base
            unless_exhausted(error)
            raise self._failure(" ".join(f"{type(error).__name__}: {error}".split())) from error
        self._live = {name: value for name, value in {**self._live, **made}.items() if name in later}
        return {name: made[name] for name in names}

    def run(self, names: Sequence[str], feeds: Feeds) -> Feeds:
        """Run a model from its inputs to its outputs; one of several pieces gives what these do of what is wanted."""
        self.start(feeds)
        if len(self._pieces) == 1:
            return self.step(0, names)
        made: Feeds = {}
        for number in range(len(self._pieces)):
            made.update(self.step(number, [name for name in names if name in self.open(number)]))
        return made

    def open(self, number: int = 0) -> set[str]:
        """Open a piece, and return the names of what it gives."""
        try:
            return {item.name for item in self._open(number).get_outputs()}
        except Exception as error:  # onnxruntime's exceptions share no base
            raise self._failure(" ".join(f"{type(error).__name__}: {error}".split())) from error

    def _open(self, number: int) -> ort.InferenceSession:
        """Open a piece; of several, one at a time."""
        if self._session is None or self._session[0] != number:
            self._session = None
            self._session = number, self._opened(number) if self._coming is None else self._coming.result()
        return self._session[1]

    def _opened(self, number: int) -> ort.InferenceSession:
        path = str(self._folder / self._pieces[number].file)
        options = None if self._plain else _unoptimised(pooled=len(self._pieces) == 1)
        ort.set_default_logger_severity(4)
        return ort.InferenceSession(path, options, providers=ChosenDevice(self._device, "as was asked for").providers)


def _unoptimised(*, pooled: bool) -> ort.SessionOptions:
    """Return options without graph optimisation; without a pool, what a session took goes back to the system."""
    options = ort.SessionOptions()
    options.enable_cpu_mem_arena = options.enable_mem_pattern = pooled
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return options
