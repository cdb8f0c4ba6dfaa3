# SPDX-License-Identifier: Apache-2.0
"""A run that is killed between its two renames leaves a new model beside an old plan; whoever reads them is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from graphprune.api import load, save
from graphprune.plan.file import read_plan
from graphprune.verification.pair import plan_beside

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

    Command = Callable[..., Outcome]

SOLVE = ("solve", "net.onnx", "--quick", "--flops")
KILLED = """
import os, signal, sys
from graphprune.cli import main
from graphprune.model.files import atomic

commit = atomic.PendingFile.commit

def commit_one(pending, **options):
    commit(pending, **options)
    os.kill(os.getpid(), signal.SIGKILL)

atomic.PendingFile.commit = commit_one
main(sys.argv[1:])
"""
TOLD = "was not made from"


@pytest.fixture
def pair(quick: Command, model: Path) -> Path:
    """Return a folder with a model and a plan that belong together."""
    assert quick(*SOLVE, "0.5").code == 0
    return model.parent


@pytest.fixture
def parted(pair: Path) -> Path:
    """Return the same folder, after a run that was killed once the model had its name."""
    command = [sys.executable, "-P", "-c", KILLED, *SOLVE, "0.4", "--force"]
    done = subprocess.run(command, cwd=pair, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    for name, seconds in (("net.plan.json", 100), ("net.pruned.onnx", 200)):
        os.utime(pair / name, (seconds, seconds))
    return pair


READERS = {
    "verify": ("verify", "net.onnx", "net.pruned.onnx", "net.plan.json"),
    "inspect plan": ("inspect", "net.plan.json"),
    "inspect model": ("inspect", "net.pruned.onnx"),
    "apply": ("apply", "net.onnx", "net.plan.json", "--force"),
    "recover": (
        *("recover", "net.pruned.onnx", "--teacher", "net.onnx"),
        "--plan",
        "net.plan.json",
        "--calib",
        "x.npy",
    ),
}


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.parametrize("reader", READERS)
def test_a_reader_of_a_mixed_pair_is_told(parted: Path, quick: Command, reader: str) -> None:
    np.save(parted / "x.npy", np.zeros((64, 3, 12, 12), np.float32))
    done = quick(*READERS[reader])
    assert done.err.count(TOLD) == 1, done.err
    assert "The model is the newer one" in done.err
    assert "apply MODEL net.plan.json --force" in done.err
    assert "internal error" not in done.err


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_what_is_said_to_mend_a_mixed_pair_does(parted: Path, quick: Command) -> None:
    assert quick(*READERS["verify"]).code == 101
    assert quick(*READERS["apply"]).code == 0
    done = quick(*READERS["verify"])
    assert (done.code, TOLD in done.err) == (0, False), done.err
    assert quick(*SOLVE, "0.4", "--force").code == 0
    assert quick(*READERS["verify"]).code == 0


@pytest.mark.parametrize("reader", [name for name in READERS if name != "recover"])
def test_of_a_whole_pair_nothing_is_said(pair: Path, quick: Command, reader: str) -> None:
    done = quick(*READERS[reader])
    assert done.code == 0, done.err
    assert TOLD not in done.err


def test_an_edited_plan_is_that_of_its_model(pair: Path, quick: Command) -> None:
    """Its own digest is another one; what follows from the edit counts."""
    content = json.loads((pair / "net.plan.json").read_text())
    content["groups"][0]["kept"] = [1, 3, 5]
    (pair / "net.plan.json").write_text(json.dumps(content))
    assert quick("apply", "net.onnx", "net.plan.json", "--force").code == 0
    done = quick(*READERS["verify"])
    assert done.code == 0, done.err
    assert TOLD not in done.err


def test_a_partner_that_cannot_be_read_is_none(pair: Path, quick: Command) -> None:
    (pair / "net.pruned.onnx").write_bytes(b"no model")
    done = quick("inspect", "net.plan.json")
    assert done.code == 0
    assert TOLD not in done.err


def test_the_plan_of_a_model_is_found_beside_all_that_was_made_from_it(pair: Path) -> None:
    pruned, plan = load(pair / "net.pruned.onnx"), read_plan(pair / "net.plan.json")
    assert plan_beside(pruned) == plan
    save(pruned, pair / "net.pruned.recovered.onnx")
    assert plan_beside(load(pair / "net.pruned.recovered.onnx")) == plan
    assert plan_beside(load(pair / "net.onnx")) is None


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_another_plan_is_not_taken_for_that_of_a_model(parted: Path) -> None:
    assert plan_beside(load(parted / "net.pruned.onnx")) is None
