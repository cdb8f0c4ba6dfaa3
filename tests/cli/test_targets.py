# SPDX-License-Identifier: Apache-2.0
"""What a command writes never replaces what it was given, nor another of its results; that is seen before it works."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

    Command = Callable[..., Outcome]

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="the extra train is not installed")
needs_report = pytest.mark.skipif(find_spec("altair") is None, reason="the extra report is not installed")


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def folder(model: Path) -> Path:
    """Return a folder with a model, samples of every kind, and what an earlier run might have left."""
    place = model.parent
    rng = np.random.default_rng(0)
    images = rng.normal(0, 1, (8, 3, 12, 12)).astype(np.float32)
    np.save(place / "samples.npy", images)
    np.savez(place / "samples.npz", image=images)
    (place / "photos" / "cats").mkdir(parents=True)
    (place / "photos" / "cats" / "cat.png").write_bytes(b"a picture")
    (place / "mine.py").write_text("def load():\n    return []\n")
    for name in ("page.html", "old.onnx", "old.plan.json", "old.int8.onnx"):
        (place / name).write_text("of an earlier run")
    return place


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-o", "a.html", "--report", "a.html"], "the model and the report would both go to 'a.html'"),
        (["--plan", "page.html", "--report", "page.html"], "the plan and the report would both go to"),
        (["-o", "old.onnx", "--plan", "old.int8.onnx", "--quantize", "int8"], "the plan and the int8 model would both"),
        (["-o", "c.x", "--plan", "c.x"], "the model and the plan would both go to 'c.x'"),
        (["-o", "run.log", "--log", "run.log"], "the model and the log would both go to 'run.log'"),
        (["--report", "old.onnx"], "let its name end in .html"),
    ],
)
@needs_report
def test_results_of_one_command_have_different_names(
    quick: Command, folder: Path, options: list[str], said: str
) -> None:
    before = contents(folder)
    for force in ([], ["--force"]):
        done = quick("solve", "net.onnx", "--flops", "0.5", *options, *force)
        assert (done.code, said in done.err) == (2, True), done.err
    assert contents(folder) == before


@needs_report
def test_a_report_that_is_there_is_seen_before_anything_is_done(quick: Command, folder: Path) -> None:
    before = contents(folder)
    done = quick("solve", "net.onnx", "--flops", "0.5", "--quick", "--report", "page.html")
    assert (done.code, "'page.html' exists" in done.err) == (2, True)
    assert contents(folder) == before


def test_a_link_is_no_other_name(quick: Command, folder: Path) -> None:
    (folder / "link.onnx").symlink_to(folder / "new.onnx")
    done = quick("solve", "net.onnx", "--flops", "0.5", "-o", "new.onnx", "--plan", "link.onnx", "-f")
    assert (done.code, "would both go to" in done.err) == (2, True)


GIVEN = [
    ("solve net.onnx --flops 0.5 --calib samples.npy -o samples.npy"),
    ("solve net.onnx --flops 0.5 --calib samples.npy --plan samples.npy"),
    ("solve net.onnx --flops 0.5 --data samples.npz -o samples.npz"),
    ("solve net.onnx --flops 0.5 --calib photos -o photos/cats/cat.png"),
    ("solve net.onnx --flops 0.5 --calib mine:load --plan mine.py"),
    ("quantize net.onnx --calib samples.npy -o samples.npy"),
    ("quantize net.onnx --original old.onnx -o old.onnx"),
    ("recover old.onnx --teacher net.onnx --plan old.plan.json --calib samples.npz -o samples.npz"),
    ("recover old.onnx --teacher net.onnx --plan old.plan.json --calib samples.npz -o old.plan.json"),
    ("normalize net.onnx -o net.onnx"),
    ("widen net.onnx -o net.onnx"),
    ("synthesize net.onnx --preview net.onnx"),
    ("inspect old.plan.json --graph page.svg --log page.svg"),
    ("apply net.onnx old.plan.json --plan old.plan.json"),
    ("sweep net.onnx --flops 0.5 --data table.csv -o table.csv"),
    pytest.param("finetune old.onnx --teacher net.onnx --data samples.npz -o samples.npz", marks=needs_torch),
    pytest.param("finetune old.onnx --data samples.npz --checkpoint samples.npz", marks=needs_torch),
    pytest.param("finetune old.onnx --data samples.npz --loss mine:load -o mine.py", marks=needs_torch),
    pytest.param("train net.onnx --flops 0.5 --data samples.npz --trained samples.npz", marks=needs_torch),
    pytest.param("train net.onnx --flops 0.5 --data samples.npz --trained a.onnx -o a.onnx", marks=needs_torch),
    pytest.param("export mine:load -o mine.py", marks=needs_torch),
    pytest.param("export mine:load --weights samples.npz -o samples.npz", marks=needs_torch),
]


@pytest.mark.parametrize("line", GIVEN)
def test_what_was_given_is_never_replaced(quick: Command, folder: Path, line: str) -> None:
    (folder / "table.csv").write_text("of the user")
    before = contents(folder)
    done = quick(*line.split(), *([] if line.startswith("sweep") else ["--force"]))
    assert done.code == 2, (done.out, done.err)
    assert "inputs are never changed" in done.err or "would both go to" in done.err, done.err
    assert contents(folder) == before


def test_weights_beside_the_model_are_a_part_of_it(quick: Command, folder: Path) -> None:
    proto = onnx.load(folder / "net.onnx")
    onnx.save(proto, folder / "net.onnx", save_as_external_data=True, location="net.html", size_threshold=0)
    before = contents(folder)
    done = quick("solve", "net.onnx", "--flops", "0.5", "--quick", "--plan", "net.html", "-f")
    assert (done.code, "inputs are never changed" in done.err) == (2, True)
    assert contents(folder) == before


def test_a_drawing_that_no_sweep_made_is_left_alone(quick: Command, folder: Path) -> None:
    (folder / "mine.svg").write_text("a drawing")
    done = quick("sweep", "net.onnx", "--flops", "0.5", "--quick", "-o", "mine.csv")
    assert (done.code, "'mine.svg' exists" in done.err) == (2, True)
    assert (folder / "mine.svg").read_text() == "a drawing"


def test_other_names_may_be_replaced(quick: Command, folder: Path) -> None:
    for force, code in (([], 2), (["-f"], 0)):
        done = quick(
            "solve", "net.onnx", "--flops", "0.5", "--quick", "-o", "old.onnx", "--plan", "old.plan.json", *force
        )
        assert done.code == code, done.err
