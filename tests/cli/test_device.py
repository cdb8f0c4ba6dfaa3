# SPDX-License-Identifier: Apache-2.0
"""`--device`: what networks run on is chosen once for a command, said with -v, and kept in the plan."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest

from graphprune.data import providers
from graphprune.plan.file import read_plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

    Command = Callable[..., Outcome]


@pytest.fixture
def data(tmp_path: Path) -> str:
    np.savez(tmp_path / "data.npz", image=np.random.default_rng(0).standard_normal((64, 3, 12, 12)).astype(np.float32))
    return "data.npz"


@pytest.fixture
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "_cuda_fault", lambda: "there is no driver of NVIDIA")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [providers.CUDA, providers.CPU])


@pytest.fixture
def asked_for(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let CUDA seem to work: every session that asks for it is counted, and gets the processor."""
    monkeypatch.setattr(providers, "_cuda_fault", str)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [providers.CUDA, providers.CPU])
    asked: list[str] = []
    real = onnxruntime.InferenceSession

    def session(model: Any, options: Any = None, **given: Any) -> Any:
        first = given["providers"][0]
        asked.append(first if isinstance(first, str) else first[0])
        return real(model, options, providers=[providers.CPU])

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    return asked


def test_the_processor_is_used_where_cuda_does_not_work(
    quick: Command, model: Path, data: str, without_cuda: None
) -> None:
    done = quick("solve", model, "--flops", "0.5", "--calib", data, "-v")
    assert done.code == 0, done.err
    assert "device: cpu (there is no driver of NVIDIA)" in done.err
    plan = read_plan(model.with_name("net.plan.json"))
    assert plan.solver.options["device"] == "cpu"
    assert [step.facts["device"] for step in plan.steps] == ["cpu", "cpu"]


@pytest.mark.parametrize(
    "command",
    [
        ("solve", "net.onnx", "--flops", "0.5"),
        ("eval", "net.onnx", "--data", "data.npz"),
        ("compare", "net.onnx", "--flops", "0.5"),
        ("synthesize", "net.onnx"),
        ("apply", "net.onnx", "net.plan.json"),
    ],
)
def test_a_device_that_does_not_work_is_refused_at_once(
    quick: Command, model: Path, data: str, without_cuda: None, command: tuple[str, ...]
) -> None:
    done = quick(*command, "--device", "cuda")
    assert done.code == 2
    assert "CUDA cannot be used: there is no driver of NVIDIA" in done.err
    assert "--device auto" in done.err


def test_networks_run_where_it_works_and_verification_does_not(
    quick: Command, model: Path, data: str, asked_for: list[str]
) -> None:
    done = quick("solve", model, "--flops", "0.5", "--calib", data)
    assert done.code == 0, done.err
    assert providers.CUDA in asked_for
    plan = read_plan(model.with_name("net.plan.json"))
    assert [step.facts["device"] for step in plan.steps] == ["cuda", "cuda"]
    asked_for.clear()
    assert quick("verify", model, "net.pruned.onnx", "net.plan.json").code == 0
    assert providers.CUDA not in asked_for


def test_the_choice_ends_with_the_command(
    quick: Command, model: Path, data: str, asked_for: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(providers.VARIABLE, "cpu")
    evaluate = ("eval", model, "--data", data, "--teacher", model)
    assert quick(*evaluate, "--device", "auto").code == 0
    assert providers.CUDA in asked_for
    asked_for.clear()
    assert quick(*evaluate).code == 0  # as the environment says
    assert providers.CUDA not in asked_for


def test_a_latency_is_that_of_the_device(quick: Command, model: Path, asked_for: list[str]) -> None:
    done = quick("solve", model, "--flops", "0.5", "--quick", "--bench", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["bench"] is not None
    assert providers.CUDA in asked_for
