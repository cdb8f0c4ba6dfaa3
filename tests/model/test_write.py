# SPDX-License-Identifier: Apache-2.0
"""Writing a model: the same bytes or the same values, in one file or in a pair."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from bad_files import make_external, small_model, weight
from onnx import TensorProto, helper, numpy_helper

import graphprune.model.write as writing
from graphprune.errors import OutputError
from graphprune.model.load import Model, load
from graphprune.model.tensors import is_external
from graphprune.model.validity.survey import survey
from graphprune.model.write import save, write_bytes_atomically


def rich_model() -> onnx.ModelProto:
    """Return a model with what other tools lose, with tensors of many kinds and places."""
    model = small_model()
    model.metadata_props.add(key="author", value="somebody")
    model.graph.node[0].doc_string = "first"
    rng = np.random.default_rng(3)
    model.graph.initializer.append(numpy_helper.from_array(rng.standard_normal((40, 40)).astype(np.float32), "large"))
    model.graph.initializer.append(helper.make_tensor("typed", TensorProto.INT64, [400], range(400)))
    model.graph.initializer.append(helper.make_tensor("four_bits", TensorProto.INT4, [3], [1, 2, 3]))
    constant = numpy_helper.from_array(rng.standard_normal(600), "")
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=constant))
    return model


def values(model: Model) -> list[bytes]:
    return [model.tensors.array(held.tensor).tobytes() for held in survey(model.proto).tensors]


def externals(model: Model) -> list[str]:
    return [held.tensor.name for held in survey(model.proto).tensors if is_external(held.tensor)]


@pytest.fixture
def from_files(tmp_path: Path) -> Model:
    """Load a model with one initializer and one constant in a data file."""
    proto = rich_model()
    large, constant = weight(proto, "large"), proto.graph.node[-1].attribute[0].t
    data = make_external(large, location="in.bin", offset="0", length="6400")
    data += make_external(constant, location="in.bin", offset="6400", length="4800")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "in.bin").write_bytes(data)
    (tmp_path / "in" / "m.onnx").write_bytes(proto.SerializeToString())
    return load(tmp_path / "in" / "m.onnx")


def test_unchanged_model_is_written_byte_for_byte(tmp_path: Path) -> None:
    data = rich_model().SerializeToString() + b"\xfa\x3f\x03abc"
    (tmp_path / "a.onnx").write_bytes(data)
    assert save(load(tmp_path / "a.onnx"), str(tmp_path / "b.onnx")) == tmp_path / "b.onnx"
    assert (tmp_path / "b.onnx").read_bytes() == data


def test_external_data_goes_into_the_file(from_files: Model, tmp_path: Path) -> None:
    before = from_files.proto.SerializeToString()
    result = load(save(from_files, tmp_path / "o.onnx"))
    assert result.proto.SerializeToString() == rich_model().SerializeToString()
    assert from_files.proto.SerializeToString() == before
    assert [path.name for path in tmp_path.glob("o*")] == ["o.onnx"]


@pytest.mark.parametrize("source", ["memory", "files"])
def test_pair_holds_the_same_values(source: str, from_files: Model, tmp_path: Path) -> None:
    model = load(rich_model()) if source == "memory" else from_files
    before = model.proto.SerializeToString()
    result = load(save(model, tmp_path / "o.onnx", inline_limit=5000))
    assert values(result) == values(load(rich_model()))
    assert externals(result) == ["large"]
    assert model.proto.SerializeToString() == before
    assert [name.startswith("o-") for name in result.tensors.files] == [True]
    onnx.checker.check_model(str(tmp_path / "o.onnx"))
    inner = onnx.load(tmp_path / "o.onnx")
    np.testing.assert_array_equal(
        numpy_helper.to_array(weight(inner, "large")), numpy_helper.to_array(weight(rich_model(), "large"))
    )


def test_pair_and_back(from_files: Model, tmp_path: Path) -> None:
    pair = load(save(from_files, tmp_path / "o.onnx", inline_limit=0))
    single = load(save(pair, tmp_path / "p.onnx"))
    assert single.proto.SerializeToString() == rich_model().SerializeToString()


def test_data_file_is_named_by_its_content(tmp_path: Path) -> None:
    names = []
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / folder).mkdir()
        model = load(rich_model())
        model.proto.graph.initializer.append(numpy_helper.from_array(np.full(400, seed, np.float32), "seed"))
        save(model, tmp_path / folder / "o.onnx", inline_limit=0)
        names.append(next((tmp_path / folder).glob("*.data")).name)
    assert names[0] == names[1] != names[2]
    assert (tmp_path / "a" / "o.onnx").read_bytes() == (tmp_path / "b" / "o.onnx").read_bytes()


def test_data_file_has_the_exact_size_every_time(from_files: Model, tmp_path: Path) -> None:
    sizes = []
    for _ in range(3):
        save(from_files, tmp_path / "o.onnx", force=True, inline_limit=0)
        sizes.append([path.stat().st_size for path in tmp_path.glob("*.data")])
    assert sizes == [[6400]] * 3


def test_tensors_start_on_pages(tmp_path: Path) -> None:
    proto = rich_model()
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((50, 50), np.float32), "second"))
    result = load(save(load(proto), tmp_path / "o.onnx", inline_limit=0))
    found = {entry.key: entry.value for entry in weight(result.proto, "second").external_data}
    assert found["offset"] == "8192"
    assert found["length"] == "10000"
    assert (tmp_path / found["location"]).stat().st_size == 18192


@pytest.mark.parametrize("stem", ["~home", "a\\b", "ü ü", "c:d", "new\nline"])
def test_strange_output_names_give_a_readable_pair(stem: str, tmp_path: Path) -> None:
    result = load(save(load(rich_model()), tmp_path / f"{stem}.onnx", inline_limit=0))
    assert values(result) == values(load(rich_model()))


def test_another_data_file_of_that_name_is_not_replaced(tmp_path: Path) -> None:
    model = load(rich_model())
    save(model, tmp_path / "o.onnx", inline_limit=0)
    data = next(tmp_path.glob("*.data"))
    good = data.read_bytes()
    data.write_bytes(b"something else")
    (tmp_path / "o.onnx").unlink()
    with pytest.raises(OutputError, match=r"\.data' exists"):
        save(model, tmp_path / "o.onnx", inline_limit=0)
    assert data.read_bytes() == b"something else"
    assert not (tmp_path / "o.onnx").exists()
    save(model, tmp_path / "o.onnx", force=True, inline_limit=0)
    assert data.read_bytes() == good


def test_input_data_file_is_reused_but_never_written(tmp_path: Path) -> None:
    """An output of equal content and stem would get the very data file it reads from."""
    first = load(save(load(rich_model()), tmp_path / "o.onnx", inline_limit=0))
    data = next(tmp_path.glob("*.data"))
    before = (data.stat().st_ino, data.stat().st_mtime_ns, data.read_bytes())
    save(first, tmp_path / "o.copy", inline_limit=0)
    assert (data.stat().st_ino, data.stat().st_mtime_ns, data.read_bytes()) == before
    assert values(load(tmp_path / "o.copy")) == values(first)
    data.write_bytes(before[2][::-1])  # the input changes under us, and no longer has the content of its name
    second = load(tmp_path / "o.onnx")
    renamed = save(second, tmp_path / "o.other", inline_limit=0)
    assert data.read_bytes() == before[2][::-1]
    assert values(load(renamed)) == values(second)


def test_model_too_large_for_protobuf_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Large:
        def SerializeToString(self) -> bytes:  # noqa: N802 (protobuf's name)
            raise ValueError("Failed to serialize proto")

    with pytest.raises(OutputError, match="too large"):
        writing._serialise(Large())  # type: ignore[arg-type]
    monkeypatch.setattr(writing, "_serialise", lambda proto: b"".join([]))
    assert save(load(small_model()), tmp_path / "o.onnx").stat().st_size == 0


def test_write_bytes(tmp_path: Path) -> None:
    write_bytes_atomically(b"one", tmp_path / "plan.json", force=False)
    with pytest.raises(OutputError, match="exists"):
        write_bytes_atomically(b"two", tmp_path / "plan.json", force=False)
    write_bytes_atomically(b"two", tmp_path / "plan.json", force=True)
    assert (tmp_path / "plan.json").read_bytes() == b"two"
    write_bytes_atomically(b"", tmp_path / "empty", force=False)
    assert (tmp_path / "empty").read_bytes() == b""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "plan.json"]
