# SPDX-License-Identifier: Apache-2.0
"""The device is chosen from what onnxruntime offers and what works, in one place, and quietly."""

from __future__ import annotations

import threading

import pytest

from graphprune.data import providers
from graphprune.data.providers import CPU, CUDA, ChosenDevice, choose_device, current, on, use, wanted
from graphprune.errors import UsageError

BOTH = ("TensorrtExecutionProvider", CUDA, CPU)


def works() -> str:
    return ""


def lacks_a_driver() -> str:
    return "there is no driver of NVIDIA"


@pytest.mark.parametrize(
    ("asked", "available", "fault", "name"),
    [
        ("auto", BOTH, works, "cuda"),
        ("auto", BOTH, lacks_a_driver, "cpu"),
        ("auto", (CPU,), works, "cpu"),
        ("cpu", BOTH, works, "cpu"),
        ("cuda", BOTH, works, "cuda"),
    ],
)
def test_the_best_that_works_is_chosen(asked: str, available: tuple[str, ...], fault: object, name: str) -> None:
    chosen = choose_device(asked, available, fault)  # type: ignore[arg-type]
    assert chosen.name == name
    assert chosen.why
    names = [each if isinstance(each, str) else each[0] for each in chosen.providers]
    assert names == ([CPU] if name == "cpu" else [CUDA, CPU])


def test_full_precision_is_asked_for() -> None:
    (_, options), _ = ChosenDevice("cuda", "").providers
    assert options["use_tf32"] == "0"


@pytest.mark.parametrize(
    ("available", "fault", "problem", "mend"),
    [
        ((CPU,), works, "built without CUDA", "pip install onnxruntime-gpu"),
        (BOTH, lacks_a_driver, "no driver of NVIDIA", "--device auto"),
    ],
)
def test_what_does_not_work_is_said_where_it_is_asked_for(
    available: tuple[str, ...], fault: object, problem: str, mend: str
) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        choose_device("cuda", available, fault)  # type: ignore[arg-type]
    assert mend in (caught.value.hint or "")


def test_nothing_is_tried_where_the_processor_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def tried() -> str:
        raise AssertionError("CUDA was tried")

    monkeypatch.setattr(providers, "_cuda_fault", tried)
    with on("cpu"):
        assert current().name == "cpu"


def test_the_environment_decides_where_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(providers.VARIABLE, raising=False)
    assert wanted() == "auto"
    monkeypatch.setenv(providers.VARIABLE, "CPU")
    assert wanted() == "cpu"
    with on("cuda"):
        assert wanted() == "cuda"
    assert wanted() == "cpu"
    monkeypatch.setenv(providers.VARIABLE, "cudo")
    with pytest.raises(UsageError, match="GRAPHPRUNE_DEVICE is 'cudo'") as caught:
        wanted()
    assert caught.value.hint == "did you mean cuda?"


def test_what_is_said_holds_in_its_own_thread_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(providers.VARIABLE, raising=False)
    thread = threading.Thread(target=lambda: use("cpu"))
    thread.start()
    thread.join()
    assert wanted() == "auto"


def test_the_trial_of_cuda_says_nothing_itself(capfd: pytest.CaptureFixture[str]) -> None:
    providers._cuda_fault.cache_clear()
    providers._cuda_fault()
    assert capfd.readouterr() == ("", "")
