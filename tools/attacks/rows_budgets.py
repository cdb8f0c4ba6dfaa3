# SPDX-License-Identifier: Apache-2.0
"""Rows F: budgets, options, and how the command line behaves."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Mapping

from attacks.bench import Bench, Row, Trial, check, from_tests, refuses
from attacks.processes import run

__all__ = ["ROWS"]

bad = from_tests("support/bad_files")
tiny = from_tests("support/tiny_models")
small = bad.small_model
_VALUES = ("0", "-0.5", "1.5", "nan", "inf", "1e-400", "50%", "0,5", "", "half", "0x1", "1_0", "\u0661")


def told(says: str, *arguments: str, code: int = 2) -> Trial:
    """Return the trial of arguments with a good model."""
    return refuses(small, says, *arguments, code=code)


def _identity(bench: Bench) -> None:
    path = bench.write(small())
    bench.done(bench.solve("m.onnx", "--flops", "1"))
    check((bench.folder / "m.pruned.onnx").read_bytes() == path.read_bytes(), "the bytes are others")


def _same_bytes(environments: list[Mapping[str, str]]) -> Trial:
    """Return the trial that runs in these environments write the same."""

    def trial(bench: Bench) -> None:
        bench.write(from_tests("support/pruning_cases").KINDS["folded"]())
        written = set()
        for environment in environments:
            bench.done(bench.graphprune("solve", "m.onnx", "--flops", "0.6", "--force", "--round-to", "1",
                                        environment=environment))  # fmt: skip
            names = ("m.pruned.onnx", "m.plan.json")
            written.add(hashlib.sha256(b"".join((bench.folder / name).read_bytes() for name in names)).hexdigest())
        check(len(written) == 1, "the bytes differ")

    return trial


def _frozen(bench: Bench) -> None:
    bench.write(tiny.chain("m = Softmax <axis = 1> (h)"))
    done = bench.solve()
    bench.refused(done, "prun", code=1)
    check("Softmax" in done.err or "inspect" in done.err, f"no reason: {done.err}")


def _time_limit(bench: Bench) -> None:
    """Give a solver no time: it takes what it has, and says so."""
    bench.write(from_tests("support/pruning_cases").KINDS["folded"]())
    done = bench.solve("m.onnx", "--flops", "0.5", "--solver", "milp", "--set", "time_limit=0.001")
    check(done.code in (0, 1, 2), f"exit code {done.code}: {done.err[-300:]}")
    if done.code:
        bench.refused(done, "", code=done.code)


def _interrupted(number: signal.Signals, code: int) -> Trial:
    """Return the trial of a signal at several moments of a run."""

    def trial(bench: Bench) -> None:
        bench.write(small())
        for moment in (0.3, 0.6, 0.9, 1.2):

            def interrupt(process: int, moment: float = moment) -> None:
                time.sleep(moment)
                os.kill(process, number)

            done = bench.graphprune("solve", "m.onnx", "--flops", "0.6", "--force", meanwhile=interrupt)
            # Before Python has its handlers, a signal does what it always does.
            check(done.code in (0, code, -number), f"exit code {done.code}: {done.err[-300:]}")

    return trial


def _closed_pipe(bench: Bench) -> None:
    bench.write(small())
    command = f"{sys.executable} -P -m graphprune inspect m.onnx | true"
    done = run(["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"], bench.folder, dict(os.environ))
    bench.runs.append(done)
    check(done.code in (0, 141) and "Traceback" not in done.err, f"{done.code}: {done.err}")


def _locale(environment: Mapping[str, str]) -> Trial:
    """Return the trial of a run in an environment, of a model whose names need more than ASCII."""

    def trial(bench: Bench) -> None:
        model = small()
        model.graph.node[0].name = "Faltung \u2192 \U0001f642"
        bench.write(model)
        bench.pruned("m.onnx", "--params", "0.9", environment=environment)

    return trial


_PLAIN = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
ROWS = (
    Row("F1", "budgets that are none", "refused, with the form that is allowed",
        {repr(value): told("(?s)cannot be.*0 < share <= 1", f"--flops={value}") for value in _VALUES}),
    Row("F2", "a budget of everything", "the same bytes", {"flops 1": _identity}),
    Row("F3", "a budget that cannot be reached", "told: the smallest that can", {
        "0.0001": told("smallest|reach", "--flops", "0.0001", code=1),
        "1": told("smallest|reach", "--flops", "1k", code=1)}),
    Row("F4", "budgets in conflict, steps larger than a layer, more channels than there are", "told which", {
        "conflict": told("params", "--flops", "0.9", "--params", "0.0001", code=1),
        "large steps": told("reach|prun|round", "--flops", "0.5", "--round-to", "4096", code=1),
        "many to keep": told("reach|prun|min-keep|keep", "--flops", "0.5", "--min-keep", "4096", code=1),
        "none": told("no budget is given", "--min-keep=1")}),
    Row("F5", "a model in which nothing can go", "told with the reasons", {"softmax": _frozen}),
    Row("F6", "patterns that match nothing, or are none", "refused with similar names", {
        "no match": told("matches|names", "--flops", "0.5", "--skip", "nobody"),
        "no expression": told("regular|expression|pattern", "--flops", "0.5", "--skip", "re:(")}),
    Row("F7", "input shapes that are missing, unknown, zero, of another rank", "refused", {
        "unknown input": told("no input|input", "--flops", "0.5", "--input-shape", "z=1x3x8x8"),
        "zero": told("size of 0", "--flops", "0.5", "--input-shape", "x=1x0x8x8"),
        "rank": told("x", "--flops", "0.5", "--input-shape", "x=1x3x8"),
        "another size": told("x", "--flops", "0.5", "--input-shape", "x=1x3x9x9"),
        "twice": told("twice", "--flops", "0.5", "--input-shape", "x=1x3x8x8", "--input-shape", "x=1x3x8x8"),
        "no shape": told("cannot be", "--flops", "0.5", "--input-shape", "x")}),
    Row("F8", "the same run with other hash seeds, threads, languages", "the same bytes", {
        "hash seeds": _same_bytes([{"PYTHONHASHSEED": each} for each in ("0", "1", "2")]),
        "threads": _same_bytes([{"OMP_NUM_THREADS": each, "OPENBLAS_NUM_THREADS": each} for each in ("1", "2", "4")]),
        "languages": _same_bytes([{}, _PLAIN, {"LC_ALL": "de_DE.UTF-8"}])}),
    Row("F9", "a solver without time; one that is not there", "the best so far; refused with a list", {
        "no time": _time_limit, "unknown": told("solver", "--flops", "0.5", "--solver", "oracle-of-delphi"),
        "unknown criterion": told("criterion", "--flops", "0.5", "--criterion", "taste")}),
    Row("F10", "signals, closed pipes, terminals that can nothing", "ends quietly, leaves nothing", {
        "interrupt": _interrupted(signal.SIGINT, 130), "terminate": _interrupted(signal.SIGTERM, 143),
        "closed pipe": _closed_pipe, "plain locale": _locale(_PLAIN), 
        "code page": _locale({"PYTHONIOENCODING": "cp1252"}),
        "narrow": _locale({"COLUMNS": "20"}), "no home": _locale({"HOME": "/nonexistent"})}),
)  # fmt: skip
