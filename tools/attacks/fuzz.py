# SPDX-License-Identifier: Apache-2.0
"""Damaged and edited models must end in a result or in one of our own errors, in bounded time and memory.

The small models of the tests' rule cases are changed at random: their *bytes*, *fields* of their protobuf messages,
or their meaning (*semantic*: another operator, operand, shape, type, attribute, opset, declared shape). Each goes
through ``graphprune solve --quick``: loaded, analysed, solved, cut, verified, written.

Each example is a process forked from this one, in which everything is imported already, and so is the child in which
it runs models: that takes a tenth of the time of new interpreters. Every hundredth example is run by a new
interpreter as well, and must end alike.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import random
import runpy
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from onnx import ModelProto

from attacks.edits import edit_bytes, edit_fields, edit_meaning
from attacks.journal import Journal
from attacks.processes import CASE_LIMITS, Ending, run, watch

__all__ = ["KINDS", "TESTS", "ForkedChild", "example", "forked", "fuzz", "import_what_a_run_needs", "rule_models"]

TESTS = Path(__file__).resolve().parents[2] / "tests"
KINDS = ("bytes", "fields", "semantic", "semantic")
CODES = (0, 1, 2)
ARGUMENTS = ("solve", "model.onnx", "--flops", "0.6", "--quick")
_REPEATED = 100


def rule_models() -> list[ModelProto]:
    """Return the models of the rule cases, in order of their modules."""
    sys.path[:0] = [str(TESTS / "support"), str(TESTS / "labels" / "rules")]
    cases: list[ModelProto] = []
    for path in sorted((TESTS / "labels" / "rules").glob("test_*.py")):
        module = importlib.import_module(path.stem)
        for name in ("CASES", "STAYS"):
            cases.extend(case.model for case in getattr(module, name, ()) if hasattr(case, "model"))
    return cases


def example(number: int, seed: int, models: list[ModelProto]) -> tuple[str, bytes]:
    """Return the kind and the bytes of one example; they depend on nothing but the number and the seed."""
    chance = random.Random(f"{seed}:{number}")
    kind = KINDS[number % len(KINDS)]
    proto = ModelProto()
    proto.CopyFrom(chance.choice(models))
    if kind == "bytes":
        return kind, edit_bytes(proto.SerializeToString(), chance)
    while True:
        try:
            (edit_fields if kind == "fields" else edit_meaning)(proto, chance)
            return kind, proto.SerializeToString()
        except (ValueError, TypeError, UnicodeError):  # an edit that protobuf or numpy does not let be made
            proto.CopyFrom(chance.choice(models))


def fuzz(output: Path, seed: int, count: int) -> int:
    """Run examples until there are so many; return how many ended badly.

    The models of those are kept in ``<output>/failures``.
    """
    journal, models = Journal(output, "fuzz", seed), rule_models()
    import_what_a_run_needs()
    with tempfile.TemporaryDirectory(prefix="attack-fuzz-") as base:
        for number in journal.open_cases(count):
            kind, data = example(number, seed, models)
            place = Path(base) / "case"
            place.mkdir()
            (place / "model.onnx").write_bytes(data)
            ending, said = forked(ARGUMENTS, place)
            wrong = _judged(ending, said)
            again = not wrong and number % _REPEATED == _REPEATED - 1
            if again:
                wrong = _as_a_command(data, place, ending)
            shutil.rmtree(place)
            journal.add(
                str(number), wrong, kind=kind, code=ending.code, seconds=round(ending.processor_seconds, 2),
                clock=round(ending.seconds, 2), peak=ending.peak, again=again,
            )  # fmt: skip
            if wrong:
                kept = output / "failures" / f"fuzz-{seed}-{number}.onnx"
                kept.parent.mkdir(exist_ok=True)
                kept.write_bytes(data)
                print(f"fuzz {number} ({kind}): {wrong}\n{said}\n", flush=True)
    return journal.failing()


def import_what_a_run_needs() -> None:
    """Import once, for all forks, the library without what needs torch."""
    import graphprune
    from graphprune import solvers

    heavy = ("graphprune.training", "graphprune.export", "graphprune.solvers.training", "graphprune.__main__")
    for package in (graphprune, solvers):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.startswith(heavy):
                importlib.import_module(found.name)
    for name in ("onnxruntime", "pydantic.main", "rich.progress", "scipy.fft", "scipy.special", "typer._adapters"):
        importlib.import_module(name)


def _judged(ending: Ending, said: str) -> str:
    """Return what is wrong with an ending, empty if nothing is."""
    if ending.exceeded:
        return f"exceeded its {ending.exceeded}"
    if ending.code not in CODES:
        return f"exit code {ending.code}"
    return "a traceback" if "Traceback" in said else ""


def _as_a_command(data: bytes, place: Path, forked: Ending) -> str:
    folder = place / "again"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(data)
    command = [sys.executable, "-P", "-m", "graphprune", *ARGUMENTS]
    done = run(command, folder, {**os.environ, "TMPDIR": str(place)}, CASE_LIMITS)
    if done.code != forked.code:
        return f"exit code {forked.code} in a fork, {done.code} as a command: {done.err}"
    return _judged(done.ending, done.err)


def forked(arguments: Sequence[str], place: Path) -> tuple[Ending, str]:
    """Run a command in a fork, in a folder; return how it ended and what it printed."""
    child = os.fork()
    if not child:
        status = 70
        try:
            status = _command(arguments, place)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    ending = watch(child, CASE_LIMITS)
    return ending, (place / "said.txt").read_text("utf-8", errors="backslashreplace")


def _command(arguments: Sequence[str], place: Path) -> int:
    """Run the command in this process, with forks in place of new interpreters."""
    from graphprune.cli import main
    from graphprune.model import sandbox

    _redirect(place / "said.txt")
    os.chdir(place)
    tempfile.tempdir = str(place)
    sandbox.subprocess = SimpleNamespace(  # type: ignore[assignment]
        Popen=ForkedChild,
        PIPE=subprocess.PIPE,
        DEVNULL=subprocess.DEVNULL,
        TimeoutExpired=subprocess.TimeoutExpired,
    )
    return main(list(arguments))


def _redirect(target: Path) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(descriptor, number)
    sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115 - descriptors


class ForkedChild:
    """Stands in for `subprocess.Popen` where the sandbox starts ``python -P -m module folder``."""

    def __init__(self, command: list[str], **_: Any) -> None:
        module, folder = command[-2:]
        self.said = Path(folder) / "said-by-child.txt"
        self.returncode: int | None = None
        source, self._go = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            status = 1
            try:
                os.close(self._go)
                os.dup2(source, 0)
                sys.stdin = open(0, closefd=False)  # noqa: SIM115 - a descriptor
                _redirect(self.said)
                sys.argv = [module, folder]
                runpy.run_module(module, run_name="__main__")
                status = 0
            except SystemExit as error:
                status = error.code if isinstance(error.code, int) else 1
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        os.close(source)

    def __enter__(self) -> ForkedChild:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the end."""
        if self._go >= 0:
            os.close(self._go)
        self._wait(None)

    def communicate(self, text: str, timeout: float) -> tuple[None, str]:
        """Let it begin, wait for its end, and return what it said."""
        os.write(self._go, text.encode())
        os.close(self._go)
        self._go = -1
        self._wait(timeout)
        return None, self.said.read_text("utf-8", errors="replace") if self.said.exists() else ""

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self.returncode is None:
            os.kill(self.pid, 9)

    def _wait(self, timeout: float | None) -> None:
        if self.returncode is None:
            import select

            descriptor = os.pidfd_open(self.pid)
            try:
                if not select.select([descriptor], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired("fork", timeout or 0)
            finally:
                os.close(descriptor)
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
