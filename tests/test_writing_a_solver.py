# SPDX-License-Identifier: Apache-2.0
"""The example of docs/writing_a_solver.md is a package that works as it stands there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import onnx
import pytest
from constraint_cases import TEXT, WEIGHTS
from source_tree import ROOT
from tiny_models import model

if TYPE_CHECKING:
    from pathlib import Path

PAGE = (ROOT / "docs" / "writing_a_solver.md").read_text("utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Put the package of the page where its entry points are found."""
    (tmp_path / "edge_methods.py").write_text(block("python"))
    offers = tomllib.loads(block("toml"))["project"]["entry-points"]
    info = tmp_path / "edge_methods-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edge-methods\nVersion: 1.0\n")
    sections = [
        "\n".join([f"[{group}]", *(f"{name} = {place}" for name, place in names.items())])
        for group, names in offers.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(sections) + "\n")
    onnx.save(model(TEXT, WEIGHTS), tmp_path / "model.onnx")
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-W", "error", "-m", "graphprune", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])},
    )


def test_the_command_of_the_page_prunes_a_network(installed: Path) -> None:
    program, *arguments = shlex.split(block("sh"))
    assert program == "graphprune"
    done = run(installed, *arguments, "--round-to", "1", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["solver"]["name"], report["solver"]["criterion"]) == ("early", "peak")
    assert report["verification"]["status"] == "verified"
    assert report["flops"]["after"] <= report["flops"]["before"] // 2
    plan = json.loads((installed / "model.plan.json").read_text())
    assert plan["solver"]["options"]["scores_from"] == {"largest weight": 3}
    widths = [len(group["kept"]) / group["size"] for group in plan["groups"]]
    assert widths[0] == 1 and min(widths) < 0.2  # the first groups take all


def test_the_example_is_short() -> None:
    assert sum(bool(line.strip()) for line in block("python").splitlines()) <= 30
