# SPDX-License-Identifier: Apache-2.0
"""Rows H: where results go, and what can happen to a disk, a process or an environment meanwhile."""

from __future__ import annotations

import hashlib
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import onnx

from attacks.bench import UNPRIVILEGED, Bench, Row, Trial, check, from_tests
from attacks.processes import run

__all__ = ["ROWS"]

bad = from_tests("support/bad_files")
faults = from_tests("faults/test_output")
OLD = b"the old content"
_TARGETS = ("o.onnx", "o.json")
_OUT = ("--params", "0.9", "-o", "o.onnx", "--plan", "o.json")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def same_file(make: Callable[[Path, Path], Path]) -> Trial:
    """Return the trial of an output that is the input, by some name."""

    def trial(bench: Bench) -> None:
        source = bench.write(bad.small_model(), "in/m.onnx")
        (bench.folder / "out").mkdir()
        target = make(source, bench.folder / "out")
        for force in ((), ("--force",)):
            done = bench.solve("in/m.onnx", "--params", "0.9", "-o", target, "--plan", "out/p.json", *force)
            bench.refused(done, "is the input file itself")

    return trial


def _data_file(bench: Bench) -> None:
    model = bad.small_model()
    bench.write(bad.make_external(bad.weight(model), location="w.bin"), "w.bin")
    bench.write(model)
    done = bench.solve("m.onnx", "--params", "0.9", "-o", "w.bin", "--force")
    bench.refused(done, "is the input file itself")


def _exists(bench: Bench) -> None:
    bench.write(bad.small_model())
    for name in _TARGETS:
        for other in _TARGETS:
            (bench.folder / other).unlink(missing_ok=True)
        (bench.folder / name).write_bytes(OLD)
        bench.refused(bench.solve("m.onnx", *_OUT), "exists.*--force")
        check((bench.folder / name).read_bytes() == OLD, "the old file is gone")
        check(len(list(bench.folder.glob("o.*"))) == 1, "half a pair was written")
    bench.done(bench.solve("m.onnx", *_OUT, "--force"))
    check((bench.folder / "o.onnx").read_bytes() != OLD, "the old file is still there")


def impossible(target: str, says: str) -> Trial:
    """Return the trial of an output that cannot be."""

    def trial(bench: Bench) -> None:
        bench.write(bad.small_model())
        bench.write(OLD, "file")
        (bench.folder / "folder").mkdir()
        os.mkfifo(bench.folder / "pipe")
        (bench.folder / "loop").symlink_to("loop")
        done = bench.solve("m.onnx", "--params", "0.9", "-o", target, "--force", "--plan", "p.json")
        bench.refused(done, f"(?i){says}")

    return trial


def _read_only(bench: Bench) -> None:
    bench.write(bad.small_model())
    bench.folder.chmod(0o555)
    done = bench.solve(before=UNPRIVILEGED)
    bench.folder.chmod(0o755)
    bench.refused(done, "Permission denied")


_FAIL_NTH = """
import os
from graphprune.model.files import atomic
left, armed = {number}, False
begin = atomic.PendingFile.__init__
def arm(self, target):
    global armed
    armed = True
    begin(self, target)
atomic.PendingFile.__init__ = arm
def wrap(real):
    def call(*arguments, **options):
        global left
        left -= armed
        if armed and left == 0:
            if real.__name__ == "close":
                real(*arguments)  # a close that reports an error has closed all the same
            {action}
        return real(*arguments, **options)
    return call
for name in ("open", "write", "fsync", "replace", "close", "link"):
    setattr(atomic.os, name, wrap(getattr(os, name)))
"""


def nth_call(action: str, codes: tuple[int, ...], steps: range) -> Trial:
    """Return the trial that the N-th call of the writer fails or ends the process, with an old pair and without."""

    def trial(bench: Bench) -> None:
        bench.write(bad.small_model())
        bench.done(bench.solve("m.onnx", *_OUT))
        new = {name: _digest(bench.folder / name) for name in _TARGETS}
        for existing in (True, False):
            for number in steps:
                for name in _TARGETS:
                    (bench.folder / name).unlink(missing_ok=True)
                    if existing:
                        (bench.folder / name).write_bytes(OLD)
                before = {name: _digest(bench.folder / name) for name in _TARGETS}
                done = bench.solve("m.onnx", *_OUT, "--force", before=_FAIL_NTH.format(number=number, action=action))
                check(done.code in codes, f"call {number}: exit code {done.code}: {done.err[-300:]}")
                after = {name: _digest(bench.folder / name) for name in _TARGETS}
                torn = [name for name in _TARGETS if after[name] not in (before[name], new[name])]
                check(not torn, f"call {number}: {torn} neither old nor new")
                left = list(bench.folder.glob(".graphprune-*"))
                check(not left or done.code == -signal.SIGKILL, f"call {number}: left behind {left}")
                for path in left:
                    path.unlink()

    return trial


# Verification writes larger files; only those of the result are limited.
_LIMITED = """
import resource
from graphprune import api
from graphprune.model import write
filled = write._filled
def limited(*arguments, **options):
    resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, -1))
    try:
        return filled(*arguments, **options)
    finally:  # the error goes to a file as well
        resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
write._filled = limited
"""


def _full_disk(bench: Bench) -> None:
    """No file may grow beyond some size, for real; the old pair stays."""
    bench.write(bad.small_model())
    bench.done(bench.solve("m.onnx", *_OUT))
    old = [_digest(bench.folder / name) for name in _TARGETS]
    whole = (bench.folder / "o.json").stat().st_size
    for size in range(0, whole, max(1, whole // 8)):
        done = bench.solve("m.onnx", *_OUT, "--force", before=_LIMITED.format(size=size))
        check(done.code == 2, f"{size} bytes: exit code {done.code}: {done.err[-300:]}")
        check([_digest(bench.folder / name) for name in _TARGETS] == old, f"{size} bytes: not as before")


def _dev_full(bench: Bench) -> None:
    bench.write(bad.small_model())
    command = ["bash", "-c", 'exec "$0" -P -m graphprune inspect m.onnx > /dev/full', __import__("sys").executable]
    done = run(command, bench.folder, dict(os.environ))
    bench.runs.append(done)
    bench.refused(done, "No space left")


def _signalled(number: signal.Signals) -> Trial:
    code = 128 + number

    def trial(bench: Bench) -> None:
        action = f"os.kill(os.getpid(), {int(number)})"
        nth_call(action, (0, code), range(2, 14, 3))(bench)

    return trial


def _link(bench: Bench) -> None:
    bench.write(bad.small_model())
    (bench.folder / "real.onnx").write_bytes(OLD)
    (bench.folder / "o.onnx").symlink_to("real.onnx")
    bench.done(bench.solve("m.onnx", *_OUT, "--force"))
    check((bench.folder / "o.onnx").is_symlink(), "the link is gone")
    check((bench.folder / "real.onnx").read_bytes() != OLD, "its file was not replaced")


def _mode(bench: Bench) -> None:
    bench.write(bad.small_model())
    (bench.folder / "o.onnx").write_bytes(OLD)
    (bench.folder / "o.onnx").chmod(0o640)
    os.link(bench.folder / "o.onnx", bench.folder / "copy.onnx")
    bench.done(bench.solve("m.onnx", *_OUT, "--force"))
    check((bench.folder / "o.onnx").stat().st_mode & 0o777 == 0o640, "the mode was not kept")
    check((bench.folder / "copy.onnx").read_bytes() == OLD, "another name of the old file was changed")


def _two_runs(force: tuple[str, ...]) -> Trial:
    """Return the trial of two runs to one output at the same time."""

    def trial(bench: Bench) -> None:
        import threading

        bench.write(bad.small_model())
        ended: list[int] = []

        def solve(budget: str) -> None:
            arguments = ("--params", budget, "-o", "o.onnx", "--plan", "o.json", *force)
            place = Bench(bench.folder.with_name(f"{bench.folder.name}-{budget}"))
            place.folder.mkdir()
            ended.append(place.solve(bench.folder / "m.onnx", *(
                str(bench.folder / each) if each.startswith("o.") else each for each in arguments)).code)  # fmt: skip

        threads = [threading.Thread(target=solve, args=(budget,)) for budget in ("0.9", "0.6")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check(sorted(ended) == ([0, 0] if force else [0, 2]), f"exit codes {ended}")
        done = bench.graphprune("verify", "m.onnx", "o.onnx", "o.json")
        check(force or done.code == 0, f"a mixed pair: {done.err}")
        onnx.checker.check_model(onnx.load(bench.folder / "o.onnx"))

    return trial


def _stale_bytes(bench: Bench) -> None:
    """Replace a file that was larger."""
    model = bad.small_model()
    bench.write(bad.make_external(bad.weight(model), location="w.bin"), "w.bin")
    bench.write(model)
    (bench.folder / "o.onnx").write_bytes(bytes(10**6))
    bench.done(bench.solve("m.onnx", *_OUT, "--force"))
    check((bench.folder / "o.onnx").stat().st_size < 10**5, "old bytes are left")


_WRONG_CUT = """
from graphprune import api
from onnx import numpy_helper
prune = api.prune
def careless(*arguments, **options):
    proto = prune(*arguments, **options)
    tensor = proto.graph.initializer[0]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[::-1].copy(), tensor.name))
    return proto
api.prune = careless
"""


def _wrong_cut(bench: Bench) -> None:
    bench.write(bad.small_model())
    bench.refused(bench.solve(before=_WRONG_CUT), "", code=101)


def child_that(program: str, says: str) -> Trial:
    """Return the trial of a child in which onnxruntime is missing, dies, or hangs."""

    def trial(bench: Bench) -> None:
        bench.write(bad.small_model())
        bench.write(program.encode(), "broken/onnxruntime.py")
        path = {"PYTHONPATH": str(bench.folder / "broken")}
        done = bench.solve(environment=path)
        check(done.code in (2, 101), f"exit code {done.code}: {done.err[-300:]}")
        check(re.search(says, done.err), f"does not say {says!r}: {done.err}")

    return trial


def _no_temporary_folder(bench: Bench) -> None:
    bench.write(bad.small_model())
    done = bench.solve(environment={"TMPDIR": "/nonexistent"})
    check(done.code in (0, 2), f"exit code {done.code}: {done.err[-300:]}")


def _around(environment: dict[str, str], before: str = "") -> Trial:
    def trial(bench: Bench) -> None:
        bench.write(bad.small_model())
        bench.done(bench.solve("m.onnx", *_OUT, before=before, environment=environment))

    return trial


def _umask(bench: Bench) -> None:
    bench.write(bad.small_model())
    for mask, mode in ((0o077, 0o600), (0o022, 0o644), (0o002, 0o664)):
        bench.done(bench.solve("m.onnx", *_OUT, "--force", before=f"import os\nos.umask({mask})"))
        found = (bench.folder / "o.onnx").stat().st_mode & 0o777
        check(found == mode, f"mode {found:o} with umask {mask:o}")
        for name in _TARGETS:
            (bench.folder / name).unlink()


_JUMPS = "import time\nreal = time.time\ntime.time = lambda: real() - 10**9 * (int(real() * 1000) % 2)"
_FULL = "raise OSError({code}, os.strerror({code}))"
_KILL = "os.kill(os.getpid(), 9)"
ROWS = (
    Row("H1", "an output that is the input, by any name", "refused, also with --force",
        {make.__name__: same_file(make) for make in (faults.same, faults.dotted, faults.by_link, faults.by_folder_link,
                                                    faults.by_hard_link)}),
    Row("H2", "an output that exists", "refused without --force", {"either file": _exists}),
    Row("H3", "an output that is the input's data file", "refused", {"data file": _data_file}),
    Row("H4", "an output that cannot be", "refused", {
        "no folder": impossible("none/o.onnx", "folder does not exist"),
        "file as folder": impossible("file/o.onnx", "not a folder"), "folder": impossible("folder", "is a folder"),
        "long name": impossible("o" * 300, "name too long"), "pipe": impossible("pipe", "not a regular file"),
        "loop": impossible("loop", "loop"), "read-only": _read_only}),
    Row("H5", "a disk that is full", "the old pair stays, nothing is left", {
        "limits": _full_disk, "standard output": _dev_full,
        "N-th call": nth_call(_FULL.format(code=28), (0, 2), range(1, 22, 2))}),
    Row("H6", "writing, synchronising, renaming fail", "the old pair stays or the new one is whole", {
        "EIO": nth_call(_FULL.format(code=5), (0, 2), range(2, 23, 2)),
        "EXDEV": nth_call(_FULL.format(code=18), (0, 2), range(3, 22, 3)),
        "EACCES": nth_call(_FULL.format(code=13), (0, 2), range(1, 22, 4))}),
    Row("H7", "SIGKILL at every step", "old or new, and the next run works",
        {"N-th call": nth_call(_KILL, (0, -9), range(1, 22, 2))}),
    Row("H8", "SIGTERM and SIGINT while writing", "cleaned up",
        {"SIGTERM": _signalled(signal.SIGTERM), "SIGINT": _signalled(signal.SIGINT)}),
    Row("H9", "an output that is a link, has a mode, has other names", "kept as documented",
        {"link": _link, "mode and names": _mode}),
    Row("H10", "two runs to one output", "one of them, whole",
        {"without force": _two_runs(()), "with force": _two_runs(("--force",))}),
    Row("H11", "an old file that was larger", "exactly the new bytes", {"larger": _stale_bytes}),
    Row("H12", "a cut that is wrong", "101, nothing written", {"reversed": _wrong_cut}),
    Row("H13", "onnxruntime that is missing or dies in the child", "told, nothing written", {
        "missing": child_that("raise ImportError('no onnxruntime')", "onnxruntime"),
        "dies": child_that("import os\nos.kill(os.getpid(), 11)", "onnxruntime|verified"),
        "exits": child_that("import os\nos._exit(3)", "onnxruntime|verified")}),
    Row("H14", "no folder for temporary files, no home", "works, or is told",
        {"no TMPDIR": _no_temporary_folder, "no home": _around({"HOME": "/nonexistent"})}),
    Row("H15", "clocks that jump, umasks", "no effect; the mode follows the umask",
        {"clock": _around({}, _JUMPS), "umask": _umask}),
)  # fmt: skip
