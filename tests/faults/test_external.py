# SPDX-License-Identifier: Apache-2.0
"""External data that reaches out, lies or breaks: read only from the model's folder, and only as declared."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from bad_files import make_external, small_model, weight
from onnx import TensorProto, helper, numpy_helper

from graphprune.errors import GraphPruneError, ModelFileError, UnsafeModelError
from graphprune.model.files import external
from graphprune.model.load import Limits, Model, load

SIZE = 8 * 3 * 3 * 3 * 4
EXPECTED = numpy_helper.to_array(weight(small_model()))


def write_model(folder: Path, entries: dict[str, str], name: str = "m.onnx") -> tuple[Path, bytes]:
    """Write the small model with external entries for 'w1'; return its path and the bytes of 'w1'."""
    model = small_model()
    data = make_external(weight(model), **entries)
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(model.SerializeToString())
    return folder / name, data


def read(model: Model) -> np.ndarray:
    return model.tensors.array(weight(model.proto))


@dataclass(frozen=True)
class Entries:
    """External data entries beside a good data file, and the error that must follow."""

    id: str
    entries: dict[str, str]
    error: type[GraphPruneError]
    gist: str
    twice: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.id


def at(location: str) -> dict[str, str]:
    return {"location": location}


ENTRIES = (
    Entries("parent", at("../w.bin"), UnsafeModelError, r"'w1'.*'\.\./w\.bin' leaves the model's folder"),
    Entries("parent_inside", at("a/../../w.bin"), UnsafeModelError, "leaves the model's folder"),
    Entries("absolute", at("/etc/passwd"), UnsafeModelError, "'/etc/passwd' is not a plain relative path"),
    Entries("drive", at("C:\\w.bin"), UnsafeModelError, "not a plain relative path"),
    Entries("drive_relative", at("c:w.bin"), UnsafeModelError, "not a plain relative path"),
    Entries("share", at("\\\\server\\w.bin"), UnsafeModelError, "not a plain relative path"),
    Entries("url", at("file://w.bin"), UnsafeModelError, "not a plain relative path"),
    Entries("home", at("~/w.bin"), UnsafeModelError, "not a plain relative path"),
    Entries("memory_address", at("*/_ORT_MEM_ADDR_/*"), UnsafeModelError, "not a plain relative path"),
    Entries("nul", at("w.bin\0x"), UnsafeModelError, "not a plain relative path"),
    Entries("newline", at("w.bin\n"), UnsafeModelError, "not a plain relative path"),
    Entries("empty", at(""), UnsafeModelError, "without a location"),
    Entries("dot", at("."), UnsafeModelError, "leaves the model's folder"),
    Entries("no_location", {"offset": "0"}, UnsafeModelError, "without a location"),
    Entries("long", at("w" * 5000), UnsafeModelError, "has 5000 characters"),
    Entries("too_long_for_the_system", at("w" * 300), ModelFileError, "cannot be opened"),
    Entries("location_twice", at("w.bin"), UnsafeModelError, "'location' is given twice", twice=at("v.bin")),
    Entries("unknown_key", {**at("w.bin"), "colour": "1"}, UnsafeModelError, "unknown external data key 'colour'"),
    Entries("dunder_key", {**at("w.bin"), "__class__": "1"}, UnsafeModelError, "unknown external data key '__class__'"),
    Entries("offset_negative", {**at("w.bin"), "offset": "-4"}, UnsafeModelError, "offset '-4' is not a number"),
    Entries("offset_word", {**at("w.bin"), "offset": "abc"}, UnsafeModelError, "offset 'abc' is not a number"),
    Entries("offset_underscore", {**at("w.bin"), "offset": "1_0"}, UnsafeModelError, "not a number"),
    Entries("offset_other_digits", {**at("w.bin"), "offset": "٤"}, UnsafeModelError, "not a number"),
    Entries("offset_5000_digits", {**at("w.bin"), "offset": "9" * 5000}, UnsafeModelError, "not a number"),
    Entries("offset_beyond", {**at("w.bin"), "offset": "2000", "length": str(SIZE)}, ModelFileError, "at offset 2000"),
    Entries("offset_last_byte", {**at("w.bin"), "offset": "1", "length": str(SIZE)}, ModelFileError, "at offset 1"),
    Entries("overflow", {**at("w.bin"), "offset": "9" * 19, "length": str(SIZE)}, ModelFileError, "of 864 bytes"),
    Entries("length_negative", {**at("w.bin"), "length": "-1"}, UnsafeModelError, "length '-1' is not a number"),
    Entries("length_too_small", {**at("w.bin"), "length": "860"}, ModelFileError, "needs 864 bytes.*gives 860"),
    Entries("length_too_large", {**at("w.bin"), "length": "868"}, ModelFileError, "needs 864 bytes.*gives 868"),
    Entries("checksum_wrong", {**at("w.bin"), "checksum": "0" * 40}, ModelFileError, "has checksum"),
    Entries("checksum_malformed", {**at("w.bin"), "checksum": "sha1"}, ModelFileError, "not a SHA-1 digest"),
    Entries("missing_file", at("v.bin"), ModelFileError, "'w1'.*'v.bin' does not exist"),
    Entries("folder", at("sub"), UnsafeModelError, "not a regular file"),
)


@pytest.mark.parametrize("case", ENTRIES, ids=str)
def test_entries_are_refused(case: Entries, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    path, data = write_model(folder, case.entries)
    for place in (folder, tmp_path):
        (place / "w.bin").write_bytes(data)
    (folder / "sub").mkdir()
    if case.twice:
        model = onnx.load(path, load_external_data=False)
        for key, value in case.twice.items():
            weight(model).external_data.add(key=key, value=value)
        path.write_bytes(model.SerializeToString())
    with pytest.raises(case.error, match=case.gist) as caught:
        load(path)
    assert type(caught.value) is case.error


@pytest.mark.parametrize("surplus", [-1, 4], ids=["short", "long"])
def test_file_of_another_size_than_the_tensor(surplus: int, tmp_path: Path) -> None:
    path, data = write_model(tmp_path, at("w.bin"))
    (tmp_path / "w.bin").write_bytes((data + bytes(8))[: SIZE + surplus])
    with pytest.raises(ModelFileError, match=f"'w1'.*needs {SIZE} bytes.*gives {SIZE + surplus}"):
        load(path)


def link_file(secret: Path, folder: Path) -> None:
    (folder / "w.bin").symlink_to(secret / "w.bin")


def link_folder(secret: Path, folder: Path) -> None:
    (folder / "sub").symlink_to(secret)


def link_to_itself(secret: Path, folder: Path) -> None:
    (folder / "w.bin").symlink_to("w.bin")


def hard_link(secret: Path, folder: Path) -> None:
    os.link(secret / "w.bin", folder / "w.bin")


def pipe(secret: Path, folder: Path) -> None:
    os.mkfifo(folder / "w.bin")


def device(secret: Path, folder: Path) -> None:
    (folder / "w.bin").symlink_to("/dev/zero")


@pytest.mark.skipif(os.name == "nt", reason="POSIX links and pipes")
@pytest.mark.parametrize(
    ("make", "location", "error", "gist"),
    [
        (link_file, "w.bin", UnsafeModelError, "leads out of the model's folder"),
        (link_folder, "sub/w.bin", UnsafeModelError, "leads out of the model's folder"),
        (link_to_itself, "w.bin", ModelFileError, "cannot be opened"),
        (hard_link, "w.bin", UnsafeModelError, "has 2 hard links"),
        (pipe, "w.bin", UnsafeModelError, "not a regular file"),
        (device, "w.bin", UnsafeModelError, "leads out of the model's folder"),
    ],
    ids=["link", "parent_link", "link_loop", "hard_link", "pipe", "device"],
)
def test_special_files(
    make: Callable[[Path, Path], None], location: str, error: type[GraphPruneError], gist: str, tmp_path: Path
) -> None:
    secret, folder = tmp_path / "secret", tmp_path / "model"
    path, data = write_model(folder, at(location))
    secret.mkdir()
    (secret / "w.bin").write_bytes(data)
    make(secret, folder)
    with pytest.raises(error, match=gist) as caught:
        load(path)
    if make is hard_link:
        assert caught.value.hint == "make real copies of the files"


def test_cache_of_links_into_one_folder(tmp_path: Path) -> None:
    """Download caches keep files in one folder under digests, and link to them from another."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    path, data = write_model(blobs, at("w.bin"), name="aaaa")
    snapshot.mkdir()
    (blobs / "bbbb").write_bytes(data)
    (snapshot / "m.onnx").symlink_to("../blobs/aaaa")
    (snapshot / "w.bin").symlink_to("../blobs/bbbb")
    np.testing.assert_array_equal(read(load(snapshot / "m.onnx")), EXPECTED)
    with pytest.raises(ModelFileError, match="does not exist"):
        load(path)


@pytest.mark.parametrize("location", ["w.bin", "./w.bin", "sub/w.bin", "weights of ü.bin"])
def test_good_locations(location: str, tmp_path: Path) -> None:
    path, data = write_model(tmp_path, at(location))
    (tmp_path / "sub").mkdir()
    (tmp_path / location).write_bytes(data)
    np.testing.assert_array_equal(read(load(path)), EXPECTED)


def test_offset_length_and_checksum(tmp_path: Path) -> None:
    content = b"\1" * 64 + weight(small_model()).raw_data + b"\2" * 8
    digest = hashlib.sha1(content, usedforsecurity=False).hexdigest().upper()
    path, _ = write_model(tmp_path, {**at("w.bin"), "offset": "64", "length": str(SIZE), "checksum": digest})
    (tmp_path / "w.bin").write_bytes(content)
    np.testing.assert_array_equal(read(load(path)), EXPECTED)


def test_other_working_directory_with_a_decoy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, data = write_model(tmp_path / "model", at("w.bin"))
    (tmp_path / "model" / "w.bin").write_bytes(data)
    (tmp_path / "w.bin").write_bytes(bytes(SIZE))
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(read(load(path)), EXPECTED)
    np.testing.assert_array_equal(read(load("model/m.onnx")), EXPECTED)


def test_file_swapped_after_loading_is_not_read(tmp_path: Path) -> None:
    path, data = write_model(tmp_path, at("w.bin"))
    (tmp_path / "w.bin").write_bytes(data)
    model = load(path)
    (tmp_path / "other").write_bytes(bytes(SIZE))
    (tmp_path / "other").replace(tmp_path / "w.bin")
    np.testing.assert_array_equal(read(model), EXPECTED)


def test_link_put_in_place_after_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, data = write_model(tmp_path / "model", at("w.bin"))
    (tmp_path / "secret.bin").write_bytes(data)
    (tmp_path / "model" / "w.bin").symlink_to(tmp_path / "secret.bin")
    monkeypatch.setattr(external.os.path, "realpath", os.path.abspath)  # as if it had been a plain file then
    with pytest.raises(ModelFileError, match="cannot be opened"):
        load(path)


def test_external_and_raw_data(tmp_path: Path) -> None:
    model = small_model()
    data = weight(model).raw_data
    make_external(weight(model), location="w.bin")
    weight(model).raw_data = data
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UnsafeModelError, match="'w1' is marked as external and also holds data"):
        load(tmp_path / "m.onnx")


def test_model_in_memory_has_no_folder() -> None:
    model = small_model()
    make_external(weight(model), location="w.bin")
    with pytest.raises(ModelFileError, match="given in memory") as caught:
        load(model)
    assert "onnx.load" in (caught.value.hint or "")


def two_tensors(folder: Path, *offsets: int, size: int = 64) -> Path:
    model = small_model()
    for index, offset in enumerate(offsets):
        tensor = model.graph.initializer.add(name=f"t{index}", data_type=TensorProto.FLOAT, dims=[size // 4])
        make_external(tensor, location="./t.bin" if index % 2 else "t.bin", offset=str(offset), length=str(size))
    (folder / "t.bin").write_bytes(bytes(range(128)))
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


def test_partly_overlapping_tensors(tmp_path: Path) -> None:
    with pytest.raises(UnsafeModelError, match="'t1' and tensor 't0' overlap"):
        load(two_tensors(tmp_path, 32, 0))


def test_equal_and_adjacent_ranges(tmp_path: Path) -> None:
    model = load(two_tensors(tmp_path, 0, 64, 0, 64))
    first, _, third, _ = (model.tensors.array(weight(model.proto, f"t{index}")) for index in range(4))
    assert first.tobytes() == third.tobytes() == bytes(range(64))
    assert np.shares_memory(first, third)


def test_many_tensors_on_one_region(tmp_path: Path) -> None:
    path = two_tensors(tmp_path, *[0] * 50)
    with pytest.raises(UnsafeModelError, match="declare 4224 bytes, more than the limit 4128"):
        load(path, limits=Limits(tensor_bytes=4000))


def test_a_data_file_may_be_larger_than_memory(tmp_path: Path) -> None:
    path = two_tensors(tmp_path, 0, 64)
    assert load(path, limits=Limits(tensor_bytes=1100))
    with pytest.raises(UnsafeModelError, match="the data files have 128 bytes, more than the limit 100"):
        load(path, limits=Limits(mapped_bytes=100))


def in_constant(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def in_branch(model: onnx.ModelProto, tensor: TensorProto) -> None:
    nodes = [helper.make_node("Identity", ["q"], ["inner"])]
    output = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    branch = helper.make_graph(nodes, "branch", [], [output], [tensor])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(helper.make_node("If", ["yes"], ["z"], then_branch=branch, else_branch=branch))


def in_function(model: onnx.ModelProto, tensor: TensorProto) -> None:
    node = helper.make_node("Constant", [], ["b"], value=tensor)
    imports = [helper.make_opsetid("", 17)]
    model.opset_import.append(helper.make_opsetid("d", 1))
    model.functions.append(helper.make_function("d", "f", ["a"], ["b"], [node], imports))


def in_sparse_attribute(model: onnx.ModelProto, tensor: TensorProto) -> None:
    sparse = onnx.SparseTensorProto(values=tensor, dims=[9])
    sparse.indices.CopyFrom(numpy_helper.from_array(np.zeros(1, np.int64), "i"))
    node = helper.make_node("Constant", [], ["c"])
    node.attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse)
    model.graph.node.append(node)


@pytest.mark.parametrize("put", [in_constant, in_branch, in_function, in_sparse_attribute])
def test_hidden_places_are_checked_too(put: Callable[[onnx.ModelProto, TensorProto], None], tmp_path: Path) -> None:
    model = small_model()
    tensor = TensorProto(name="q", data_type=TensorProto.FLOAT, dims=[1])
    make_external(tensor, location="../secret.bin")
    (tmp_path / "secret.bin").write_bytes(b"\0\0\x80\x3f")
    put(model, tensor)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UnsafeModelError, match=r"'\.\./secret\.bin' leaves the model's folder"):
        load(tmp_path / "model" / "m.onnx")


def test_constant_with_external_data_loads(tmp_path: Path) -> None:
    model = small_model()
    tensor = numpy_helper.from_array(np.arange(400, dtype=np.float32), "q")
    data = make_external(tensor, location="q.bin")
    in_constant(model, tensor)
    (tmp_path / "q.bin").write_bytes(data)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    loaded = load(tmp_path / "m.onnx")
    values = loaded.tensors.array(loaded.proto.graph.node[3].attribute[0].t)
    np.testing.assert_array_equal(values, np.arange(400, dtype=np.float32))


def test_digest_covers_the_data_file(tmp_path: Path) -> None:
    path, data = write_model(tmp_path, at("w.bin"))
    (tmp_path / "w.bin").write_bytes(data)
    before = load(path).sha256
    assert load(path).sha256 == before
    (tmp_path / "w.bin").write_bytes(data[:-1] + b"\x01")
    assert load(path).sha256 != before
