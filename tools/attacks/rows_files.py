# SPDX-License-Identifier: Apache-2.0
"""Rows A: what is no model file, or one that cannot be read."""

from __future__ import annotations

import os
import random
from functools import partial

from attacks.bench import UNPRIVILEGED, Bench, Row, Trial, check, either, from_tests, refuses
from attacks.rows_large import past_two_gib

__all__ = ["ROWS"]

files = from_tests("faults/test_files")
bad = from_tests("support/bad_files")
DATA = bad.small_model().SerializeToString()


def _missing(bench: Bench) -> None:
    bench.refused(bench.solve("none.onnx"), r"none\.onnx.*No such file")


def _folder(bench: Bench) -> None:
    bench.refused(bench.solve("."), "is a folder")


def _pipe(bench: Bench) -> None:
    os.mkfifo(bench.folder / "pipe.onnx")
    bench.refused(bench.solve("pipe.onnx"), "not a regular file")


def _device(bench: Bench) -> None:
    bench.refused(bench.solve("/dev/zero"), "not a regular file")


def _forbidden(bench: Bench) -> None:
    path = bench.write(DATA)
    path.chmod(0)
    bench.refused(bench.solve(before=UNPRIVILEGED), "Permission denied")
    path.chmod(0o600)


def _lookalike(name: str) -> Trial:
    content, what, hint = files.LOOKALIKES[name]
    return refuses(lambda: content, f"looks like .*{what}.*{hint}")


def _text_name(suffix: str) -> Trial:
    def trial(bench: Bench) -> None:
        bench.write(DATA, f"m{suffix}")
        bench.refused(bench.solve(f"m{suffix}"), "only binary ONNX is read")

    return trial


def _unknown_field(bench: Bench) -> None:
    unknown = b"\xfa\x3f\x03abc"
    bench.write(DATA + unknown)
    check(unknown in bench.pruned().read_bytes(), "the unknown field is lost")


def _sparse_file(bench: Bench) -> None:
    with (bench.folder / "m.onnx").open("wb") as file:
        file.truncate(2**31)
    bench.refused(bench.solve(), "2147483648 bytes")


def _deep(depth: int) -> Trial:
    return refuses(lambda: bad.nested_ifs(depth), "nest")


def _deeper() -> bytes:
    data = b"\x0a\x00"
    for _ in range(60):
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            data = tag + files.length_prefix(data) + data
    return b"\x3a" + files.length_prefix(data) + data


_CHANGES = """
from pathlib import Path
from graphprune import api
analyze = api.analyze
def late(*arguments, **options):
    path = Path("m.onnx")
    path.write_bytes(path.read_bytes().replace(b"small", b"other"))
    return analyze(*arguments, **options)
api.analyze = late
"""


def _changes(bench: Bench) -> None:
    bench.write(DATA)
    bench.inputs.clear()  # the attack itself changes it
    bench.refused(bench.solve(before=_CHANGES), "changed")


def _link(bench: Bench) -> None:
    bench.write(DATA, "blobs/0123abcd")
    (bench.folder / "m.onnx").symlink_to("blobs/0123abcd")
    bench.pruned()


def _flipped(number: int) -> bytes:
    draw, damaged = random.Random(number), bytearray(DATA)
    damaged[draw.randrange(len(DATA))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def _without_utf8(name: bytes) -> bytes:
    return DATA.replace(name, b"\xff" * len(name))


_ENCRYPTED = random.Random(0).randbytes(4096)
_SHARES = [step * len(DATA) // 24 for step in range(1, 24)]
ROWS = (
    Row("A1", "a path that is no readable file", "refused, each with its cause, at once",
        {"missing": _missing, "folder": _folder, "pipe": _pipe, "device": _device, "no permission": _forbidden}),
    Row("A2", "an empty file", "refused as empty", {"empty": refuses(lambda: b"", "is empty")}),
    Row("A3", "a file of another kind under the name of a model", "refused: what it looks like, what to do",
        {name: _lookalike(name)
         for name in ("text", "html", "html_after_bom", "utf16", "git_lfs", "torch_zip", "pickle", "safetensors",
                      "tflite", "tar", "hdf5", "png", "json")}),
    Row("A4", "a file that ends early", "refused with its size",
        {f"at byte {size}": refuses(partial(DATA.__getitem__, slice(size)), f"{size} bytes|operator set|version")
         for size in _SHARES}),
    Row("A5", "one flipped bit", "an error of ours, or pruned and verified",
        {f"flip {number}": either(partial(_flipped, number)) for number in range(24)}),
    Row("A6", "two models in one file", "refused",
        {"twice": refuses(lambda: DATA * 2, "twice.*two models"),
         "two": refuses(lambda: DATA + bad.small_model(1).SerializeToString(), "twice.*two models")}),
    Row("A7", "a name that is no UTF-8", "refused",
        {name.decode(): refuses(partial(_without_utf8, name), "not valid UTF-8")
         for name in (b"w1", b"r", b"small", b"Relu")}),
    Row("A8", "a textual form of ONNX by its suffix", "refused: only binary ONNX is read",
        {suffix: _text_name(suffix) for suffix in sorted(files.TEXT_SUFFIXES)}),
    Row("A9", "a field that this version of ONNX does not know", "pruned; it is kept", {"field": _unknown_field}),
    Row("A10", "more than 2 GiB", "refused unread in one file; pruned with a data file",
        {"one file": _sparse_file, "data file": past_two_gib}),
    Row("A11", "graphs nested deeper than anybody needs", "refused: depth limit",
        {"17": _deep(17), "25": _deep(25), "60": refuses(_deeper, "depth limit")}),
    Row("A12", "a file that changes during the run", "refused", {"between reading and use": _changes}),
    Row("A13", "a model behind a symbolic link", "pruned", {"link": _link}),
    Row("A14", "formats of runtimes, compressed and encrypted files", "refused by name where there is one",
        {"ort": _lookalike("ort_format"), "gzip": _lookalike("gzip"),
         "encrypted": refuses(lambda: _ENCRYPTED, "truncated or corrupt|not"),
         "zeros": refuses(lambda: bytes(64), "")}),
)  # fmt: skip
