# SPDX-License-Identifier: Apache-2.0
"""`--runtime` through the command line: where --latency and --bench measure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from made_up_runtimes import offer_runtimes

from graphprune.export import runtime_stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

    Command = Callable[..., Outcome]

TOYS = """
from graphprune.export.runtime import Runtime
from graphprune.export.runtimes.onnxruntime import open_with

class Other(Runtime):
    def version(self):
        return "7.0"

    def open(self, path, signature):
        return open_with(path, signature, ["CPUExecutionProvider"])

class Refuses(Other):
    def convert(self, model, signature, folder):
        raise ValueError("not this one")

class Absent(Other):
    modules = ("no_such_module",)
"""


@pytest.fixture(autouse=True)
def _runtimes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runtime_stopwatch, "_PROCESSES", 1)
    offer_runtimes(tmp_path, monkeypatch, TOYS, ("Other", "Refuses", "Absent"))


def test_a_latency_is_said_to_be_that_of_the_runtime(quick: Command, model: Path) -> None:
    done = quick("solve", model, "--quick", "--latency", "0.9", "--runtime", "other", "--bench")
    assert done.code == 0, done.err
    (line,) = [line for line in done.out.splitlines() if line.startswith("latency")]
    assert "measured in pairs in other" in line
    (line,) = [line for line in done.out.splitlines() if line.startswith("time")]
    assert "in other on one thread" in line
    record = json.loads(model.with_name("net.plan.json").read_text("utf-8"))["solver"]["options"]["latency"]
    assert (record["runtime"], record["version"], record["threads"]) == ("other", "7.0", 1)


def test_a_plan_is_applied_and_timed_there(quick: Command, model: Path) -> None:
    assert quick("solve", model, "--quick", "--flops", "0.5").code == 0
    done = quick("apply", model, "net.plan.json", "-f", "--bench", "--runtime", "other", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["bench"]["runtime"] == "other"


@pytest.mark.parametrize(
    ("runtime", "said"),
    [
        ("refuses", "refuses does not convert the model: not this one"),
        ("absent", "cannot be used here: no_such_module"),
        ("no-such-runtime", "openvino"),
    ],
)
def test_what_cannot_be_measured_is_bad_input(quick: Command, model: Path, runtime: str, said: str) -> None:
    done = quick("solve", model, "--quick", "--latency", "0.9", "--runtime", runtime)
    assert done.code == 2
    assert said in done.err
    assert not model.with_name("net.pruned.onnx").exists()


def test_several_threads_are_those_of_onnxruntime(quick: Command, model: Path) -> None:
    done = quick("solve", model, "--quick", "--latency", "0.9", "--runtime", "other", "--threads", "2")
    assert done.code == 2
    assert "one thread" in done.err


def test_a_refusal_comes_without_a_word_of_another_solver(quick: Command, model: Path) -> None:
    done = quick("solve", model, "--latency", "0.9", "--runtime", "refuses")
    assert done.code == 2
    assert "refuses does not convert the model" in done.err
    assert "widths are not measured" not in done.err
