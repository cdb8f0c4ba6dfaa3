# SPDX-License-Identifier: Apache-2.0
"""Help comes at once: neither the package nor ``--help`` loads a numerical or model library."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
