# SPDX-License-Identifier: Apache-2.0
"""Models with data files: cut when written, piece by piece, with the same result as in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto
from quantised_models import converted, float_model, quantised

import graphprune
import graphprune.model.files.external as external
import graphprune.model.tensors as tensors
import graphprune.model.write as write
import graphprune.surgery.cutting as cutting
import graphprune.verification.fidelity.check_tensors as fidelity_tensors
from graphprune import BudgetRequest, Model, SolveOptions
from graphprune.cli import main
from graphprune.errors import UnsafeModelError, VerificationError
from graphprune.model.validity.survey import survey
from graphprune.verification.fidelity.check_fidelity import check_fidelity

FORMS: dict[str, Any] = {
    "float32": float_model,
    "bfloat16": lambda: converted(TensorProto.BFLOAT16),
    "int8": lambda: quantised("QDQ"),
    "int4": lambda: quantised("QDQ", "QInt4"),
}


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the sizes at which work is done in pieces be those of small tensors."""
    monkeypatch.setattr(cutting, "_DEFERRED", 64)
    monkeypatch.setattr(cutting, "_PIECE", 100)
    monkeypatch.setattr(tensors, "_PIECE", 128)
    monkeypatch.setattr(tensors, "_RESIDENT", 200)
    monkeypatch.setattr(external, "_PIECE", 1000)
    monkeypatch.setattr(fidelity_tensors, "_WHOLE", 60)
    monkeypatch.setattr(write, "KEPT_OUTSIDE", 500)
    monkeypatch.setattr(write, "_SMALLEST_OUTSIDE", 16)


def with_data_file(proto: ModelProto, folder: Path) -> Path:
    """Write a model whose weights lie in a data file."""
    path = folder / "net.onnx"
    copy = ModelProto()
    copy.CopyFrom(proto)
    onnx.save(copy, path, save_as_external_data=True, location="net.data", size_threshold=16)
    return path


def bits(model: Model) -> dict[str, tuple[int, bytes]]:
    return {
        held.tensor.name: (held.tensor.data_type, model.tensors.array(held.tensor).tobytes())
        for held in survey(model.proto).tensors
    }


@pytest.mark.parametrize("form", FORMS)
def test_the_result_is_that_of_a_model_in_memory(form: str, tmp_path: Path) -> None:
    proto = FORMS[form]()
    (tmp_path / "in").mkdir()
    large = graphprune.load(with_data_file(proto, tmp_path / "in"))
    budget, options = BudgetRequest("flops", 0.4), SolveOptions(round_to=1)
    plan = graphprune.solve(large, budget, options)
    pruned = graphprune.apply(large, plan)
    assert any(not tensor.raw_data and tensor.external_data for tensor in pruned.proto.graph.initializer)
    assert graphprune.verify(large, pruned, plan).status == "verified"
    path = graphprune.save(pruned, tmp_path / "out.onnx")

    small = graphprune.load(proto)
    expected = graphprune.apply(small, graphprune.solve(small, budget, options))
    written = graphprune.load(path)
    assert bits(written) == bits(pruned) == bits(expected)
    assert [file.path.parent for file in written.tensors.files.values()] == [tmp_path]
    onnx.checker.check_model(str(path))


def test_the_command_line_writes_a_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = with_data_file(float_model(), tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert main(["solve", str(path), "--flops", "0.5"]) == 0
    assert "tensors equal" in capsys.readouterr().out
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    data = list(tmp_path.glob("net.pruned-*.data"))
    assert len(data) == 1
    result = onnx.load(tmp_path / "net.pruned.onnx")
    assert {tensor.dims[0] for tensor in result.graph.initializer if tensor.name == "stem"} == {8}
    pruned, plan = str(tmp_path / "net.pruned.onnx"), str(tmp_path / "net.plan.json")
    assert main(["verify", str(path), pruned, plan]) == 0


def test_a_file_cannot_name_what_is_deferred(tmp_path: Path) -> None:
    path = with_data_file(float_model(), tmp_path)
    model = graphprune.load(path)
    pruned = graphprune.apply(model, graphprune.solve(model, BudgetRequest("flops", 0.5)))
    (tmp_path / "copy.onnx").write_bytes(pruned.proto.SerializeToString())
    with pytest.raises(UnsafeModelError, match="not a plain relative path"):
        graphprune.load(tmp_path / "copy.onnx")


@pytest.mark.parametrize("fault", ["value", "short", "long"])
def test_a_wrong_piece_is_seen(fault: str, tmp_path: Path) -> None:
    model = graphprune.load(with_data_file(float_model(), tmp_path))
    analysis = graphprune.analyze(model)
    plan = graphprune.solve(analysis, BudgetRequest("flops", 0.5))
    pruned = graphprune.apply(analysis, plan)
    tensor = next(tensor for tensor in pruned.proto.graph.initializer if tensor.name == "hidden")
    right = b"".join(model.tensors.pieces(tensor))
    wrong = {"value": right[:200] + b"x" + right[201:], "short": right[:-4], "long": right + bytes(4)}[fault]
    del tensor.external_data[:]
    model.tensors.defer(tensor, lambda: iter([wrong[:37], b"", wrong[37:]]))
    with pytest.raises(VerificationError, match="'hidden'"):
        check_fidelity(analysis, pruned, plan)
    del tensor.external_data[:]
    model.tensors.defer(tensor, lambda: iter([right[:37], b"", right[37:], b""]))
    check_fidelity(analysis, pruned, plan)


def test_reading_does_not_keep_the_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = []
    monkeypatch.setattr(external.DataFile, "release", lambda file: released.append(file.path.name))
    model = graphprune.load(with_data_file(float_model(), tmp_path))
    names = [tensor.name for tensor in model.proto.graph.initializer]
    first = [np.array(model.tensors.array(tensor)) for tensor in model.proto.graph.initializer]
    assert released
    assert set(released) == {"net.data"}
    again = [model.tensors.array(tensor) for tensor in model.proto.graph.initializer]
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True)), names
