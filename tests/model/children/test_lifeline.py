# SPDX-License-Identifier: Apache-2.0
"""Children end with their parent, however it ends, and leave nothing that the next run does not remove."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from endless_models import endless
from process_tree import alive, descendants, wait_until

from graphprune.model.files.scratch import PREFIX, remove_stale

pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes are listed with ps")

OBSERVE = """
import sys
from graphprune.model.sizes import observation
from graphprune.model.children.allowance import Allowance
from graphprune.model.graph import Graph
from graphprune.model.load import load
observation.allow = lambda *_: Allowance(600.0, 600, 2 << 30)
model = load(sys.argv[1])
observation.observe(model, Graph(model.proto), [{"x": (1, 3, 8, 8)}], [])
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


def start(root: Path, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", *arguments]
    environment = {**os.environ, "TMPDIR": str(root), **environment}
    return subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)


def kill_and_look(parent: subprocess.Popen[bytes], seen: list[int]) -> None:
    """Kill a parent alone, as the system does when memory is short; none of what it started may live on."""
    parent.kill()
    assert parent.wait() == -signal.SIGKILL
    try:
        assert wait_until(lambda: not alive(seen)), f"left behind: {alive(seen)}"
    finally:
        for pid in alive(seen):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("patience", [0.0, 2.0], ids=["as-it-starts", "in-the-loop"])
@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "pipe-alone"])
def test_an_endless_loop_ends_with_its_killed_parent(
    tmp_path: Path, root: Path, patience: float, *, kernel: bool
) -> None:
    onnx.save(endless(), tmp_path / "endless.onnx")
    # As on another system: the kernel is not asked, and the end of the pipe is all that a child sees.
    (tmp_path / "sitecustomize.py").write_text("" if kernel else "import sys; sys.platform = 'other'\n")
    with start(root, "-c", OBSERVE, str(tmp_path / "endless.onnx"), PYTHONPATH=str(tmp_path)) as parent:
        assert wait_until(lambda: bool(descendants(parent.pid)))
        time.sleep(patience)
        seen = descendants(parent.pid)
        kill_and_look(parent, seen)
    (left,) = root.glob(f"{PREFIX}*")
    assert remove_stale(root) == [left]


def test_workers_of_a_sweep_end_with_their_killed_parent(tmp_path: Path, root: Path) -> None:
    onnx.save(endless(), tmp_path / "net.onnx")
    table = tmp_path / "t.csv"
    arguments = ("sweep", str(tmp_path / "net.onnx"), "--quick", "--jobs", "2", "--output", str(table))
    with start(root, "-m", "graphprune", *arguments) as parent:
        assert wait_until(lambda: table.exists() or parent.poll() is not None)
        assert parent.poll() is None
        seen = descendants(parent.pid)
        assert len(seen) >= 2
        kill_and_look(parent, seen)
