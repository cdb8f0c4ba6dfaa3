# SPDX-License-Identifier: Apache-2.0
"""Files of samples and settings that are damaged on purpose: one clear error each, and no memory spent on them."""

from __future__ import annotations

import struct
import tracemalloc
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from graphprune.data.open_source import open_source
from graphprune.data.preprocessing import SETTINGS, Preprocessing, read_settings
from graphprune.data.signature import InputSpec
from graphprune.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

VECTOR = InputSpec("x", np.dtype(np.float32), (None, 4))
IMAGE = InputSpec("image", np.dtype(np.float32), (None, 3, 8, 8))
MIB = 1 << 20


def _npy(header: str, data: bytes = b"\0" * 64) -> bytes:
    text = header.encode("latin1").ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def _header(descr: str = "'<f4'", shape: str = "(4, 4)", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}"


HEADERS = {
    "unfinished": "{'descr': '<f4', 'fortran_order': False, 'shape': (4,",
    "unfinished-text": "{'descr': '<f4",
    "no-mapping": "[1, 2]",
    "no-literal": "__import__('os')",
    "keys-missing": "{'descr': '<f4'}",
    "negative": _header(shape="(-4, 4)"),
    "huge": _header(shape=f"({2**62}, {2**62})"),
    "larger-than-the-file": _header(shape="(1000000, 1000)"),
    "enormous": _header(shape=f"({10**40},)"),
    "shape-of-text": _header(shape="('a', 4)"),
    "shape-of-fractions": _header(shape="(4.5, 4)"),
    "shape-of-truth": _header(shape="(True, 4)"),
    "no-shape": _header(shape="4"),
    "order-of-text": _header(order="'yes'"),
    "unknown-type": _header(descr="'<q9'"),
    "type-of-number": _header(descr="7"),
    "type-of-lists": _header(descr="[[[]]]"),
    "objects": _header(descr="'|O'"),
    "texts": _header(descr="'<U1'"),
    "records": _header(descr="[('a', '<f4')]"),
    "dates": _header(descr="'<M8[s]'"),
    "complex": _header(descr="'<c8'", shape="(2, 4)"),
    "nested": "(" * 100 + ")" * 100,
}


@pytest.mark.parametrize("case", HEADERS)
@pytest.mark.parametrize("packed", [False, True], ids=["npy", "npz"])
def test_headers_of_arrays(tmp_path: Path, case: str, packed: bool) -> None:
    path = tmp_path / ("samples.npz" if packed else "samples.npy")
    content = _npy(HEADERS[case])
    if packed:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", content)
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match="samples"):
        open_source(str(path), [VECTOR])


def _edit_archive(path: Path, edit: Callable[[bytearray], None]) -> None:
    np.savez(path, x=np.ones((4, 4), np.float32))
    content = bytearray(path.read_bytes())
    edit(content)
    path.write_bytes(content)


def _set_both(content: bytearray, local: int, value: bytes) -> None:
    """Overwrite a field in the local header and in the directory, where it stands two bytes later."""
    directory = content.index(b"PK\x01\x02")
    content[local : local + len(value)] = value
    content[directory + local + 2 : directory + local + 2 + len(value)] = value


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda content: _set_both(content, 6, b"\x01\x00"), id="encrypted"),
        pytest.param(lambda content: _set_both(content, 8, b"\x0c\x00"), id="bzip2-that-is-none"),
        pytest.param(lambda content: _set_both(content, 8, b"\x5f\x00"), id="unknown-compression"),
        pytest.param(lambda content: _set_both(content, 8, b"\x08\x00"), id="deflate-that-is-none"),
        pytest.param(lambda content: content.__delitem__(slice(40, 60)), id="bytes-missing"),
        pytest.param(lambda content: content.__delitem__(slice(100, None)), id="cut-off"),
        pytest.param(lambda content: content.__setitem__(slice(200, 204), b"\xff" * 4), id="checksum"),
    ],
)
def test_archives(tmp_path: Path, edit: Callable[[bytearray], None]) -> None:
    path = tmp_path / "samples.npz"
    _edit_archive(path, edit)
    with pytest.raises(DataError, match=r"samples\.npz'.* cannot be read"):
        open_source(str(path), [VECTOR])


def test_an_archive_that_holds_no_array(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "text")
    with pytest.raises(DataError, match="array 'x' holds 'no array'"):
        open_source(str(path), [VECTOR])


def test_an_archive_that_unfolds(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
        member.write(_npy(_header(shape=f"({20 * MIB}, 4)"), b""))
        for _ in range(320):
            member.write(bytes(MIB))
    tracemalloc.start()
    with pytest.raises(DataError, match="would unfold into 3355"):
        open_source(str(path), [VECTOR])
    assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    tracemalloc.stop()


def test_an_image_of_169_megapixels(tmp_path: Path) -> None:
    Image.new("1", (13000, 13000)).save(tmp_path / "a.png")
    source = open_source(str(tmp_path), [IMAGE])
    with pytest.raises(DataError, match=r"a\.png' has 13000x13000 pixels, more than the limit"):
        source.read(np.arange(1))


@pytest.mark.parametrize("start", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"RIFF\0\0\0\0WEBP", b"P6\n"])
def test_images_that_are_none(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "a.png").write_bytes(start + b"\xff" * 40)
    source = open_source(str(tmp_path), [IMAGE])
    with pytest.raises(DataError, match=r"a\.png' cannot be read as an image"):
        source.read(np.arange(1))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        pytest.param("a" + ".a" * 50_000 + " = 1", "more than 16384 bytes", id="long"),
        pytest.param("x = " + "[" * 8000, "cannot be read", id="nested"),
        pytest.param(f"[data]\nmean = 1{'0' * 400}", "too large", id="integer-without-float"),
        pytest.param(f"[data]\nmean = 1{'0' * 5000}", "cannot be read", id="integer-of-5000-digits"),
        pytest.param("[data]\nstd = 1e-320", "std positive", id="denormal"),
        pytest.param("[data]\nstd = 1e-30", "std positive", id="tiny"),
        pytest.param("[data]\nmean = 1e300", "must be finite", id="beyond-float32"),
        pytest.param("[data]\nmean = []", "a number, or a list", id="empty"),
        pytest.param("[data]\nmean = [true]", "a number, or a list", id="truth"),
        pytest.param("[data]\nmean = '0.5'", "a number, or a list", id="text"),
        pytest.param("[data]\nmean = [[1]]", "a number, or a list", id="lists"),
        pytest.param("data = ''", "is no table", id="no-table"),
        pytest.param("[data]\nsize = 1979-05-27", "size", id="date"),
        pytest.param("\ud800", "cannot be read", id="no-utf-8"),
    ],
)
def test_settings(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / SETTINGS).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UsageError, match=match):
        read_settings(tmp_path / "model.onnx")


def test_a_deviation_that_float32_inverts_is_taken() -> None:
    values = Preprocessing(std=(1e-6,)).for_input(IMAGE).fed(np.full((1, 8, 8, 3), 255, np.uint8))
    assert np.isfinite(values).all()
