# SPDX-License-Identifier: Apache-2.0
"""Loading a good model: what comes out, and that it costs hardly more than parsing."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx
import pytest
from bad_files import make_external, small_model, weight
from google.protobuf.message import DecodeError
from onnx import checker, helper, numpy_helper, shape_inference

from graphprune.errors import GraphPruneError, ModelFileError, UnsupportedModelError
from graphprune.model.finite import check_finite
from graphprune.model.load import Limits, load
from graphprune.model.tensors import TensorStore
from graphprune.model.validity import validate as validating
from graphprune.model.validity.survey import label, survey
from graphprune.model.validity.validate import without_weights


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "net.v2.onnx"
    file.write_bytes(small_model().SerializeToString())
    return file


@pytest.mark.parametrize("kind", [str, Path])
def test_from_a_file(kind: type, path: Path) -> None:
    model = load(kind(path))
    assert model.proto.SerializeToString() == path.read_bytes()
    assert model.path == path
    assert model.name == "net.v2"
    assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_from_memory() -> None:
    proto = small_model()
    model = load(proto)
    assert model.proto is proto
    assert model.path is None
    assert model.name == "small"
    assert model.sha256 == hashlib.sha256(proto.SerializeToString()).hexdigest()


def test_relative_path(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    assert load(path.name).sha256 == load(path).sha256


def test_model_cannot_be_reassigned(path: Path) -> None:
    model = load(path)
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.proto = small_model()  # type: ignore[misc]


def test_replaced_keeps_the_source_of_tensors(path: Path) -> None:
    model = load(path)
    other = model.replaced(small_model(1))
    assert other.tensors is model.tensors
    assert other.path is None
    assert other.name == model.name
    assert other.sha256 != model.sha256


def test_loading_opens_the_file_read_only_and_closes_it(path: Path) -> None:
    path.chmod(0o400)
    before = path.stat()
    load(path)
    after = path.stat()
    assert (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size)
    if Path("/proc/self/fd").exists():
        opened = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
        assert str(path) not in opened


def test_default_limits_fit_this_machine() -> None:
    limits = Limits()
    assert limits.tensor_bytes > 2**28
    assert limits.file_bytes == 2**31 - 1


@pytest.mark.parametrize(
    "error",
    [
        checker.ValidationError("bad\nsecond line"),
        shape_inference.InferenceError("bad"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        DecodeError("bad"),
        RuntimeError("bad"),
        TypeError("bad"),
        IndexError("bad"),
        OverflowError("bad"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_foreign_error_is_mapped(error: Exception, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(validating.checker, "check_model", fail)
    if isinstance(error, DecodeError):
        monkeypatch.undo()
        path.write_bytes(b"\x08")
    with pytest.raises(ModelFileError) as caught:
        load(path)
    assert "\n" not in caught.value.message
    assert caught.value.__cause__ is not None


def test_checker_gets_structure_without_weights() -> None:
    model = small_model()
    big = numpy_helper.from_array(np.zeros(5000, np.float32), "big")
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=big))
    before = model.SerializeToString()
    light = without_weights(model, survey(model))
    assert model.SerializeToString() == before
    assert len(light.SerializeToString()) < 700
    assert [node.op_type for node in light.graph.node] == [node.op_type for node in model.graph.node]
    assert [tensor.name for tensor in light.graph.initializer] == ["w1", "b1", "w2"]


def test_survey_goes_everywhere() -> None:
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.ones(1), "k"), name="deep")],
        "inner",
        [],
        [],
    )
    model = small_model()
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner))
    found = survey(model)
    assert [graph.name for graph in found.graphs] == ["small", "inner", "inner"]
    assert [label(node) for node in found.nodes].count("Constant node 'deep'") == 2
    assert [held.tensor.name for held in found.tensors if held.node is None] == ["w1", "b1", "w2"]


def spoil(model: onnx.ModelProto, name: str, position: tuple[int, ...], value: float) -> None:
    values = numpy_helper.to_array(weight(model, name)).copy()
    values[position] = value
    weight(model, name).CopyFrom(numpy_helper.from_array(values, name))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize(("name", "position"), [("w1", (3, 0, 1, 2)), ("b1", (7,)), ("w2", (0, 0, 0, 0))])
def test_non_finite_weight_is_named(value: float, name: str, position: tuple[int, ...]) -> None:
    model = small_model()
    check_finite(load(model))
    spoil(model, name, position, value)
    with pytest.raises(UnsupportedModelError) as caught:
        check_finite(load(model))
    assert caught.value.message == f"weight '{name}' holds {np.float32(value)} at position {list(position)}"
    check_finite(load(model), names=[other for other in ("w1", "b1", "w2") if other != name])


@pytest.mark.parametrize("kind", ["float16", "float64"])
def test_non_finite_in_other_types(kind: str) -> None:
    model = small_model()
    values = np.full((2, 3), np.inf, dtype=kind)
    model.graph.initializer.append(numpy_helper.from_array(values, "mask"))
    check_finite(load(model))  # nobody uses it as a weight
    with pytest.raises(UnsupportedModelError, match="'mask'"):
        check_finite(load(model), names=["mask"])


@pytest.mark.parametrize(
    ("value", "reader", "allowed"),
    [(-np.inf, "Add", True), (np.inf, "Add", False), (np.nan, "Add", False), (-np.inf, "Mul", False)],
)
def test_minus_infinity_that_is_added_is_a_mask(value: float, reader: str, allowed: bool) -> None:
    model = small_model()
    model.graph.initializer.append(numpy_helper.from_array(np.array([0.0, value], np.float32), "mask"))
    model.graph.node.append(helper.make_node(reader, ["y", "mask"], ["z"]))
    with nullcontext() if allowed else pytest.raises(UnsupportedModelError, match="'mask'"):
        check_finite(load(model), names=["mask"])


def test_non_finite_constant() -> None:
    model = small_model()
    values = numpy_helper.from_array(np.array([[np.nan]], np.float32))
    model.graph.node.append(helper.make_node("Constant", [], ["k"], value=values))
    model.graph.node.append(helper.make_node("MatMul", ["y", "k"], ["z"]))
    with pytest.raises(UnsupportedModelError, match=r"'k' holds nan at position \[0, 0\]"):
        check_finite(load(model))


def test_extreme_but_finite_weights_pass() -> None:
    model = small_model()
    for position, value in enumerate((3.4e38, -3.4e38, 1e-45, -0.0)):
        spoil(model, "b1", (position,), value)
    check_finite(load(model))


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a model of 40 MB."""
    model = small_model()
    for index in range(10):
        values = np.full((1024, 1024), index, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, f"large{index}"))
    path = tmp_path_factory.mktemp("large") / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_the_checker_never_sees_the_weights(large_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What it is given is copied: with 40 MB of weights in it, loading would take four times as long as parsing.
    sizes = []
    check = checker.check_model
    monkeypatch.setattr(checker, "check_model", lambda proto: (sizes.append(proto.ByteSize()), check(proto)))
    load(large_file)
    assert len(sizes) == 1
    assert sizes[0] < 100_000


def test_import_is_light() -> None:
    code = (
        "import sys; import graphprune.model.load, graphprune.model.write;"
        "print([name for name in ('onnxruntime', 'scipy', 'torch', 'networkx', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_external_data_is_kept_as_a_reference(tmp_path: Path) -> None:
    proto = small_model()
    data = make_external(weight(proto), location="w.bin")
    (tmp_path / "w.bin").write_bytes(data)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    model = load(tmp_path / "m.onnx")
    assert model.proto.SerializeToString() == proto.SerializeToString()
    assert list(model.tensors.files) == ["w.bin"]
    assert model.tensors.array(weight(model.proto)).tobytes() == data


def test_errors_are_one_family() -> None:
    with pytest.raises(GraphPruneError) as caught:
        load("none.onnx")
    assert caught.value.exit_code == 2
    assert isinstance(TensorStore(None).files, dict)
