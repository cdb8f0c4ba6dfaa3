# SPDX-License-Identifier: Apache-2.0
"""`graphprune export`, end to end."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import onnx
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

    Command = Callable[..., Outcome]

FACTORY = """
import torch

def small():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.nn.BatchNorm2d(8), torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(8, 4),
    )

def broken():
    raise RuntimeError("no file")

number = 3
"""
SHAPE = ("--input-shape", "image=1x3x8x8")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module of the user's own, in the folder where commands run."""
    name = "networks_" + "".join(c if c.isalnum() else "_" for c in tmp_path.name)
    (tmp_path / f"{name}.py").write_text(FACTORY)
    (tmp_path / "broken_module.py").write_text("def make(\n")
    monkeypatch.setattr("sys.path", sys.path.copy())
    return name


def test_a_module_of_the_users_own(graphprune: Command, quick: Command, module: str, tmp_path: Path) -> None:
    done = graphprune("export", f"{module}:small", "-o", "small.onnx", *SHAPE)
    assert done.code == 0, done.err
    assert "batch normalizations  1" in done.out
    model = onnx.load(tmp_path / "small.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {"0.weight", "1.running_var", "7.bias"} <= {tensor.name for tensor in model.graph.initializer}
    assert model.graph.input[0].name == "image"
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert quick("solve", "small.onnx", "--quick", "--flops", "0.5", "--round-to", "1").code == 0


def test_a_torchvision_network(quick: Command, tmp_path: Path) -> None:
    done = quick(
        *("export", "torchvision:shufflenet_v2_x0_5", "-o", "net.onnx", "--input-shape", "1x3x32x32", "--json"),
    )
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["batch_normalizations"] == 56
    assert found["inputs"] == ["input"]
    assert "weights are random" in done.err
    assert (tmp_path / "net.onnx").is_file()


def test_weights_from_a_file(quick: Command, module: str, tmp_path: Path) -> None:
    import torch

    torch.save({"0.weight": torch.full((2, 3), 2.0), "0.bias": torch.zeros(2)}, tmp_path / "weights.pt")
    (tmp_path / f"{module}_linear.py").write_text(
        "import torch\ndef make():\n    return torch.nn.Sequential(torch.nn.Linear(3, 2))\n"
    )
    command = ("export", f"{module}_linear:make", "-o", "linear.onnx", "--input-shape", "1x3", "--weights")
    assert quick(*command, "weights.pt").code == 0
    values = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / "linear.onnx").graph.initializer}
    assert (values["0.weight"] == 2).all()
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pt")
    done = quick(*command, "other.pt", "--force")
    assert done.code == 2
    assert "other.pt" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("torchvision:nonsense", "-o", "x.onnx"), "nonsense"),
        (("nowhere:make", "-o", "x.onnx"), "nowhere"),
        (("nonsense", "-o", "x.onnx"), "names no module"),
        (("MODULE:missing", "-o", "x.onnx"), "missing"),
        (("MODULE:number", "-o", "x.onnx"), "number"),
        (("broken_module:make", "-o", "x.onnx"), "SyntaxError"),
        (("MODULE:broken", "-o", "x.onnx"), "no file"),
        (("MODULE:small", "-o", "x.onnx", "--input-shape", "3 x 8"), "--input-shape"),
        (("MODULE:small", "-o", "x.onnx", "--input-shape", "1x4x8x8"), "[2, 4, 8, 8]"),
        (("MODULE:small", "-o", "nowhere/x.onnx"), "nowhere"),
        (("MODULE:small", "-o", "x.onnx", "--weights", "none.pt"), "none.pt"),
        (("MODULE:small",), "--output"),
    ],
)
def test_what_cannot_be_exported(
    quick: Command, module: str, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = quick("export", *(argument.replace("MODULE", module) for argument in arguments))
    assert done.code == 2, (done.code, done.err)
    assert message in done.err
    assert not (tmp_path / "x.onnx").exists()


def test_an_existing_file_stays(quick: Command, module: str, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"mine")
    done = quick("export", f"{module}:small", "-o", "x.onnx", *SHAPE)
    assert done.code == 2
    assert "exists" in done.err
    assert (tmp_path / "x.onnx").read_bytes() == b"mine"
