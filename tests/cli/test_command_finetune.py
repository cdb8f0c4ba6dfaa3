# SPDX-License-Identifier: Apache-2.0
"""`graphprune finetune`, end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from forked_runs import start
from training_cases import normalised
from training_runs import launching

from graphprune.cli.commands.finetune import _show
from graphprune.cli.training_run import missing_processes
from graphprune.model.load import load
from graphprune.training.finetune import Finetuned
from graphprune.training.trainer import Measure

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Outcome

    Command = Callable[..., Outcome]

SHORT = ("--epochs", "3", "--batch", "32", "--rate", "0.01", "--device", "cpu")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    np.savez(path, image=rng.integers(0, 256, (160, 12, 12, 3), np.uint8), labels=rng.integers(0, 5, 160))
    # The statistics of these networks are random, and do not tell how pixels are to be normalised.
    (tmp_path / "graphprune.toml").write_text("[data]\nmean = 0\nstd = 1\n")
    return path


@pytest.fixture
def unlabelled(tmp_path: Path, data: Path) -> Path:
    path = tmp_path / "plain.npz"
    np.savez(path, image=np.load(data)["image"])
    return path


@pytest.fixture
def pruned(quick: Command, model: Path) -> Path:
    assert quick("solve", model, "--quick", "--flops", "0.5", "--round-to", "1").code == 0
    return model.with_name("net.pruned.onnx")


def test_distillation_without_labels(
    graphprune: Command, quick: Command, model: Path, pruned: Path, unlabelled: Path
) -> None:
    before = pruned.read_bytes()
    done = graphprune("finetune", pruned, "--teacher", model, "--data", unlabelled, *SHORT, "-v")
    assert done.code == 0, done.err
    assert "held-out loss" in done.out
    assert "agreement" in done.out
    assert "blocks of the original give" in done.out
    assert "accuracy" not in done.out
    assert "train 12/12" in done.err
    output = model.with_name("net.pruned.finetuned.onnx")
    assert str(output) in done.out
    assert pruned.read_bytes() == before
    assert not list(output.parent.glob("*.safetensors"))
    onnx.checker.check_model(onnx.load(output), full_check=True)
    errors = []
    for each in (pruned, output):
        shown = quick("eval", each, "--data", unlabelled, "--teacher", model, "--json")
        errors.append(json.loads(shown.out)["kl"])
    assert errors[1] < errors[0]


def test_what_the_options_do(quick: Command, model: Path, pruned: Path, data: Path) -> None:
    command = ("finetune", pruned, "--data", data, *SHORT, "--json", "--force")
    alone = json.loads(quick(*command).out)
    assert alone["labels"] == "scores"
    assert alone["before"]["agreement"] is None
    beside = json.loads(quick(*command, "--teacher", model, "--label-weight", "0", "--limit", "100").out)
    assert beside["labels"] is None
    assert beside["samples"] + beside["held_out"] == 100
    assert beside["losses"] == {"scores": "kl"}
    assert beside["after"]["loss"] < beside["before"]["loss"]
    other = quick(*command, "--teacher", model, "--output-loss", "scores=mse", "--augment", "none", "--mean", "0.5")
    found = json.loads(other.out)
    assert found["losses"] == {"scores": "mse"}
    assert found["augment"] == "none"


def test_blocks_are_learned_where_the_plan_says_which_channels_are_left(
    quick: Command, model: Path, pruned: Path, unlabelled: Path
) -> None:
    command = ("finetune", pruned, "--data", unlabelled, *SHORT, "--json", "--force", "--teacher")
    done = quick(*command, model)
    assert json.loads(done.out)["hints"], done.err
    done = quick(*command, pruned)  # no network that the plan is about
    assert "hints" not in done.out and "not what blocks give" in done.err
    model.with_name("net.plan.json").unlink()
    done = quick(*command, model)
    assert json.loads(done.out)["hints"] == 0
    assert "no plan of the pruned model" in done.err


def test_settings_beside_the_model_hold(quick: Command, model: Path, pruned: Path, data: Path) -> None:
    command = ("finetune", pruned, "--teacher", model, "--data", data, *SHORT, "--json", "--force")
    plain = json.loads(quick(*command).out)["before"]["loss"]
    model.with_name("graphprune.toml").write_text("[data]\nmean = [0.4, 0.5, 0.6]\nstd = [0.2, 0.2, 0.2]\n")
    scaled = json.loads(quick(*command).out)["before"]["loss"]
    given = json.loads(quick(*command, "--mean", "0", "--std", "1").out)["before"]["loss"]
    assert scaled != pytest.approx(plain)
    assert given == pytest.approx(plain)


def test_a_torchvision_dataset(
    quick: Command, model: Path, pruned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its training part is what `torchvision:NAME` means; images are brought to the size of the input."""
    monkeypatch.setenv("GRAPHPRUNE_DATA", str(tmp_path))
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for stem, count in (("train", 320), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 8, 8), np.uint8)
        shape = b"".join(size.to_bytes(4, "big") for size in images.shape)
        labels = rng.integers(0, 5, count, np.uint8)
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + shape + images.tobytes())
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + count.to_bytes(4, "big") + labels.tobytes())
    command = (
        "finetune",
        pruned,
        "--teacher",
        model,
        "--data",
        "torchvision:MNIST",
        "--image-size",
        "12",
        *("--mean", "0", "--std", "1"),
        *SHORT,
        "--json",
    )
    done = quick(*command)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["samples"] + found["held_out"] == 320
    assert found["labels"] == "scores"
    assert json.loads(quick(*command, "--label-weight", "0", "--force").out)["labels"] is None


def test_targets_in_the_way_and_runs_to_go_on_with(quick: Command, model: Path, pruned: Path, data: Path) -> None:
    command = ("finetune", pruned, "--teacher", model, "--data", data, *SHORT)
    nothing = quick(*command, "--resume")
    assert nothing.code == 2
    assert "no run to go on with" in nothing.err
    checkpoint = model.with_name("net.pruned.finetuned.onnx.checkpoint.safetensors")
    checkpoint.write_bytes(b"mine")
    stopped = quick(*command)
    assert stopped.code == 2
    assert "--resume" in stopped.err
    assert checkpoint.read_bytes() == b"mine"
    assert quick(*command, "--resume").code == 2
    checkpoint.unlink()
    output = model.with_name("net.pruned.finetuned.onnx")
    output.write_bytes(b"mine")
    assert quick(*command).code == 2
    assert output.read_bytes() == b"mine"
    assert quick(*command, "-o", pruned, "--force").code == 2


def test_nothing_is_written_where_it_does_not_help(quick: Command, model: Path, data: Path) -> None:
    done = quick("finetune", model, "--teacher", model, "--data", data, *SHORT, "--label-weight", "0")
    assert done.code == 1
    assert "did not help" in done.err
    assert not list(model.parent.glob("*finetuned*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "nowhere"), "does not exist"),
        (("--data", "plain.npz"), "no labels"),
        (("--data", "data.npz", "--layout", "x"), "--layout"),
        (("--data", "data.npz", "--image-size", "x"), "--image-size"),
        (("--data", "data.npz", "--mean", "1,2"), "--mean"),
        (("--data", "data.npz", "--augment", "nonsense"), "nonsense"),
        (("--data", "data.npz", "--output-loss", "kl"), "--output-loss"),
        (("--data", "data.npz", "--loss", "nowhere:loss"), "--loss"),
        (("--data", "data.npz", "--teacher", "missing.onnx"), "missing.onnx"),
    ],
)
@pytest.mark.usefixtures("data", "unlabelled")
def test_what_does_not_fit(quick: Command, pruned: Path, arguments: tuple[str, ...], message: str) -> None:
    done = quick("finetune", pruned, *arguments, *SHORT)
    assert done.code == 2, done.err
    assert message in done.err
    assert not list(pruned.parent.glob("*finetuned*"))


def test_accelerate_starts_two_processes(model: Path, pruned: Path, unlabelled: Path, tmp_path: Path) -> None:
    launch = ("--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--main_process_port", "0")
    command = ("-m", "graphprune", "finetune", pruned, "--teacher", model, "--data", unlabelled, *SHORT)
    quiet = {"OMP_NUM_THREADS": "1", "ACCELERATE_LOG_LEVEL": "ERROR"}
    run = start(tmp_path, launching, tmp_path, *launch, *map(str, command), **quiet)
    assert run.ended() == 0, run.printed()
    assert "processes      2" in run.printed()
    assert run.printed().count("held-out loss") == 1


def test_a_single_process_where_several_were_wanted_is_said() -> None:
    wanted = {"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    assert "started only this one" in missing_processes(wanted)
    assert not missing_processes({**wanted, "WORLD_SIZE": "2"})
    assert not missing_processes({"ACCELERATE_MIXED_PRECISION": "no"})


def test_where_no_step_was_better_it_is_said_what_was_kept(capsys: pytest.CaptureFixture[str]) -> None:
    before, after = Measure(1.0), Measure(0.5)
    facts = {"processes": 1, "hints": 0, "fixed_batch": False, "batch": 8, "samples": 20, "held_out": 4}
    tuned = Finetuned(load(normalised()), True, before, after, 0.01, {}, 7, 0, "", facts)
    _show(tuned, Path("m.onnx"), made=False, as_json=False)
    assert "7, none better than the new statistics of BatchNormalization" in capsys.readouterr().out
