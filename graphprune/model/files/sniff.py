# SPDX-License-Identifier: Apache-2.0
"""What a file that is not binary ONNX looks like, so that the error can say what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["PLAN_SUFFIX", "TEXT_SUFFIXES", "Lookalike", "sniff"]

TEXT_SUFFIXES: Final = frozenset({".json", ".onnxjson", ".textproto", ".prototxt", ".pbtxt", ".onnxtxt", ".onnxtext"})
"""Suffixes of textual forms of ONNX. Only the binary form is read."""
PLAN_SUFFIX: Final = ".plan.json"
"""How `solve` lets the names of plans end."""


@dataclass(frozen=True)
class Lookalike:
    """What a file is instead of an ONNX model, and the way out."""

    what: str
    hint: str


@dataclass(frozen=True)
class _Magic:
    """A file format known by the bytes at a fixed offset."""

    offset: int
    magic: bytes
    lookalike: Lookalike


_UNPACK: Final = "unpack it first; graphprune reads the .onnx file inside"
_EXPORT_TORCH: Final = "export the model to ONNX first, for instance with `graphprune export`"

_MAGICS: Final = (
    _Magic(
        0,
        b"version https://git-lfs.github.com/spec/",
        Lookalike("a Git LFS pointer, not the model itself", "run `git lfs pull` in its repository"),
    ),
    _Magic(0, b"PK\x03\x04", Lookalike("a zip archive, perhaps a PyTorch checkpoint (.pt, .pth)", _EXPORT_TORCH)),
    _Magic(0, b"PK\x05\x06", Lookalike("an empty zip archive", _EXPORT_TORCH)),
    _Magic(0, b"\x80\x02", Lookalike("a Python pickle, perhaps an old PyTorch checkpoint", _EXPORT_TORCH)),
    _Magic(0, b"\x80\x04", Lookalike("a Python pickle", _EXPORT_TORCH)),
    _Magic(0, b"\x80\x05", Lookalike("a Python pickle", _EXPORT_TORCH)),
    _Magic(0, b"\x1f\x8b", Lookalike("a gzip archive", _UNPACK)),
    _Magic(0, b"BZh", Lookalike("a bzip2 archive", _UNPACK)),
    _Magic(0, b"\xfd7zXZ\x00", Lookalike("an xz archive", _UNPACK)),
    _Magic(0, b"\x28\xb5\x2f\xfd", Lookalike("a zstandard archive", _UNPACK)),
    _Magic(0, b"7z\xbc\xaf\x27\x1c", Lookalike("a 7-zip archive", _UNPACK)),
    _Magic(257, b"ustar", Lookalike("a tar archive", _UNPACK)),
    _Magic(4, b"TFL3", Lookalike("a TensorFlow Lite model", "convert it to ONNX first, for instance with tf2onnx")),
    _Magic(4, b"ORTM", Lookalike("an ORT-format model (.ort)", "use the .onnx file that it was made from")),
    _Magic(0, b"\x89HDF\r\n", Lookalike("an HDF5 file, perhaps a Keras model", "convert it with tf2onnx")),
    _Magic(0, b"\x93NUMPY", Lookalike("a numpy array", "give the .onnx file of the model")),
    _Magic(0, b"\x89PNG", Lookalike("a PNG image", "give the .onnx file of the model")),
    _Magic(0, b"\xff\xd8\xff", Lookalike("a JPEG image", "give the .onnx file of the model")),
    _Magic(0, b"%PDF", Lookalike("a PDF document", "give the .onnx file of the model")),
    _Magic(0, b"\x7fELF", Lookalike("a program", "give the .onnx file of the model")),
    _Magic(8, b'{"', Lookalike("a safetensors file: weights without a graph", _EXPORT_TORCH)),
)


def sniff(head: bytes) -> Lookalike | None:
    """Return what a file starting with `head` looks like, or None if nothing known.

    Parameters
    ----------
    head : bytes
        The first bytes of the file; 512 are enough.
    """
    for known in _MAGICS:
        if head.startswith(known.magic, known.offset):
            return known.lookalike
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:64].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return Lookalike(
            "an HTML or XML page, perhaps the error page of a download", "download it again and look at the file"
        )
    if start.startswith((b"{", b"[")):
        return Lookalike("JSON text", "only binary ONNX is read; convert it with onnx.load and onnx.save")
    if head and _is_text(head):
        return Lookalike("text", "only binary ONNX is read; convert it with onnx.load and onnx.save")
    return None


def _is_text(head: bytes) -> bool:
    """Return whether `head` is printable text: UTF-8 cut anywhere, or UTF-16 by its byte order mark."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    text = head.decode("utf-8", errors="ignore")
    return len(text.encode()) > len(head) - 4 and all(char.isprintable() or char in "\t\r\n" for char in text)
