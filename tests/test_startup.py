# SPDX-License-Identifier: Apache-2.0
"""Help comes at once: neither the package nor ``--help`` loads a numerical or model library."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import graphprune

HEAVY = {
    "torch",
    "torchvision",
    "accelerate",
    "onnx",
    "onnx_graphsurgeon",
    "onnxruntime",
    "scipy",
    "sklearn",
    "networkx",
    "matplotlib",
    "joblib",
    "yaml",
}

HELP = """
import contextlib, io
from graphprune.cli import main
with contextlib.redirect_stdout(io.StringIO()) as shown:
    try:
        code = main(["--help"])
    except SystemExit as stop:
        code = stop.code
assert code in (0, None), code
assert "solve" in shown.getvalue(), shown.getvalue()
"""

LOADED = """
import json, sys
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.mark.parametrize("script", ["import graphprune", HELP], ids=["import", "help"])
def test_starts_without_heavy_libraries(script: str, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-P", "-c", f"{script}\n{LOADED}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    loaded = set(json.loads(run.stdout.splitlines()[-1]))
    assert "graphprune" in loaded
    assert loaded & HEAVY == set()


def test_nothing_is_imported_before_a_ctrl_c_can_be_told(tmp_path: Path) -> None:
    """What Python loads before it loads this is Python's; what a command needs is loaded where Ctrl-C is caught."""
    root, installed = Path(graphprune.__file__).parents[1], tmp_path / "graphprune"
    installed.mkdir()
    apart = [root / name for name in ("solvers", "export") if not (root / "graphprune" / name).exists()]
    for part in (*(root / "graphprune").iterdir(), *apart):
        (installed / part.name).symlink_to(part)
    script = (
        f"import os, sys; sys.path.insert(0, {str(tmp_path)!r}); before = set(sys.modules)\n"
        "from graphprune.cli import main; print(sorted(set(sys.modules) - before))"
    )
    command = [sys.executable, "-I", "-S", "-c", script]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "['__future__', 'graphprune', 'graphprune.cli']"
