# SPDX-License-Identifier: Apache-2.0
"""The comparison, run as ``python -m graphprune.verification.comparison FOLDER`` in a child process.

It reads the models and what to compare from the folder, and writes ``result.json`` there. First both models go
through all their tensors once. Then the ends are compared on further inputs, and the file that is written is opened
as its users open it. How far rounding moves a tensor is measured where that matters: at tensors that differ by more
than rounding always may.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.array_types import Array
from graphprune.model.children.sandbox import RESULT, enter_sandbox
from graphprune.verification.deviation import deviation, share_of_usual
from graphprune.verification.ledger import BEYOND, Ledger
from graphprune.verification.orders import Orders
from graphprune.verification.passage import Feeds, Passage, RunError
from graphprune.verification.plain_run import OriginalError, PlainRun, make_inputs
from graphprune.verification.spec import DRAWS, PieceSpec, Spec, TensorSpec

__all__ = ["Comparison"]


def main(folder: str) -> int:
    """Compare and write the result."""
    enter_sandbox()
    place = Path(folder)
    with ThreadPoolExecutor(max_workers=1) as pool:
        (place / RESULT).write_text(json.dumps(_compared(place, Spec.read(place), pool)), "utf-8")
    return 0


def _compared(place: Path, spec: Spec, pool: Executor) -> dict[str, Any]:
    """Compare on the first draw of inputs with which the masked original runs.

    Raises
    ------
    DrawsError
        If there is none, and the masks are all that keeps the original from running.
    OriginalError
        If the original does not run without them, either.
    """
    first: OriginalError | None = None
    masks_matter = False
    for seed in range(DRAWS):
        comparison = Comparison(place, replace(spec, seed=seed))
        comparison.open_ahead(pool)
        try:
            return comparison.run()
        except OriginalError as error:
            first = first or error
            comparison.whole.open()  # what cannot even be opened runs with no draw
            masks_matter |= comparison.runs_unmasked()
    if first is not None and not masks_matter:
        raise first
    raise DrawsError(str(first))


class DrawsError(RunError):
    """The original runs, and does not with channels set to zero: its values say where it reads."""


class PrunedError(RunError):
    """The pruned model does not run."""


class Pair:
    """The masked original and the pruned model, and the tensors at which they are compared.

    Parameters
    ----------
    masked, pruned : Passage
    tensors : iterable of (int, TensorSpec)
        With their numbers.
    whole : bool
        Whether the models are in one piece, whatever the tensors say.
    """

    def __init__(
        self, masked: Passage, pruned: Passage, tensors: Iterable[tuple[int, TensorSpec]], *, whole: bool = False
    ) -> None:
        self.masked = masked
        self.pruned = pruned
        self.whole = whole
        self.stops: dict[int, list[tuple[int, TensorSpec]]] = {}
        for number, tensor in tensors:
            self.stops.setdefault(0 if whole else tensor.piece, []).append((number, tensor))

    def close(self) -> None:
        """Give back what the sessions take, which are opened anew if they are needed again."""
        self.masked.close()
        self.pruned.close()


@dataclass(frozen=True, eq=False)
class Doubt:
    """A deviation that only a measured floor could excuse; what the pruned model gives is kept of whole models."""

    wanted: Array
    actual: Array | None
    error: float


class Comparison:
    """Runs both models and keeps the worst deviation."""

    def __init__(self, place: Path, spec: Spec) -> None:
        self.spec = spec
        self.place = place
        self.ledger = Ledger(spec)
        with np.load(place / "masks.npz") as masks:
            self.masks: Feeds = dict(masks)
        self.orders = Orders.read(place)
        self.forced: list[str] = []
        self.switches: Feeds = {}
        self.normal: Feeds = {}
        self.unmasked: Feeds = {}
        self.not_finite: dict[str, None] = {}
        tensors = list(enumerate(spec.tensors))
        how: dict[str, Any] = {"device": spec.device, "lean": spec.lean}
        masked = Passage(place, spec.masked, OriginalError, **how)
        self.all = Pair(masked, Passage(place, spec.pruned, PrunedError, **how), tensors)
        self.whole = (
            masked
            if spec.in_pieces
            else Passage(place, [PieceSpec(spec.reference)], OriginalError, plain=spec.optimised, **how)
        )
        self.free: Feeds = dict.fromkeys(spec.switches, np.asarray(False))
        self.plain = PlainRun(place, spec, self.whole, {**self.masks, **self.free})
        pruned = Passage(place, [PieceSpec(spec.ends)], PrunedError, **how) if spec.ends else self.plain.passage
        self._ends = [item for item in tensors if item[1].end or item[1].cut]
        self.ends = Pair(self.whole, pruned, self._ends, whole=True)

    def open_ahead(self, pool: Executor) -> None:
        """Begin to open what is needed after the first comparison; less of it where memory is short or much taken."""
        if self.spec.in_pieces:
            return
        self.plain.passage.open_ahead(pool)
        if not self.spec.lean:
            self.whole.open_ahead(pool)

    def run(self) -> dict[str, Any]:
        """Compare with every way in which pruned branches can be taken; returns what to report."""
        effects: list[float] = []
        ways: list[list[str]] = []
        failures: list[OriginalError] = []
        left: deque[list[list[str]]] = deque(self.spec.branches or [[[]]])
        while left:
            together = left.popleft()
            self._take([name for path in together for name in path])
            try:
                if self.forced:
                    self.whole.run(self.spec.outputs, {**self._inputs("normal"), **self.masks})
            except OriginalError as error:
                failures.append(error)  # raised below if no branch runs
                middle = len(together) // 2
                left.extendleft(part for part in (together[middle:], together[:middle]) if middle)
                continue
            self._compare("normal", self.all)
            if not left:
                self.all.close()
            effects.append(self._effect())
            ways.append(self.forced)
        # Some branch may be impossible for inputs of this size, but not all of them.
        if not effects:
            raise failures[0]
        facts: dict[str, Any] = {"effect": max(effects), "sizes": 0, "not_finite": list(self.not_finite)}
        facts["unfed"] = []
        if not self.ledger.failed:
            known = None if self.spec.branches else {**self.unmasked, **self.normal}
            facts.update(self.plain.check_all(self.ledger, known))
            facts["misoptimised"] = list(self.plain.misoptimised)
            if self.plain.misoptimised:
                self.ends = Pair(self.whole.unoptimised, self.plain.passage.unoptimised, self._ends, whole=True)
            for way in ways:
                self._take(way)
                # Where memory is short, every further kind of input would read all weights from the disk twice more.
                for kind in () if self.spec.in_pieces or self.spec.brief else ("zeros", "large"):
                    self._compare_extremes(kind, facts)
        if self.ledger.failed:
            facts["steady"] = self._is_steady()
        return {**self.ledger.report(), **facts}

    def _compare_extremes(self, kind: str, facts: dict[str, Any]) -> None:
        """Compare ends on a further kind of input, unless the original does not run with it."""
        try:
            self._compare(kind, self.ends)
        except OriginalError:
            facts["unfed"].append(kind)

    def runs_unmasked(self) -> bool:
        """Whether the original runs without masks on the inputs of the first comparison."""
        ones = {name: np.ones_like(value) for name, value in self.masks.items()}
        try:
            self.whole.run(self.spec.outputs, {**self._inputs("normal"), **ones})
        except OriginalError:
            return False
        return True

    def _take(self, forced: list[str]) -> None:
        """Go through these branches from now on."""
        self.forced = forced
        self.switches = {**self.free, **dict.fromkeys(forced, np.asarray(True))}

    def _inputs(self, kind: str, *, moved: bool = False) -> Feeds:
        return {**make_inputs(self.spec, kind, moved=moved), **self.switches}

    def _compare(self, kind: str, pair: Pair) -> None:
        """Compare tensors on one kind of input."""
        feeds = self._inputs(kind)
        pair.masked.start({**feeds, **self.masks})
        pair.pruned.start(feeds)
        doubts: dict[int, Doubt] = {}
        for stop, tensors in sorted(pair.stops.items()):
            expected = pair.masked.step(stop, [tensor.name for _, tensor in tensors])
            pair.pruned.give(
                {t.name: np.asarray(self._cut(number, expected[t.name]), order="C") for number, t in tensors if t.cut}
            )
            actual = pair.pruned.step(stop, [tensor.own or tensor.name for _, tensor in tensors])
            for number, tensor in tensors:
                # One after the other: all that was cut at a stop would take as much memory as what was made there.
                wanted = self._cut(number, expected[tensor.name])
                error = self.ledger.judge(tensor, wanted, actual[tensor.own or tensor.name])
                if error is not None:
                    held = self._held(number, wanted, len(pair.stops))
                    doubts[number] = Doubt(held, actual[tensor.own or tensor.name] if pair.whole else None, error)
                if kind == "normal" and tensor.end:
                    self.normal[tensor.name] = expected[tensor.name]
                    if not np.isfinite(wanted).all():
                        self.not_finite[tensor.name] = None
                del wanted
            del expected, actual  # before the next stop, whose tensors may be as large
        if doubts:
            self._settle(kind, pair, doubts)

    def _settle(self, kind: str, pair: Pair, doubts: dict[int, Doubt]) -> None:
        """Measure how far rounding moves tensors, in one more passage of the masked original, and judge them by it."""
        alike = self._other_kernels(kind, pair, doubts) if pair.whole else {}
        usual = self._usual(pair, doubts)
        pair.masked.start({**self._inputs(kind, moved=True), **self.masks})
        for stop, tensors in sorted(pair.stops.items()):
            asked = [(number, tensor) for number, tensor in tensors if number in doubts]
            moved = pair.masked.step(stop, [tensor.name for _, tensor in asked])
            for number, tensor in asked:
                wanted = doubts[number].wanted
                noise = deviation(wanted, self._cut(number, moved[tensor.name]))
                error = min(doubts[number].error, alike.get(number, BEYOND))
                self.ledger.settle(tensor, kind, error * usual[number], noise * usual[number], wanted.dtype)

    def _usual(self, pair: Pair, doubts: dict[int, Doubt]) -> dict[int, float]:
        """Return how large tensors in doubt are beside what they are on another draw, if it runs with that."""
        try:
            return self._shares(pair, doubts)
        except OriginalError:
            return dict.fromkeys(doubts, 1.0)

    def _shares(self, pair: Pair, doubts: dict[int, Doubt]) -> dict[int, float]:
        shares: dict[int, float] = {}
        pair.masked.start({**make_inputs(self.spec, "normal", seed=1), **self.switches, **self.masks})
        for stop, tensors in sorted(pair.stops.items()):
            asked = [(number, tensor) for number, tensor in tensors if number in doubts]
            another = pair.masked.step(stop, [tensor.name for _, tensor in asked])
            for number, tensor in asked:
                shares[number] = share_of_usual(doubts[number].wanted, self._cut(number, another[tensor.name]))
        return shares

    def _other_kernels(self, kind: str, pair: Pair, doubts: dict[int, Doubt]) -> dict[int, float]:
        """Return how far tensors are from those of the masked original with kernels that sum in another order.

        An average over fifty thousand equal numbers rounds in one direction at every step, and which kernel takes it
        hangs on the number of channels. A model that was pruned wrongly is far from both.
        """
        names = {number: tensor.name for _, group in pair.stops.items() for number, tensor in group if number in doubts}
        try:
            other = pair.masked.other.run(list(names.values()), {**self._inputs(kind), **self.masks})
        except OriginalError:  # it runs in one way only
            return {}
        actual = {number: doubts[number].actual for number in names}
        return {
            number: deviation(self._cut(number, other[name]), value)
            for number, name in names.items()
            if (value := actual[number]) is not None
        }

    def _held(self, number: int, value: Array, pieces: int) -> Array:
        """Keep a tensor for later: of a large model not in memory."""
        if pieces == 1:
            return value
        path = self.place / f"held.{number}.npy"
        np.save(path, value)
        kept: Array = np.load(path, mmap_mode="r")
        return kept

    def _effect(self) -> float:
        """How far masking moves the ends."""
        names = [tensor.name for _, tensor in self.ends.stops.get(0, ()) if tensor.end]
        ones = {name: np.ones_like(value) for name, value in self.masks.items()}
        self.unmasked = self.whole.run([*names, *self.spec.outputs], {**self._inputs("normal"), **ones})
        return max((_moved(self.unmasked[name], self.normal[name]) for name in names), default=0.0)

    def _is_steady(self) -> bool:
        """Whether the original gives the same outputs if it runs twice."""
        names = [tensor.name for _, tensor in self.ends.stops.get(0, ()) if tensor.end]
        first, second = (self.whole.run(names, {**self._inputs("normal"), **self.masks}) for _ in range(2))
        return all(deviation(first[name], second[name]) <= self.spec.relative for name in names)

    def _cut(self, number: int, value: Array) -> Array:
        """Take the slices of a tensor of the masked original that the other model has."""
        for axis in range(value.ndim):
            order = self.orders.of(number, axis)
            if order is not None:
                value = np.take(value, order, axis=axis)
        return value


def _moved(before: Array, after: Array) -> float:
    """How far a tensor is moved where it is finite before and after; all of it where other places are finite."""
    both = np.isfinite(before) & np.isfinite(after)
    distance = min(deviation(before[both], after[both]), BEYOND)
    return distance if np.array_equal(np.isfinite(before), np.isfinite(after)) else max(distance, 1.0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
