# SPDX-License-Identifier: Apache-2.0
"""Where one input is tried: a folder of its own, the real command line in processes of its own, and what must hold.

Whatever a trial is about, no run may print a traceback, call itself a fault of graphprune, exceed its limits, leave a
process, a temporary file or a changed input behind, or write anything when it ends with an error.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from onnx import ModelProto

from attacks.fuzz import TESTS
from attacks.processes import Limits, Run, run

__all__ = [
    "UNPRIVILEGED",
    "Bench",
    "FailedError",
    "Row",
    "Trial",
    "check",
    "either",
    "from_tests",
    "prunes",
    "refuses",
    "rule_case",
    "with_edit",
]


UNPRIVILEGED = """
import ctypes
header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
system = ctypes.CDLL(None)
assert system.capget(header, sets) == 0
sets[0] &= ~0b110  # to read and write whatever there is
assert system.capset(header, sets) == 0
"""
"""Python after which permissions hold for the superuser, too."""


class FailedError(Exception):
    """What must hold does not."""


Trial = Callable[["Bench"], None]
Source = Callable[[], ModelProto | bytes]


@dataclass(frozen=True)
class Row:
    """One row of the table: a kind of input, what has to come of it, and inputs of that kind.

    Parameters
    ----------
    id : str
        Letter and number.
    given, must : str
    trials : dict of str to Trial
        By what tells them apart.
    """

    id: str
    given: str
    must: str
    trials: Mapping[str, Trial]


def check(holds: object, otherwise: str) -> None:
    """Fail a trial unless something holds."""
    if not holds:
        raise FailedError(otherwise)


@dataclass
class Bench:
    """A folder and the runs in it.

    Parameters
    ----------
    folder : Path
        Empty, with one for temporary files beside it.
    """

    folder: Path
    runs: list[Run] = field(default_factory=list)
    inputs: dict[Path, str] = field(default_factory=dict)

    @property
    def scratch(self) -> Path:
        """Return the folder for temporary files."""
        return self.folder.with_name(f"{self.folder.name}.tmp")

    def write(self, content: ModelProto | bytes, name: str = "m.onnx") -> Path:
        """Write an input file; nothing may change it."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.SerializeToString() if isinstance(content, ModelProto) else content)
        self.inputs[path] = hashlib.sha256(path.read_bytes()).hexdigest()
        return path

    def graphprune(
        self,
        *arguments: object,
        before: str = "",
        environment: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        meanwhile: Callable[[int], None] | None = None,
    ) -> Run:
        """Run a command.

        Parameters
        ----------
        before : str
            Python that is run in its process first, to make something fail.
        """
        start = ["-m", "graphprune"]
        if before:
            start = ["-c", f"{before}\nimport sys\nfrom graphprune.cli import main\nsys.exit(main())"]
        command = [sys.executable, "-P", *start, *map(str, arguments)]
        self.scratch.mkdir(exist_ok=True)
        around = {**os.environ, "NO_COLOR": "1", "TMPDIR": str(self.scratch), **(environment or {})}
        done = run(command, self.folder, around, limits or Limits(), meanwhile)
        self.runs.append(done)
        check(not done.ending.exceeded, f"exceeded its {done.ending.exceeded}")
        check("Traceback" not in done.err + done.out, f"a traceback: {done.err}")
        check(not done.survivors, f"{len(done.survivors)} processes outlive it")
        return done

    def solve(self, model: object = "m.onnx", *arguments: object, **options: Any) -> Run:
        """Prune a model without recovering."""
        budget = () if any(str(each).startswith("--") for each in arguments) else ("--params", "0.9")
        steps = () if "--round-to" in arguments else ("--round-to", "1")
        return self.graphprune("solve", model, *budget, *arguments, "--quick", *steps, **options)

    def refused(self, done: Run, says: str, *, code: int = 2) -> None:
        """Hold a run to an error of ours that says something, in at most three lines."""
        check(done.code == code, f"exit code {done.code}, not {code}: {(done.err or done.out)[-400:]}")
        check(re.search(says, done.err, re.DOTALL), f"does not say {says!r}: {done.err[:400]}")
        check(done.err.startswith("error: "), f"does not begin as an error: {done.err[:200]}")
        check(not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", done.err), "control characters reach the terminal")

    def done(self, done: Run) -> Run:
        """Hold a run to exit code 0."""
        check(done.code == 0, f"exit code {done.code}: {done.err[-400:]}")
        return done

    def pruned(self, model: str = "m.onnx", *arguments: object, **options: Any) -> Path:
        """Prune a model, verify what was written once more, and return its path."""
        done = self.done(self.solve(model, *arguments, **options))
        check(re.search(r"^verified", done.out, re.MULTILINE), f"not verified: {done.out[-400:]}")
        stem = Path(model).stem
        names = (f"{stem}.pruned.onnx", f"{stem}.plan.json")
        written, plan = (str(Path(model).with_name(name)) for name in names)
        self.done(self.graphprune("verify", model, written, plan, **options))
        return self.folder / written

    def audit(self) -> None:
        """Hold the folder to what always holds."""
        for path, digest in self.inputs.items():
            check(path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == digest, f"{path.name} was changed")
        for place in (self.folder, self.scratch):
            left = [path.name for path in place.rglob("*graphprune-*")] if place.exists() else []
            check(not left, f"left behind: {left}")
        if all(each.code for each in self.runs):
            written = [path.name for path in self.folder.rglob("*.pruned.onnx") if path not in self.inputs]
            check(not written, f"{written} written though nothing succeeded")


def refuses(source: Source, says: str, *arguments: object, code: int = 2) -> Trial:
    """Return the trial that a model is refused with an error that says something."""

    def trial(bench: Bench) -> None:
        bench.write(source())
        bench.refused(bench.solve("m.onnx", *arguments), says, code=code)

    return trial


def prunes(source: Source, *arguments: object) -> Trial:
    """Return the trial that a model is pruned and verified."""

    def trial(bench: Bench) -> None:
        bench.write(source())
        bench.pruned("m.onnx", *arguments)

    return trial


def either(source: Source, *arguments: object) -> Trial:
    """Return the trial that a model is pruned and verified, or refused."""

    def trial(bench: Bench) -> None:
        bench.write(source())
        done = bench.solve("m.onnx", *arguments)
        check(done.code in (0, 1, 2), f"exit code {done.code}: {done.err[-400:]}")
        if done.code:
            bench.refused(done, "", code=done.code)

    return trial


@functools.cache
def from_tests(place: str) -> ModuleType:
    """Return a module of the tests, as in ``faults/test_validity``: their inputs are tried here through the command."""
    for folder in (TESTS / "support", (TESTS / place).parent):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    name = place.rpartition("/")[2]
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, TESTS / f"{place}.py")
    if spec is None or spec.loader is None:
        raise ImportError(place)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def with_edit(edit: Callable[[ModelProto], object], base: Callable[[], ModelProto] | None = None) -> Source:
    """Return what makes an edited model; of the small model of the tests by default."""

    def make() -> ModelProto:
        proto = base() if base is not None else from_tests("support/bad_files").small_model()
        edit(proto)
        return proto

    return make


def rule_case(family: str, *names: str) -> dict[str, Trial]:
    """Return trials of models of the tests' rule cases: those that can be pruned are, all others end as they may."""
    module = from_tests(f"labels/rules/test_{family}")
    cases = {case.id: case for name in ("CASES", "STAYS") for case in getattr(module, name, ())}
    trials: dict[str, Trial] = {}
    for name in names:
        case = cases[name]
        make = functools.partial(ModelProto.FromString, case.model.SerializeToString())
        trials[f"{family} {name}"] = (prunes if case.groups and getattr(case, "runs", True) else either)(make)
    return trials
