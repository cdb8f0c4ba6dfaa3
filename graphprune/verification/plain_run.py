# SPDX-License-Identifier: Apache-2.0
"""The plain run: the file that is written is opened as its users open it (in the child process).

Default session options, no added outputs, no changed graph: a comparison that rewrites a graph to look inside says
nothing of what a runtime makes of the file itself. It has to run wherever the original does, at a second size of
every open dimension too, and to give what the reference gives: in a verification, the masked original.

Run as ``python -m graphprune.verification.plain_run FOLDER``, it checks a file without a comparison; without a file,
it says whether the original runs.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.array_types import Array
from graphprune.model.children.sandbox import RESULT, enter_sandbox, shortened
from graphprune.verification.deviation import deviation, share_of_usual, tolerance
from graphprune.verification.ledger import Ledger
from graphprune.verification.passage import Feeds, Passage, RunError
from graphprune.verification.spec import DRAWS, WRITTEN, PieceSpec, Shapes, Spec

__all__ = ["OriginalError", "PlainError", "PlainRun", "make_inputs"]

_MOST_DRAWN = (1 << 22) - 3
"""Values that are drawn for one input; a larger one repeats them, in rows of another length than any image's."""


def main(folder: str) -> int:
    """Check the file and write the result."""
    enter_sandbox()
    place = Path(folder)
    spec = Spec.read(place)
    report = _checked(place, spec) if (place / WRITTEN).exists() else {"trouble": _trouble(place, spec)}
    (place / RESULT).write_text(json.dumps(report), "utf-8")
    return 0


def _checked(place: Path, spec: Spec) -> dict[str, Any]:
    """Check the file with the first draw of inputs with which the reference runs."""
    reference = Passage(place, [PieceSpec(spec.reference)], OriginalError, lean=spec.lean, device=spec.device)
    report: dict[str, Any] = {}
    for seed in range(DRAWS):
        drawn = replace(spec, seed=seed)
        ledger = Ledger(drawn)
        facts = PlainRun(place, drawn, reference, {}).check_all(ledger)
        report = {**ledger.report(), **facts}
        if facts["sizes"] or not spec.plain:
            break
    return report


def _trouble(place: Path, spec: Spec) -> str:
    """Return why the original does not run; empty if it does."""
    source = Passage(place, [PieceSpec(spec.source)], OriginalError, plain=True)
    try:
        if spec.plain:
            source.run(spec.outputs, make_inputs(spec, "normal"))
        else:
            source.open()
    except OriginalError as error:
        return shortened(str(error))
    return ""


class OriginalError(RunError):
    """The original, or its masked form, does not run, which says nothing of the other model."""


class PlainError(RunError):
    """The file that is to be written cannot be used as the original can."""


def make_inputs(
    spec: Spec, kind: str, shapes: Shapes | None = None, *, moved: bool = False, own: bool = False, seed: int = 0
) -> Feeds:
    """Draw inputs.

    Parameters
    ----------
    kind : str
        "normal", "zeros" or "large".
    shapes : dict of str to list of int, optional
        Other sizes than those of the comparison.
    moved : bool
        Move values by as much as rounding moves them.
    own : bool
        In the types of the file, where copies in another type are compared.
    seed : int
        For another draw than that of the comparison.
    """
    feeds: Feeds = {}
    for name, info in spec.inputs.items():
        random = np.random.default_rng([spec.seed + seed, *name.encode()])
        dtype, shape = np.dtype(info.dtype), (shapes or {}).get(name, info.shape)
        drawn = (min(prod(shape), _MOST_DRAWN),)
        if dtype.kind == "f":
            value = random.standard_normal(drawn) * {"zeros": 0.0, "large": 10.0}.get(kind, 1.0)
            if moved:
                step = max(np.finfo(dtype).eps, spec.grain) * np.where(value == 0.0, 1.0, value)
                value = value + step * random.choice([-1.0, 1.0], drawn)
        elif info.value is not None:
            value = np.full(drawn, float(info.value))
        else:
            value = random.integers(0, 2, drawn).astype(np.float64)
        value = value.astype(np.str_) if dtype.kind == "O" else value
        feeds[name] = np.resize(value.astype(np.dtype(info.own or info.dtype) if own else dtype), shape)
    return feeds


class PlainRun:
    """The file that will be written, against a reference.

    Parameters
    ----------
    place : Path
        The folder with all files.
    spec : Spec
    reference : Passage
        Gives the outputs that are expected.
    masks : dict of str to ndarray
        Further inputs of the reference.

    Attributes
    ----------
    passage : Passage
        The file.
    misoptimised : dict of str to None
        Outputs that the original itself gives otherwise once onnxruntime has optimised its graph. What the file gives
        there without optimisation is held against the reference.
    """

    def __init__(self, place: Path, spec: Spec, reference: Passage, masks: Feeds) -> None:
        self._spec = spec
        self._reference = reference
        self._masks = masks
        how: dict[str, Any] = {"plain": not spec.brief, "lean": spec.lean, "device": spec.device}
        self.passage = Passage(place, [PieceSpec(WRITTEN)], PlainError, **how)
        self._source = Passage(place, [PieceSpec(spec.source)], OriginalError, **how)
        self.misoptimised: dict[str, None] = {}

    def check_all(self, ledger: Ledger, expected: Feeds | None = None) -> dict[str, Any]:
        """Check the file with the inputs of the comparison, and with a second size of every open dimension.

        Parameters
        ----------
        ledger : Ledger
            Where deviations are recorded.
        expected : dict of str to ndarray, optional
            Outputs of the reference for the inputs of the comparison, where they are known already.

        Returns
        -------
        dict
            ``sizes``, with how many different sizes of inputs it ran, 0 where the original cannot be run here.

        Raises
        ------
        PlainError
            If it does not run where the original does, or gives outputs of other types or shapes.
        """
        if not self._spec.plain or not self._check(ledger, None, expected):
            return {"sizes": 0}
        if not self._spec.sizes:
            return {"sizes": 1}
        together, *single = self._spec.sizes
        if self._check_further(ledger, together):
            return {"sizes": 2}
        return {"sizes": 1 + sum(self._check_further(ledger, shapes) for shapes in single)}

    def _check_further(self, ledger: Ledger, shapes: Shapes) -> bool:
        """Check the file with another size; one that memory does not hold says nothing."""
        try:
            return self._check(ledger, shapes)
        except MemoryError:
            return False

    def _check(self, ledger: Ledger, shapes: Shapes | None, expected: Feeds | None = None) -> bool:
        """Check the file with inputs of one size; returns False where the original does not run with them."""
        feeds, names = make_inputs(self._spec, "normal", shapes, own=True), self._spec.outputs
        told = self._expected(shapes, feeds) if expected is None else expected
        if told is None:
            return False
        try:
            actual = self.passage.run(names, feeds)
        except PlainError as error:
            if not self._original_runs(feeds):
                return False
            raise PlainError(f"with {_shown(feeds)}: {error}") from error
        for name in names:
            if name in told and name not in self._spec.jumping and not self._alike(told[name], actual[name]):
                text = f"output {name!r} is {_kind(actual[name])}, where the original gives {_kind(told[name])}"
                raise PlainError(f"with {_shown(feeds)}: {text}")
        if self._spec.plain_values:
            self._compare(ledger, shapes, told, actual, feeds)
        return True

    def _expected(self, shapes: Shapes | None, feeds: Feeds) -> Feeds | None:
        """Return the outputs of the reference; None where the original does not run."""
        try:
            inputs = make_inputs(self._spec, "normal", shapes)
            return self._reference.run(self._spec.outputs, {**inputs, **self._masks})
        except OriginalError:
            return {} if self._original_runs(feeds) else None

    def _original_runs(self, feeds: Feeds) -> bool:
        try:
            self._source.run(self._spec.outputs, feeds)
        except OriginalError:
            return False
        return True

    def _alike(self, expected: Array, actual: Array) -> bool:
        """Whether an output is of the right type and shape; types that are no arrays are not looked into."""
        return _kind(expected) == _kind(actual) if not self._spec.widened else np.shape(expected) == np.shape(actual)

    def _other_kernels(self, shapes: Shapes | None) -> Feeds:
        """Return the outputs of the reference with kernels that sum in another order; none if it does not run so."""
        try:
            inputs = make_inputs(self._spec, "normal", shapes)
            return self._reference.other.run(self._spec.outputs, {**inputs, **self._masks})
        except OriginalError:
            return {}

    def _compare(self, ledger: Ledger, shapes: Shapes | None, expected: Feeds, actual: Feeds, feeds: Feeds) -> None:
        """Compare the values of outputs; rounding is measured where it matters."""
        moved: Feeds = {}
        another: Feeds = {}
        other: Feeds = {}
        for tensor in self._spec.tensors:
            name = tensor.name
            if not tensor.end or name not in expected or name not in actual:
                continue
            error = ledger.judge(tensor, expected[name], actual[name])
            if error is not None:
                if not moved:
                    moved = self._again(shapes, moved=True)
                    another = self._another(shapes)
                    other = self._other_kernels(shapes)
                if name in other:
                    error = min(error, deviation(other[name], actual[name]))
                share = share_of_usual(expected[name], another[name]) if another else 1.0
                noise = deviation(expected[name], moved[name])
                allowed = tolerance(expected[name].dtype, noise * share, tensor.grain, self._spec.relative)
                if error * share > allowed and self._optimises_wrongly(name, feeds, allowed):
                    self.misoptimised[name] = None
                    error, noise = self._unoptimised(name, shapes, feeds)
                ledger.settle(tensor, "normal", error * share, noise * share, expected[name].dtype)

    def _optimises_wrongly(self, name: str, feeds: Feeds, allowed: float) -> bool:
        """Whether onnxruntime gives something else for the original, too, once it has optimised the graph."""
        try:
            optimised, as_it_is = (passage.run([name], feeds)[name] for passage in (self._source, self._source.other))
        except OriginalError:
            return False
        return deviation(as_it_is, optimised) > allowed

    def _unoptimised(self, name: str, shapes: Shapes | None, feeds: Feeds) -> tuple[float, float]:
        """Return the deviation of an output without optimisation, and how far rounding moves it."""
        reference, wanted = self._reference.unoptimised, []
        for moved in (False, True):
            inputs = make_inputs(self._spec, "normal", shapes, moved=moved)
            wanted.append(reference.run([name], {**inputs, **self._masks})[name])
        given = self.passage.unoptimised.run([name], feeds)[name]
        return deviation(wanted[0], given), deviation(*wanted)

    def _another(self, shapes: Shapes | None) -> Feeds:
        """Return the outputs of the reference for another draw; none if it does not run with that."""
        try:
            return self._again(shapes, seed=1)
        except OriginalError:
            return {}

    def _again(self, shapes: Shapes | None, *, moved: bool = False, seed: int = 0) -> Feeds:
        """Return the outputs of the reference for inputs moved by rounding, or for another draw of them."""
        inputs = make_inputs(self._spec, "normal", shapes, moved=moved, seed=seed)
        return self._reference.run(self._spec.outputs, {**inputs, **self._masks})


def _kind(value: object) -> str:
    """Return what an output is, for messages."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of {'x'.join(map(str, value.shape)) or 'no dimensions'}"
    return type(value).__name__


def _shown(feeds: Feeds) -> str:
    """Return the sizes of inputs for a message."""
    return "inputs " + ", ".join(f"{name!r} {'x'.join(map(str, value.shape))}" for name, value in feeds.items())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
