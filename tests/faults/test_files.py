# SPDX-License-Identifier: Apache-2.0
"""Files that are not a readable ONNX model: each gets one error that says what it is and what to do."""

from __future__ import annotations

import gzip
import io
import os
import random
import zipfile
from pathlib import Path

import onnx
import pytest
from bad_files import nested_ifs, small_model

import graphprune.model.load as loading
from graphprune.errors import GraphPruneError, ModelFileError, UnsafeModelError
from graphprune.model.files.sniff import TEXT_SUFFIXES
from graphprune.model.load import Limits, load


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(small_model().SerializeToString())
    return path


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"none\.onnx.*No such file"):
        load(tmp_path / "none.onnx")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is a folder"):
        load(tmp_path)


def test_path_with_nul() -> None:
    with pytest.raises(ModelFileError, match="null byte"):
        load("a\0b.onnx")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_no_permission(model_file: Path) -> None:
    model_file.chmod(0)
    with pytest.raises(ModelFileError, match="Permission denied"):
        load(model_file)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(ModelFileError, match="only regular files are read"):
        load(tmp_path / "pipe.onnx")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no device files")
def test_device_is_not_read() -> None:
    with pytest.raises(ModelFileError, match="only regular files are read"):
        load("/dev/zero")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").touch()
    with pytest.raises(ModelFileError, match="is empty"):
        load(tmp_path / "m.onnx")


def zip_file() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"weights")
    return buffer.getvalue()


LOOKALIKES = {
    "git_lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "Git LFS", "git lfs pull"),
    "html": (b"<!DOCTYPE html><html><title>404</title></html>", "HTML", "download"),
    "html_after_bom": (b"\xef\xbb\xbf\n <html></html>", "HTML", "download"),
    "text": (b"accuracy 93.4 %\n", "text", "binary ONNX"),
    "utf16": ("text".encode("utf-16"), "text", "binary ONNX"),
    "json": (b'{"ir_version": 8}', "JSON", "binary ONNX"),
    "torch_zip": (zip_file(), "PyTorch", "export"),
    "pickle": (b"\x80\x02}q\x00.", "pickle", "export"),
    "safetensors": (b"\x40\0\0\0\0\0\0\0" + b'{"w":{"dtype":"F32"}}', "safetensors", "export"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(20), "TensorFlow Lite", "tf2onnx"),
    "ort_format": (b"\x28\0\0\0ORTM" + bytes(20), "ORT-format", "onnx"),
    "gzip": (gzip.compress(b"model", mtime=0), "gzip", "unpack"),
    "tar": (b"m.onnx".ljust(257, b"\0") + b"ustar\x0000".ljust(255, b"\0"), "tar archive", "unpack"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(8), "Keras", "tf2onnx"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(8), "PNG", "onnx"),
}


@pytest.mark.parametrize("name", LOOKALIKES)
def test_lookalike_is_named(name: str, tmp_path: Path) -> None:
    content, what, hint = LOOKALIKES[name]
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelFileError, match=f"looks like .*{what}") as caught:
        load(tmp_path / "m.onnx")
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("content", [b"\xff\xfe\xfd\xfc" * 9, b"\0" * 64, bytes(range(200, 216)) + b"\xff" * 64])
def test_unknown_bytes(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "encrypted.onnx").write_bytes(content)
    with pytest.raises(ModelFileError):
        load(tmp_path / "encrypted.onnx")


@pytest.mark.parametrize("suffix", sorted(TEXT_SUFFIXES))
def test_text_suffix(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    path.write_bytes(small_model().SerializeToString())
    with pytest.raises(ModelFileError, match="only binary ONNX is read"):
        load(path)


def test_truncated_file_says_its_size(model_file: Path) -> None:
    data = model_file.read_bytes()
    model_file.write_bytes(data[:-10])
    with pytest.raises(ModelFileError, match=f"{len(data) - 10} bytes.*truncated or corrupt"):
        load(model_file)


def test_two_models_in_one_file(model_file: Path) -> None:
    model_file.write_bytes(model_file.read_bytes() * 2)
    with pytest.raises(ModelFileError, match="twice") as caught:
        load(model_file)
    assert "two models" in (caught.value.hint or "")


@pytest.mark.parametrize("name", [b"w1", b"r", b"small", b"Relu"])
def test_invalid_utf8(name: bytes, model_file: Path) -> None:
    data = model_file.read_bytes()
    assert name in data
    model_file.write_bytes(data.replace(name, b"\xff" * len(name)))
    with pytest.raises(ModelFileError, match="not valid UTF-8"):
        load(model_file)


def test_unknown_fields_are_kept(model_file: Path) -> None:
    data = model_file.read_bytes() + b"\xfa\x3f\x03abc"  # field 1023, length-delimited
    model_file.write_bytes(data)
    assert load(model_file).proto.SerializeToString() == data


def test_file_over_the_size_limit(model_file: Path) -> None:
    with pytest.raises(UnsafeModelError, match="bytes, more than the limit 100") as caught:
        load(model_file, limits=Limits(file_bytes=100))
    assert "external data" in (caught.value.hint or "")


def test_sparse_file_over_two_gib_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "m.onnx").open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(UnsafeModelError, match="2147483648 bytes"):
        load(tmp_path / "m.onnx")


@pytest.mark.parametrize("depth", [17, 25])
def test_deep_nesting(depth: int, tmp_path: Path) -> None:
    data = nested_ifs(depth).SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(UnsafeModelError, match="nest"):
        load(tmp_path / "m.onnx")


def test_nesting_beyond_what_protobuf_reads(tmp_path: Path) -> None:
    # protobuf refuses to serialise this, so the bytes are put together: a graph in an attribute in a node, 60 times
    data = b"\x0a\x00"
    for _ in range(60):
        for tag in (b"\x32", b"\x2a", b"\x0a"):  # AttributeProto.g, NodeProto.attribute, GraphProto.node
            data = tag + length_prefix(data) + data
    (tmp_path / "m.onnx").write_bytes(b"\x3a" + length_prefix(data) + data)
    with pytest.raises(UnsafeModelError, match="depth limit"):
        load(tmp_path / "m.onnx")


def length_prefix(data: bytes) -> bytes:
    size, prefix = len(data), bytearray()
    while size >= 128:
        prefix.append(size & 127 | 128)
        size >>= 7
    return bytes([*prefix, size])


def test_nesting_within_the_limit(tmp_path: Path) -> None:
    assert load(nested_ifs(16)).name == "main"


def test_file_that_changes_while_it_is_read(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamps = iter(range(9))
    real = loading.FileStamp.of
    monkeypatch.setattr(
        loading.FileStamp, "of", lambda status: loading.FileStamp(0, 0, real(status).size, next(stamps))
    )
    with pytest.raises(ModelFileError, match="changed while it was read"):
        load(model_file)


def test_file_that_changes_before_it_is_hashed(model_file: Path) -> None:
    model = load(model_file)
    model_file.write_bytes(small_model(1).SerializeToString() + b"\xfa\x3f\x03abc")
    with pytest.raises(ModelFileError, match="changed after it was loaded"):
        _ = model.sha256


def test_symbolic_link(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "link.onnx").symlink_to(model_file)
    model = load(tmp_path / "link.onnx")
    assert model.name == "link"
    assert model.proto.graph.name == "small"


def test_link_loop(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").symlink_to("a.onnx")
    with pytest.raises(ModelFileError, match="cannot be read"):
        load(tmp_path / "a.onnx")


def test_memory_error_is_mapped(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(loading, "_parse", no_memory)
    with pytest.raises(UnsafeModelError, match="not enough memory"):
        load(model_file)


def test_every_truncation(tmp_path: Path) -> None:
    data = small_model().SerializeToString()
    path = tmp_path / "m.onnx"
    accepted = 0
    for size in range(len(data)):
        path.write_bytes(data[:size])
        try:
            load(path)
            accepted += 1
        except GraphPruneError as error:
            assert error.message
    # Nothing but the whole file is accepted, because the operator sets come last in it.
    assert accepted == 0


SEEDS = {"small": small_model, "nested": lambda: nested_ifs(4)}


@pytest.mark.parametrize("name", SEEDS)
def test_bit_flips(name: str, tmp_path: Path) -> None:
    data = SEEDS[name]().SerializeToString()
    path = tmp_path / "m.onnx"
    draw = random.Random(20250101)
    outcomes = {"loaded": 0, "refused": 0}
    for _ in range(1500):
        damaged = bytearray(data)
        for _ in range(draw.choice((1, 1, 1, 8))):
            damaged[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            model = load(path)
            for tensor in model.proto.graph.initializer:
                model.tensors.array(tensor)
            outcomes["loaded"] += 1
        except GraphPruneError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 100
    assert outcomes["loaded"] > 100


def test_parse_accepts_what_was_serialised() -> None:
    assert onnx.ModelProto.FromString(small_model().SerializeToString()) == small_model()
