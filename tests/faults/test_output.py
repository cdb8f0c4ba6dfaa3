# SPDX-License-Identifier: Apache-2.0
"""Writing under faults: the output is the old file or the whole new one, inputs are never touched, nothing is left."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bad_files import make_external, small_model, weight

from graphprune.errors import GraphPruneError, OutputError
from graphprune.model.files import atomic
from graphprune.model.load import Model, load
from graphprune.model.write import save, write_bytes_atomically

OLD = b"the old content"
NEW = small_model(1).SerializeToString()
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX files")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "m.onnx"
    path.parent.mkdir()
    path.write_bytes(small_model().SerializeToString())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


def pruned(source: Path) -> Model:
    """Return another model that came from `source`, as surgery does."""
    return load(source).replaced(small_model(1))


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


# Which files may be written to


def same(source: Path, folder: Path) -> Path:
    return source


def dotted(source: Path, folder: Path) -> Path:
    return source.parent / "." / ".." / source.parent.name / source.name


def by_link(source: Path, folder: Path) -> Path:
    (folder / "o.onnx").symlink_to(source)
    return folder / "o.onnx"


def by_folder_link(source: Path, folder: Path) -> Path:
    (folder / "sub").symlink_to(source.parent)
    return folder / "sub" / source.name


def by_hard_link(source: Path, folder: Path) -> Path:
    os.link(source, folder / "o.onnx")
    return folder / "o.onnx"


@posix
@pytest.mark.parametrize("name", [same, dotted, by_link, by_folder_link, by_hard_link])
@pytest.mark.parametrize("force", [False, True])
def test_input_is_never_the_output(name: Callable[[Path, Path], Path], force: bool, source: Path, folder: Path) -> None:
    before = source.read_bytes()
    for model in (load(source), pruned(source)):
        with pytest.raises(OutputError, match="is the input file itself"):
            save(model, name(source, folder), force=force)
        for path in folder.iterdir():
            path.unlink()
    assert source.read_bytes() == before


@posix
def test_data_file_of_the_input_is_never_the_output(tmp_path: Path) -> None:
    model = small_model()
    (tmp_path / "w.bin").write_bytes(make_external(weight(model), location="w.bin"))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    loaded = load(tmp_path / "m.onnx")
    before = (tmp_path / "w.bin").read_bytes()
    with pytest.raises(OutputError, match="is the input file itself"):
        save(loaded, tmp_path / "w.bin", force=True)
    assert (tmp_path / "w.bin").read_bytes() == before


def test_existing_output_needs_force(source: Path, folder: Path) -> None:
    target = folder / "o.onnx"
    target.write_bytes(OLD)
    with pytest.raises(OutputError, match="exists") as caught:
        save(pruned(source), target)
    assert "--force" in (caught.value.hint or "")
    assert target.read_bytes() == OLD
    assert save(pruned(source), target, force=True) == target
    assert target.read_bytes() == NEW


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


@posix
@pytest.mark.parametrize(
    ("make", "gist"), [(Path.mkdir, "is a folder"), (make_pipe, "not a regular file"), (make_loop, "form a loop")]
)
def test_output_is_no_file(make: Callable[[Path], None], gist: str, folder: Path) -> None:
    make(folder / "o.onnx")
    with pytest.raises(OutputError, match=gist):
        write_bytes_atomically(NEW, folder / "o.onnx", force=True)


@pytest.mark.parametrize(
    ("name", "gist"),
    [
        ("none/o.onnx", "folder does not exist"),
        ("file/o.onnx", "folder is not a folder"),
        ("o" * 300, "name too long"),
        ("o\0.onnx", "null byte"),
        ("", "is a folder"),
    ],
    ids=["missing_folder", "folder_is_file", "long_name", "nul", "folder"],
)
def test_impossible_output(name: str, gist: str, folder: Path) -> None:
    (folder / "file").write_bytes(OLD)
    with pytest.raises(OutputError, match=f"(?i){gist}"):
        write_bytes_atomically(NEW, folder / name, force=True)
    assert leftovers(folder) == []


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(folder: Path) -> None:
    folder.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        write_bytes_atomically(NEW, folder / "o.onnx", force=True)


# Links and permissions


@posix
def test_link_stays_and_its_file_is_replaced(folder: Path, tmp_path: Path) -> None:
    (folder / "real.onnx").write_bytes(OLD)
    (tmp_path / "link.onnx").symlink_to("out/real.onnx")
    with pytest.raises(OutputError, match="exists"):
        write_bytes_atomically(NEW, tmp_path / "link.onnx", force=False)
    write_bytes_atomically(NEW, tmp_path / "link.onnx", force=True)
    assert (tmp_path / "link.onnx").is_symlink()
    assert (folder / "real.onnx").read_bytes() == NEW


@posix
def test_link_to_nothing_makes_the_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link.onnx").symlink_to("out/real.onnx")
    write_bytes_atomically(NEW, tmp_path / "link.onnx", force=False)
    assert (folder / "real.onnx").read_bytes() == NEW


@posix
@pytest.mark.parametrize("mode", [0o640, 0o600, 0o444, 0o664])
def test_mode_of_a_replaced_file_is_kept(mode: int, folder: Path) -> None:
    target = folder / "o.onnx"
    target.write_bytes(OLD)
    target.chmod(mode)
    write_bytes_atomically(NEW, target, force=True)
    assert target.stat().st_mode & 0o777 == mode


@posix
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_mode_of_a_new_file_follows_the_umask(umask: int, mode: int, folder: Path) -> None:
    before = os.umask(umask)
    try:
        write_bytes_atomically(NEW, folder / "o.onnx", force=False)
    finally:
        os.umask(before)
    assert (folder / "o.onnx").stat().st_mode & 0o777 == mode


@posix
def test_other_hard_links_keep_the_old_content(folder: Path) -> None:
    (folder / "o.onnx").write_bytes(OLD)
    os.link(folder / "o.onnx", folder / "copy.onnx")
    write_bytes_atomically(NEW, folder / "o.onnx", force=True)
    assert (folder / "copy.onnx").read_bytes() == OLD
    assert (folder / "o.onnx").read_bytes() == NEW


# The N-th call fails

CALLS = ("open", "write", "fsync", "replace", "close", "fstat")


class FailNth:
    """Makes the N-th call of an `os` function raise, in the thread of the test only."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
        self.left = number
        self.code = code
        for name in CALLS:
            monkeypatch.setattr(atomic.os, name, self.wrap(getattr(os, name)))

    def wrap(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                if real.__name__ == "close":
                    real(*arguments, **options)  # a close that reports an error has closed all the same
                raise OSError(self.code, os.strerror(self.code))
            return real(*arguments, **options)

        return call


def faults(write: Callable[[], object], number: int, code: int) -> bool:
    """Run `write` with its N-th system call failing; return whether that was beyond the last one."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        plan = FailNth(monkeypatch, number, code)
        try:
            write()
        except OutputError as error:
            assert os.strerror(code) in error.message
        return plan.left > 0


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EXDEV], ids=errno.errorcode.get)
@pytest.mark.parametrize("existing", [True, False], ids=["replace", "new"])
def test_nth_call_fails(code: int, existing: bool, source: Path, folder: Path) -> None:
    target, model, before = folder / "o.onnx", pruned(source), source.read_bytes()
    outcomes = []
    for number in range(1, 100):
        target.unlink(missing_ok=True)
        if existing:
            target.write_bytes(OLD)
        done = faults(lambda: save(model, target, force=True), number, code)
        outcomes.append(target.read_bytes() if target.exists() else None)
        assert outcomes[-1] in (NEW, OLD if existing else None)
        assert leftovers(folder) == []
        assert source.read_bytes() == before
        if done:
            break
    assert done
    assert outcomes[-1] == NEW
    assert len(outcomes) >= 9  # open, write, fsync, close, open again, replace, folder open and fsync, ...
    assert outcomes.count(NEW) <= 5  # only once the name is given does a failure leave the new file


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_nth_call_fails_for_a_pair(code: int, source: Path, folder: Path) -> None:
    """With a data file the old pair must stay readable, or the new one be whole."""
    target, before = folder / "o.onnx", source.read_bytes()
    old, new = load(source), pruned(source)
    done = False
    for number in range(1, 200):
        for path in folder.iterdir():
            path.unlink()
        save(old, target, inline_limit=0)
        done = faults(lambda: save(new, target, force=True, inline_limit=0), number, code)
        found = load(target)
        values = found.tensors.array(weight(found.proto)).tobytes()
        assert values in (weight(old.proto).raw_data, weight(new.proto).raw_data)
        assert leftovers(folder) == []
        assert len(list(folder.glob("*.data"))) <= 2
        assert source.read_bytes() == before
        if done:
            break
    assert done
    assert values == weight(new.proto).raw_data


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP], ids=errno.errorcode.get)
def test_folder_that_cannot_be_synchronised(code: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112 (the number of an open folder)
            raise OSError(code, "no")
        real(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", fsync)
    write_bytes_atomically(NEW, folder / "o.onnx", force=False)
    assert (folder / "o.onnx").read_bytes() == NEW


def test_partial_writes_are_continued(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(atomic.os, "write", lambda descriptor, data: real(descriptor, data[:7]))
    write_bytes_atomically(NEW, folder / "o.onnx", force=False)
    assert (folder / "o.onnx").read_bytes() == NEW


@pytest.mark.parametrize("lie", [lambda data: 0, len], ids=["nothing_written", "claims_more"])
def test_writes_that_lie(lie: Callable[[bytes], int], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic.os, "write", lambda descriptor, data: lie(data))
    with pytest.raises(OutputError, match=r"nothing could be written|does not have the"):
        write_bytes_atomically(NEW, folder / "o.onnx", force=False)
    assert list(folder.iterdir()) == []


def test_content_that_reads_back_differently(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(atomic.os, "write", lambda descriptor, data: real(descriptor, b"\0" * len(data)))
    with pytest.raises(OutputError, match="reads back differently"):
        write_bytes_atomically(NEW, folder / "o.onnx", force=False)
    assert list(folder.iterdir()) == []


def test_name_of_the_temporary_file_is_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic.secrets, "token_hex", lambda size: "0" * 2 * size)
    taken = folder / f".graphprune-{'0' * 16}.tmp"
    taken.write_bytes(OLD)
    with pytest.raises(OutputError, match="File exists"):
        write_bytes_atomically(NEW, folder / "o.onnx", force=False)
    assert taken.read_bytes() == OLD


# Real limits and signals


LIMITED = """
import resource, sys
from pathlib import Path
from graphprune.errors import OutputError
from graphprune.model.write import write_bytes_atomically
target, new = Path(sys.argv[1]), sys.stdin.buffer.read()
old, before = target.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
for size in range(0, len(new), 97):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        write_bytes_atomically(new, target, force=True)
        sys.exit(f"{size} bytes were enough")
    except OutputError as error:
        if "File too large" not in error.message:
            sys.exit(error.message)
    if target.read_bytes() != old or len(list(target.parent.iterdir())) != int(sys.argv[2]):
        sys.exit(f"not as before after {size} bytes")
resource.setrlimit(resource.RLIMIT_FSIZE, (len(new), before[1]))
write_bytes_atomically(new, target, force=True)
"""


@posix
def test_disk_full_at_any_byte(folder: Path) -> None:
    """In a process of its own: the limit would hold for the output of the test runner, too."""
    target = folder / "o.onnx"
    target.write_bytes(OLD)
    command = [sys.executable, "-P", "-c", LIMITED, str(target), str(len(list(folder.iterdir())))]
    done = subprocess.run(command, input=NEW, capture_output=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")
    assert target.read_bytes() == NEW
    assert leftovers(folder) == []


CHILD = """
import os, signal, sys
from pathlib import Path
from graphprune.model.files import atomic
from graphprune.model.write import write_bytes_atomically
target, number, action = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
left = number
def wrap(real):
    def call(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), getattr(signal, action))
        return real(*arguments, **options)
    return call
for name in ("open", "write", "fsync", "replace"):
    setattr(atomic.os, name, wrap(getattr(os, name)))
data = sys.stdin.buffer.read()
write_bytes_atomically(data, target, force=True)
sys.exit(7 if left > 0 else 0)
"""


def run_child(target: Path, number: int, action: str) -> int:
    command = [sys.executable, "-P", "-c", CHILD, str(target), str(number), action]
    return subprocess.run(command, input=NEW, capture_output=True, check=False, timeout=60).returncode


@posix
def test_killed_at_every_step(folder: Path) -> None:
    target = folder / "o.onnx"
    target.write_bytes(OLD)
    code = 0
    for number in range(1, 20):
        code = run_child(target, number, "SIGKILL")
        assert target.read_bytes() in (OLD, NEW)
        assert all(name.startswith(".graphprune-") for name in leftovers(folder))
        if code == 7:
            break
        assert code == -signal.SIGKILL
        assert len(leftovers(folder)) <= number
    assert code == 7
    assert target.read_bytes() == NEW


@posix
@pytest.mark.parametrize(("action", "codes"), [("SIGTERM", {143}), ("SIGINT", {1, 130, -signal.SIGINT})])
def test_interrupted(action: str, codes: set[int], folder: Path) -> None:
    target = folder / "o.onnx"
    for number in (2, 3, 4):  # write, fsync, and reading back
        target.write_bytes(OLD)
        assert run_child(target, number, action) in codes
        assert target.read_bytes() == OLD
        assert leftovers(folder) == []


@posix
def test_termination_signal_of_the_program_is_left_alone(folder: Path) -> None:
    def handler(number: int, frame: object) -> None: ...

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with atomic.terminate_by_exception():
            assert signal.getsignal(signal.SIGTERM) is handler
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with atomic.terminate_by_exception():
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_two_runs_to_one_output(folder: Path) -> None:
    target = folder / "o.onnx"
    contents = [bytes([index]) * 200_000 for index in range(4)]
    failures: list[GraphPruneError] = []

    def run(data: bytes) -> None:
        for _ in range(5):
            try:
                write_bytes_atomically(data, target, force=True)
            except GraphPruneError as error:
                failures.append(error)

    threads = [threading.Thread(target=run, args=(data,)) for data in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if target.exists():
            assert target.read_bytes() in contents
    assert failures == []
    assert target.read_bytes() in contents
    assert leftovers(folder) == []
