# SPDX-License-Identifier: Apache-2.0
"""The bench on which networks are tried in runtimes, each in a child process with limits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphprune.cost.latency.bench import summarised
from graphprune.errors import GraphPruneError, UnsupportedModelError, quote
from graphprune.export.cell import FEEDS, OUTPUTS, SAID, STEP, CellTask, read_arrays, write_arrays
from graphprune.export.deployment import RuntimeCheck, RuntimeOutcome, rounding_allowance
from graphprune.export.runtime import ModelSignature
from graphprune.model.children.allowance import Allowance
from graphprune.model.children.sandbox import run_child, shortened
from graphprune.model.files.main_memory import main_memory
from graphprune.plan.schema import Timing
from graphprune.verification.deviation import deviation
from graphprune.verification.staging import stage_file

if TYPE_CHECKING:
    from graphprune.array_types import Array
    from graphprune.export.deployment import DeployOptions
    from graphprune.model.load import Model

__all__ = ["REFERENCE", "RuntimeBench"]

REFERENCE = "onnxruntime"
"""What all others are compared with."""
_DENSE, _PRUNED = "dense", "pruned"
_LEAST = 300.0
"""Seconds that onnxruntime may take in any case: without it nothing can be compared."""
_LONGEST = 600


class RuntimeBench:
    """Where networks lie, and what is fed to them.

    Parameters
    ----------
    place : Path
        A private folder.
    pruned, original : Model
    batches : list of dict of str to ndarray
        What is fed to both, by input.
    options : DeployOptions

    Attributes
    ----------
    signature : ModelSignature
    batches
    """

    def __init__(
        self,
        place: Path,
        pruned: Model,
        original: Model | None,
        batches: list[dict[str, Array]],
        options: DeployOptions,
    ) -> None:
        self._place, self._options, self.batches = place, options, batches
        self._models = {_PRUNED: pruned} | ({_DENSE: original} if original is not None else {})
        for which, model in self._models.items():
            (place / which).mkdir()
            stage_file(model, self._file(which))
        shapes = {name: value.shape for name, value in batches[0].items()}
        dtypes = {name: str(value.dtype) for name, value in batches[0].items()}
        self.signature = ModelSignature(shapes, dtypes, tuple(value.name for value in pruned.proto.graph.output))
        self._expected: dict[str, list[dict[str, Array]]] = {}

    @property
    def has_original(self) -> bool:
        """Whether the original runs beside the pruned network."""
        return _DENSE in self._models

    def _file(self, which: str) -> Path:
        return self._place / which / "model.onnx"

    def _folder(self, name: str, which: str) -> Path:
        return self._place / f"{name} {which}"

    def refer(self) -> None:
        """Run everything in onnxruntime.

        Raises
        ------
        UnsupportedModelError
            If it does not run there.
        """
        for which in self._models:
            outcome = self._try(REFERENCE, which)
            if outcome.status == "fails":
                raise UnsupportedModelError(
                    f"onnxruntime does not {outcome.step} {quote(self._models[which].name)}: {outcome.reason}",
                    hint="nothing can be compared with it; `graphprune verify` says more",
                )
            self._expected[which] = read_arrays(self._folder(REFERENCE, which) / OUTPUTS)

    def check(self, name: str, version: str) -> RuntimeCheck:
        """Return what a runtime makes of everything."""
        outcomes = {which: self._outcome(name, which) for which in self._models}
        timing = None
        if self._options.timing and len(outcomes) > 1 and all(one.status != "fails" for one in outcomes.values()):
            timing = self._time(name)
        return RuntimeCheck(name, version, pruned=outcomes[_PRUNED], dense=outcomes.get(_DENSE), timing=timing)

    def converted(self, name: str) -> list[Path]:
        """Return the files to which the pruned network was converted."""
        return sorted(self._folder(name, _PRUNED).glob("converted/*"))

    def _outcome(self, name: str, which: str) -> RuntimeOutcome:
        if name == REFERENCE:
            return RuntimeOutcome("ok", 0.0)
        outcome = self._try(name, which)
        if outcome.status == "fails":
            return outcome
        allowed = self._options.tolerance or rounding_allowance(self._models[which].proto)
        return self._compared(read_arrays(self._folder(name, which) / OUTPUTS), self._expected[which], allowed)

    def _try(self, name: str, which: str) -> RuntimeOutcome:
        """Let a runtime convert, load and run a network."""
        folder = self._folder(name, which)
        task = CellTask(name, self.signature, model=str(self._file(which)))
        report = self._run(folder, task)
        if "problem" in report:
            return RuntimeOutcome("fails", step=report["step"], reason=_told(report, folder))
        return RuntimeOutcome("ok")

    def _time(self, name: str) -> Timing | None:
        """Time both networks; None where they do not run in one process."""
        converted = [self._converted_file(name, which) for which in (_DENSE, _PRUNED)]
        report = self._run(self._folder(name, "timing"), CellTask(name, self.signature, timed=tuple(converted)))
        return summarised([tuple(one) for one in report["rounds"]], name) if "rounds" in report else None

    def _converted_file(self, name: str, which: str) -> str:
        folder = self._folder(name, which)
        return (folder / "path.txt").read_text("utf-8")

    def _run(self, folder: Path, task: CellTask) -> dict[str, Any]:
        """Run a child; how it ended is a problem among others."""
        folder.mkdir()
        write_arrays(folder / FEEDS, self.batches)
        task.write(folder)
        patience = self._options.patience if task.runtime != REFERENCE else max(self._options.patience, _LEAST)
        allowance = Allowance(patience, 0 if task.timed else int(patience) + 1, main_memory() // 2)
        try:
            report = run_child("graphprune.export.cell", folder, allowance, runtime=task.runtime)
        except GraphPruneError as error:
            step = (folder / STEP).read_text("utf-8") if (folder / STEP).exists() else "load"
            return {"problem": error.message, "step": step, "raised": "ended"}
        if "converted" in report:
            (folder / "path.txt").write_text(report["converted"], "utf-8")
        return report

    def _compared(
        self, actual: list[dict[str, Array]], expected: list[dict[str, Array]], allowed: float
    ) -> RuntimeOutcome:
        """Compare outputs; axes of length 1 may be left out, as some runtimes do."""
        worst = 0.0
        for own, other in zip(actual, expected, strict=True):
            for at, name in enumerate(self.signature.outputs):
                one, two = np.squeeze(own[str(at)]), np.squeeze(other[str(at)])
                if one.shape != two.shape:
                    reason = f"output {quote(name)} is {_sizes(own[str(at)])}, not {_sizes(other[str(at)])}"
                    return RuntimeOutcome("differs", step="run", reason=reason)
                worst = max(worst, deviation(two.astype(np.float64), one.astype(np.float64)))
        return RuntimeOutcome("ok" if worst <= allowed else "differs", worst)


def _told(report: Mapping[str, Any], folder: Path) -> str:
    """Return why something failed, with the last of what the runtime printed where it says no more itself."""
    printed = (folder / SAID).read_text("utf-8", errors="replace") if (folder / SAID).exists() else ""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    last = shortened(lines[-1]) if lines and report.get("raised") in ("CannotConvertError", "ended") else ""
    text = f"{report['problem']}; {last}" if last else str(report["problem"])
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _sizes(value: Array) -> str:
    return "x".join(map(str, value.shape)) or "a scalar"
