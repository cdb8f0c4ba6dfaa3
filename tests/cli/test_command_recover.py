# SPDX-License-Identifier: Apache-2.0
"""`graphprune recover` and `graphprune eval`, end to end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from graphprune.data.agreement import Agreement

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

    Command = Callable[..., Outcome]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    images = rng.standard_normal((96, 3, 12, 12)).astype(np.float32)
    np.savez(path, image=images, labels=rng.integers(0, 5, 96))
    return path


def prune(quick: Command, model: Path) -> tuple[Path, Path]:
    assert quick("solve", model, "--quick", "--flops", "0.5", "--round-to", "1").code == 0
    return model.with_name("net.pruned.onnx"), model.with_name("net.plan.json")


def test_the_way_from_a_pruned_model_to_a_recovered_one(
    graphprune: Command, quick: Command, model: Path, data: Path
) -> None:
    pruned, plan = prune(quick, model)
    before = pruned.read_bytes()
    done = graphprune("recover", pruned, "--teacher", model, "--plan", plan, "--calib", data, "-v")
    assert done.code == 0, done.err
    assert "recovered" in done.out
    assert "held out" in done.out
    assert "recovering: " in done.err
    output = model.with_name("net.pruned.recovered.onnx")
    assert str(output) in done.out
    assert pruned.read_bytes() == before
    onnx.checker.check_model(onnx.load(output), full_check=True)

    errors = []
    for each in (pruned, output, model):
        shown = quick("eval", each, "--data", data, "--teacher", model, "--json")
        assert shown.code == 0, shown.err
        errors.append(json.loads(shown.out)["output_error"])
    assert errors[0] > errors[1] > errors[2] == 0


@pytest.mark.parametrize("method", ["bn", "bias", "least-squares"])
def test_methods_as_json(quick: Command, model: Path, data: Path, method: str) -> None:
    pruned, plan = prune(quick, model)
    done = quick(
        *("recover", pruned, "--teacher", model, "--plan", plan, "--calib", data, "--method", method),
        *("--json", "-o", model.with_name("out.onnx"), "--samples", "64"),
    )
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["method"] == method
    assert found["samples"] + found["held_out"] == 64
    assert found["improved"]
    assert found["error_after"] < found["error_before"]
    assert model.with_name("out.onnx").is_file()
    marks = {entry.key: entry.value for entry in onnx.load(model.with_name("out.onnx")).metadata_props}
    assert marks["graphprune.recovered"] == method
    assert marks["graphprune.verified"].startswith("no")


def test_dry_runs_and_targets_in_the_way(quick: Command, model: Path, data: Path) -> None:
    pruned, plan = prune(quick, model)
    command = ("recover", pruned, "--teacher", model, "--plan", plan, "--calib", data, "--method", "bias")
    assert quick(*command, "--dry-run").code == 0
    output = model.with_name("net.pruned.recovered.onnx")
    assert not output.exists()
    output.write_bytes(b"mine")
    done = quick(*command)
    assert done.code == 2
    assert "exists" in done.err
    assert output.read_bytes() == b"mine"
    assert quick(*command, "-o", pruned, "--force").code == 2


def test_where_it_does_not_help_nothing_is_written(
    quick: Command, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphprune.recovery.recover.compare", lambda *_: Agreement(["maps"], error=[1.0], power=[2.0]))
    pruned, plan = prune(quick, model)
    done = quick("recover", pruned, "--teacher", model, "--plan", plan, "--calib", data, "-o", "out.onnx", "--json")
    assert done.code == 1
    assert not json.loads(done.out)["improved"]
    assert "nothing was written" in done.err
    assert not model.with_name("out.onnx").exists()


def test_outputs_keep_their_variance_if_wanted(quick: Command, model: Path, data: Path) -> None:
    pruned, plan = prune(quick, model)
    given = ("recover", pruned, "--teacher", model, "--plan", plan, "--calib", data)
    assert quick(*given, "-o", "plain.onnx").code == 0
    assert quick(*given, "-o", "scaled.onnx", "--rescale").code == 0
    assert model.with_name("plain.onnx").read_bytes() != model.with_name("scaled.onnx").read_bytes()
    done = quick(*given, "--method", "bn", "--rescale", "-o", "none.onnx")
    assert done.code == 2
    assert "--rescale" in done.err


def test_what_does_not_fit(quick: Command, model: Path, other_weights: Path, data: Path, tmp_path: Path) -> None:
    pruned, plan = prune(quick, model)
    np.savez(tmp_path / "bad.npz", image=np.zeros((4, 3, 5, 5), np.float32))
    cases = [
        (("recover", pruned, "--teacher", other_weights, "--plan", plan, "--calib", data), "another file"),
        (("recover", pruned, "--teacher", model, "--plan", plan, "--calib", tmp_path / "bad.npz"), "does not fit"),
        (("recover", pruned, "--teacher", model, "--plan", plan, "--calib", "nowhere"), "does not exist"),
        (("recover", model, "--teacher", model, "--plan", plan, "--calib", data), "is not what the plan makes of"),
        (("eval", model, "--data", tmp_path / "none.npz"), "does not exist"),
        (("eval", model, "--data", data, "--mean", "x"), "--mean"),
        (("eval", model, "--data", data, "--std", "0.5"), "--std is for images of 8 bits"),
        (("eval", model, "--data", data, "--size", "x"), "--size"),
    ]
    for arguments, message in cases:
        done = quick(*arguments)
        assert done.code == 2, arguments
        assert message in done.err
        assert "Traceback" not in done.err


def test_eval_with_labels_and_without(quick: Command, model: Path, data: Path, tmp_path: Path) -> None:
    done = quick("eval", model, "--data", data, "--limit", "50")
    assert done.code == 0, done.err
    assert "top-1" in done.out
    assert "100.00 %" in done.out  # five classes: all are among the first five
    assert "agreement" not in done.out
    np.save(tmp_path / "plain.npy", np.load(data)["image"])
    assert quick("eval", model, "--data", tmp_path / "plain.npy").code == 2
    same = quick("eval", model, "--data", tmp_path / "plain.npy", "--teacher", model)
    assert same.code == 0, same.err
    assert "agreement     100.00 %" in same.out
    assert "top-1" not in same.out
    np.savez(tmp_path / "wrong.npz", image=np.load(data)["image"], labels=np.full(96, 7))
    assert "classes from 7" in quick("eval", model, "--data", tmp_path / "wrong.npz").err
