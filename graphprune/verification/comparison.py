# SPDX-License-Identifier: Apache-2.0
"""The comparison, run as ``python -m graphprune.verification.comparison FOLDER`` in a child process.

It reads the two models and what to compare from the folder, and writes ``result.json`` there.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from graphprune.array_types import Array
from graphprune.model.sandbox import RESULT, limit_memory
from graphprune.verification.limits import RELATIVE

Feeds = dict[str, Array]

FLOOR_FACTOR = 10.0
WIDEST = 1e-3
"""No measured floor may excuse more than this (in the precision of float32)."""
FEW = 0.01
"""Share of rounded values that may fall on the other side of a tie, where a tensor has some hundred steps."""
_NEAR_A_TIE = 1e-5
_CHUNK = 1 << 26


def main(folder: str) -> int:
    """Compare and write the result."""
    limit_memory()
    place = Path(folder)
    spec = json.loads((place / "spec.json").read_text("utf-8"))
    result = Comparison(place, spec).run()
    (place / RESULT).write_text(json.dumps(result), "utf-8")
    return 0


def session(path: Path) -> ort.InferenceSession:
    """Open a model without graph optimisation."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def make_inputs(spec: dict[str, Any], kind: str, *, moved: bool = False, seed: int = 0) -> Feeds:
    """Draw inputs: "normal", "zeros" or "large"; `moved` by as much as rounding moves a value."""
    feeds: Feeds = {}
    for name, info in spec["inputs"].items():
        random = np.random.default_rng([seed, *name.encode()])
        dtype = np.dtype(info["dtype"])
        if dtype.kind == "f":
            value = random.standard_normal(info["shape"]) * {"zeros": 0.0, "large": 10.0}.get(kind, 1.0)
            if moved:
                step = max(np.finfo(dtype).eps, spec.get("grain", 0.0)) * np.where(value == 0.0, 1.0, value)
                value = value + step * random.choice([-1.0, 1.0], info["shape"])
        elif info.get("value") is not None:
            value = np.full(info["shape"], info["value"])
        else:
            value = random.integers(0, 2, info["shape"])
        feeds[name] = np.asarray(value).astype(dtype)
    return feeds


class OriginalError(Exception):
    """The masked original does not run, which says nothing of the pruned model."""


class Comparison:
    """Runs both models and keeps the worst deviation."""

    def __init__(self, place: Path, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.keep = dict(np.load(place / "keep.npz"))
        self.masked = session(place / "masked.onnx")
        self.pruned = session(place / "pruned.onnx")
        types = {item.name: item.type for item in self.masked.get_inputs()}
        self.masks = {name: value.astype(_numpy(types[name])) for name, value in np.load(place / "masks.npz").items()}
        self.tensors = list(enumerate(spec["tensors"]))
        self.relative: float = spec.get("relative", RELATIVE)
        self.worst: dict[str, Any] = {"error": 0.0, "tolerance": self.relative, "tensor": "", "failed": False}
        self.compared = 0
        self.switches: Feeds = {}
        self.cuts: dict[str, Feeds] = {}

    def run(self) -> dict[str, Any]:
        """Compare with every way in which pruned branches can be taken; returns what to report."""
        effects = []
        failures = []
        for path in self.spec.get("branches") or [{}]:
            self.switches = {name: np.asarray(value) for name, value in path.items()}
            self.cuts = {}
            try:
                if path:
                    self._run_masked(None, self._inputs("normal"))
            except OriginalError as error:  # raised below if no branch runs
                failures.append(error)
                continue
            effects.append(self._run_all())
        # Some branch may be impossible for inputs of this size, but not all of them.
        if not effects:
            raise failures[0]
        return {**self.worst, "effect": max(effects), "compared": self.compared}

    def _run_masked(self, names: list[str] | None, feeds: Feeds, masks: Feeds | None = None) -> list[Array]:
        """Run the masked original."""
        try:
            return list(self.masked.run(names, {**feeds, **(self.masks if masks is None else masks)}))
        except Exception as error:  # onnxruntime's exceptions share no base
            raise OriginalError(f"{type(error).__name__}: {error}") from error

    def _run_all(self) -> float:
        """Compare all tensors on a normal input, and the ends on two extreme ones; returns the effect of masking."""
        for chunk in self._chunks(self.tensors):
            self._compare("normal", chunk)
        ends = [item for item in self.tensors if item[1]["end"]]
        for kind in ("zeros", "large"):
            for chunk in self._chunks(ends):
                self._compare(kind, chunk)
        return max((self._effect(chunk) for chunk in self._chunks(ends)), default=0.0)

    def _inputs(self, kind: str, *, moved: bool = False) -> Feeds:
        return {**make_inputs(self.spec, kind, moved=moved), **self.switches}

    def _chunks(self, tensors: list[tuple[int, Any]]) -> Iterator[list[tuple[int, Any]]]:
        """Cut the list so that a run never returns more than fits."""
        chunk: list[tuple[int, Any]] = []
        elements = 0
        for item in tensors:
            if chunk and elements + item[1]["elements"] > _CHUNK:
                yield chunk
                chunk, elements = [], 0
            chunk.append(item)
            elements += item[1]["elements"]
        if chunk:
            yield chunk

    def _compare(self, kind: str, chunk: list[tuple[int, Any]]) -> None:
        """Compare tensors on one kind of input; on extreme ones only where rounding stays small enough to judge."""
        names = [tensor["name"] for _, tensor in chunk]
        feeds = self._inputs(kind)
        expected = self._run_masked(names, feeds)
        found = self.pruned.run(
            [tensor.get("own", tensor["name"]) for _, tensor in chunk], {**feeds, **self._fed(kind)}
        )
        moved = self._run_masked(names, self._inputs(kind, moved=True))
        for at, (number, tensor) in enumerate(chunk):
            if not tensor["compare"]:
                continue
            wanted = self._cut(number, expected[at])
            if tensor.get("cut") in ("few", "all"):
                self._record(tensor["name"], stepped(wanted, found[at]), few(wanted) if tensor["cut"] == "few" else 1.0)
                continue
            # Behind a rounding operator both go on from the same values, and only the last stretch rounds.
            noise = 0.0 if tensor.get("behind") else deviation(wanted, self._cut(number, moved[at]))
            allowed = tolerance(wanted.dtype, noise, tensor.get("grain", 0.0), self.relative)
            # A tensor that rounding alone moves beyond the widest tolerance (the mean of what was just centred)
            # is nothing but rounding; on extreme inputs less is enough to judge nothing.
            widest = tolerance(wanted.dtype, float("inf"), tensor.get("grain", 0.0))
            if self.spec.get("chaotic"):
                judged = FLOOR_FACTOR * noise <= widest
            else:
                judged = noise <= widest if kind == "normal" else FLOOR_FACTOR * noise <= allowed
            if judged:
                self._record(tensor["name"], deviation(wanted, found[at]), allowed)

    def _fed(self, kind: str) -> Feeds:
        """Return what the pruned model is fed with where it is cut: the kept slices of the masked original's values."""
        if kind not in self.cuts:
            cut = [(number, tensor["name"]) for number, tensor in self.tensors if tensor.get("cut")]
            names = [name for _, name in cut]
            values = self._run_masked(names, self._inputs(kind)) if names else []
            self.cuts[kind] = {
                name: np.asarray(self._cut(number, value), order="C")
                for (number, name), value in zip(cut, values, strict=True)
            }
        return self.cuts[kind]

    def _record(self, name: str, error: float, allowed: float) -> None:
        self.compared += 1
        worse = error / allowed > self.worst["error"] / self.worst["tolerance"] or not np.isfinite(error)
        if worse and not (self.worst["failed"] and not np.isfinite(self.worst["error"])):
            failed = bool(self.worst["failed"]) or not error <= allowed
            self.worst = {"error": min(error, 1e300), "tolerance": allowed, "tensor": name, "failed": failed}

    def _effect(self, chunk: list[tuple[int, Any]]) -> float:
        """How far masking moves the ends."""
        names = [tensor["name"] for _, tensor in chunk]
        feeds = self._inputs("normal")
        ones = {name: np.ones_like(value) for name, value in self.masks.items()}
        original = self._run_masked(names, feeds, ones)
        masked = self._run_masked(names, feeds)
        return max(min(deviation(a, b), 1e300) for a, b in zip(original, masked, strict=True))

    def _cut(self, number: int, value: Array) -> Array:
        """Take the slices of a tensor of the masked original that the other model has."""
        for axis in range(value.ndim):
            order = self.keep.get(f"{number}.{axis}")
            if order is not None:
                value = np.take(value, order, axis=axis)
        return value


def deviation(expected: Array, found: Array) -> float:
    """Largest difference relative to the largest absolute value; inf where shapes or non-finite places differ."""
    if expected.shape != found.shape:
        return float("inf")
    if not expected.size:
        return 0.0
    finite = np.isfinite(expected)
    if not finite.all():
        if not np.array_equal(finite, np.isfinite(found)):
            return float("inf")
        expected, found = expected[finite], found[finite]
        if not expected.size:
            return 0.0
    scale = float(np.abs(expected.astype(np.float64)).max())
    error = float(np.abs(expected.astype(np.float64) - found).max())
    if not np.isfinite(error):
        return float("inf")
    return error / scale if scale > 0 else error


def stepped(expected: Array, found: Array) -> float:
    """Return the share of rounded values that differ, which they may by one step; inf where one differs by more.

    A step is 1 for integers and whole floats, more where these are so large that floats before were further apart.
    Floats that were rounded to a coarser grid may be a quarter apart.
    """
    if expected.shape != found.shape:
        return float("inf")
    if not expected.size:
        return 0.0
    apart = np.abs(expected.astype(np.float64) - found.astype(np.float64))
    whole = expected.dtype.kind != "f" or bool((expected == np.rint(expected)).all())
    largest = float(np.abs(expected.astype(np.float64)).max())
    furthest = max(1.0, RELATIVE * largest) if whole else largest / 4
    if not float(apart.max()) <= furthest:
        return float("inf")
    moved = int((apart > (0.0 if whole else RELATIVE * largest)).sum())
    return 0.0 if moved <= 1 else moved / expected.size


def few(expected: Array) -> float:
    """Return the share of rounded values that may differ: the finer the grid, the more of them are next to a tie."""
    steps = float(np.abs(expected.astype(np.float64)).max()) if expected.size else 0.0
    return min(max(FEW, _NEAR_A_TIE * steps), 1.0)


def tolerance(dtype: np.dtype[Any], noise: float, grain: float = 0.0, relative: float = RELATIVE) -> float:
    """Return what rounding may explain for a tensor whose noise floor was measured.

    Parameters
    ----------
    grain : float
        Relative precision of the coarsest float type on the way to the tensor.
    relative : float
        What counts as rounding in float32, whatever the noise.
    """
    eps = max(float(np.finfo(dtype).eps), grain) if dtype.kind == "f" else grain
    unit = math.sqrt(max(eps / float(np.finfo(np.float32).eps), 1.0))
    return min(max(relative * unit, FLOOR_FACTOR * noise), WIDEST * unit)


def _numpy(kind: str) -> type:
    return {"tensor(float16)": np.float16, "tensor(double)": np.float64}.get(kind, np.float32)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
