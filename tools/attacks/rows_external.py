# SPDX-License-Identifier: Apache-2.0
"""Rows C: weights in files beside the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto

from attacks.bench import UNPRIVILEGED, Bench, Row, Trial, check, from_tests

__all__ = ["ROWS"]

external = from_tests("faults/test_external")
bad = from_tests("support/bad_files")
_ENTRIES = {case.id: case for case in external.ENTRIES}
MODEL = "model/m.onnx"


def _laid_out(bench: Bench, entries: dict[str, str]) -> bytes:
    """Write the small model with such entries for its first weight; return the bytes of that weight."""
    model = bad.small_model()
    data: bytes = bad.make_external(bad.weight(model), **entries)
    bench.write(model, MODEL)
    return data


def entries(*names: str) -> dict[str, Trial]:
    """Return trials of external entries, beside good data in the model's folder and above it."""

    def trial_of(name: str) -> Trial:
        case = _ENTRIES[name]

        def trial(bench: Bench) -> None:
            data = _laid_out(bench, case.entries)
            for place in ("w.bin", "model/w.bin"):
                bench.write(data, place)
            (bench.folder / "model" / "sub").mkdir()
            if case.twice:
                model = onnx.load(bench.folder / MODEL, load_external_data=False)
                for key, value in case.twice.items():
                    bad.weight(model).external_data.add(key=key, value=value)
                bench.write(model, MODEL)
            bench.refused(bench.solve(MODEL), case.gist)

        return trial

    return {name: trial_of(name) for name in names}


def special(make: Callable[[Path, Path], None], location: str, gist: str) -> Trial:
    """Return the trial of a data file that is not what it seems."""

    def trial(bench: Bench) -> None:
        data = _laid_out(bench, {"location": location})
        bench.write(data, "secret/w.bin")
        make(bench.folder / "secret", bench.folder / "model")
        bench.refused(bench.solve(MODEL), gist)

    return trial


def sized(change: Callable[[bytes], bytes]) -> Trial:
    """Return the trial of a data file of another size than the tensor."""

    def trial(bench: Bench) -> None:
        bench.write(change(_laid_out(bench, {"location": "w.bin"})), "model/w.bin")
        bench.refused(bench.solve(MODEL), "'w1'.*needs 864 bytes")

    return trial


def _cache(bench: Bench) -> None:
    model = bad.small_model()
    bench.write(bad.make_external(bad.weight(model), location="w.bin"), "blobs/bbbb")
    bench.write(model, "blobs/aaaa")
    (bench.folder / "snapshot").mkdir()
    (bench.folder / "snapshot" / "m.onnx").symlink_to("../blobs/aaaa")
    (bench.folder / "snapshot" / "w.bin").symlink_to("../blobs/bbbb")
    bench.pruned("snapshot/m.onnx")


def _no_permission(bench: Bench) -> None:
    path = bench.write(_laid_out(bench, {"location": "w.bin"}), "model/w.bin")
    path.chmod(0)
    bench.refused(bench.solve(MODEL, before=UNPRIVILEGED), "cannot be opened.*Permission denied")
    path.chmod(0o600)


def tensors(*offsets: int, says: str) -> Trial:
    """Return the trial of tensors that begin at such places of one file."""

    def trial(bench: Bench) -> None:
        (bench.folder / "model").mkdir()
        path = external.two_tensors(bench.folder / "model", *offsets)
        bench.write(path.read_bytes(), MODEL)
        done = bench.solve(MODEL)
        if says:
            bench.refused(done, says)
        else:
            bench.done(done)

    return trial


def _amplified(bench: Bench) -> None:
    """Lay a hundred thousand tensors of a megabyte each on one megabyte."""
    model = bad.small_model()
    for number in range(100_000):
        tensor = model.graph.initializer.add(name=f"t{number}", data_type=TensorProto.FLOAT, dims=[2**18])
        bad.make_external(tensor, location="t.bin", offset="0", length=str(2**20))
    bench.write(model, MODEL)
    bench.write(bytes(2**20), "model/t.bin")
    bench.refused(bench.solve(MODEL), "declare|more than the limit")


def hidden(put: Callable[[ModelProto, TensorProto], None]) -> Trial:
    """Return the trial of a reference that leads out, in a place where few look."""

    def trial(bench: Bench) -> None:
        model, tensor = bad.small_model(), TensorProto(name="q", data_type=TensorProto.FLOAT, dims=[1])
        bad.make_external(tensor, location="../secret.bin")
        put(model, tensor)
        bench.write(b"\0\0\x80\x3f", "secret.bin")
        bench.write(model, MODEL)
        bench.refused(bench.solve(MODEL), r"'\.\./secret\.bin' leaves the model's folder")

    return trial


_SWAPS = """
import os
from graphprune.model.files import external
opened = os.open
def swap(path, *arguments, **options):
    if str(path).endswith("w.bin") and not os.path.islink("model/w.bin"):
        os.unlink("model/w.bin")
        os.symlink("../secret.bin", "model/w.bin")
    return opened(path, *arguments, **options)
external.os.open = swap
"""
_SWAPS_LATER = """
import os
from graphprune import api
analyze = api.analyze
def late(*arguments, **options):
    os.replace("other.bin", "model/w.bin")
    return analyze(*arguments, **options)
api.analyze = late
"""


def _swapped_before_opening(bench: Bench) -> None:
    data = _laid_out(bench, {"location": "w.bin"})
    bench.write(data, "secret.bin")
    (bench.folder / "model" / "w.bin").write_bytes(data)
    bench.refused(bench.solve(MODEL, before=_SWAPS), "cannot be opened")
    check((bench.folder / "model" / "w.bin").is_symlink(), "nothing was swapped")


def _swapped_after_loading(bench: Bench) -> None:
    data = _laid_out(bench, {"location": "w.bin"})
    (bench.folder / "model" / "w.bin").write_bytes(data)
    (bench.folder / "other.bin").write_bytes(bytes(len(data)))
    done = bench.solve(MODEL, before=_SWAPS_LATER)
    if done.code:
        bench.refused(done, "changed")
    else:
        weights = onnx.load(bench.folder / "model" / "m.pruned.onnx").graph.initializer
        check(any(onnx.numpy_helper.to_array(each).any() for each in weights if each.name == "w1"), "other bytes read")


def _raw_too(bench: Bench) -> None:
    model = bad.small_model()
    data = bad.weight(model).raw_data
    bad.make_external(bad.weight(model), location="w.bin")
    bad.weight(model).raw_data = data
    bench.write(model, MODEL)
    bench.write(data, "model/w.bin")
    bench.refused(bench.solve(MODEL), "'w1' is marked as external and also holds data")


def _decoy(bench: Bench) -> None:
    data = _laid_out(bench, {"location": "w.bin"})
    bench.write(data, "model/w.bin")
    bench.write(bytes(len(data)), "w.bin")
    bench.pruned(MODEL)
    weights = onnx.load(bench.folder / "model" / "m.pruned.onnx").graph.initializer
    check(all(onnx.numpy_helper.to_array(each).any() for each in weights if each.name == "w1"), "the decoy was read")


def _nothing(_: Path, __: Path) -> None:
    """Leave the folder as it is."""


_OUT = "leads out of the model's folder"
ROWS = (
    Row("C1", "locations that lead out of the folder, in all spellings", "refused with tensor and location",
        entries("parent", "parent_inside", "absolute", "drive", "drive_relative", "share", "url", "home")),
    Row("C2", "links that lead out, or to themselves", "refused",
        {"file": special(external.link_file, "w.bin", _OUT), "folder": special(external.link_folder, "sub/w.bin", _OUT),
         "loop": special(external.link_to_itself, "w.bin", "cannot be opened")}),
    Row("C3", "locations that are empty, missing, doubled, hold a NUL, or are endless", "refused",
        entries("empty", "no_location", "location_twice", "nul", "newline", "dot", "long", "too_long_for_the_system")),
    Row("C4", "keys that ONNX does not have", "refused", entries("unknown_key", "dunder_key")),
    Row("C5", "offsets and lengths that are no numbers, or beyond the file", "refused with tensor and numbers",
        entries("offset_negative", "offset_word", "offset_underscore", "offset_other_digits", "offset_5000_digits",
                "offset_beyond", "offset_last_byte", "overflow", "length_negative", "length_too_small",
                "length_too_large")),
    Row("C6", "a data file that is shorter or longer than the tensor", "refused with both sizes",
        {"short": sized(lambda data: data[:-1]), "long": sized(lambda data: data + bytes(4)),
         "empty": sized(lambda data: b"")}),
    Row("C7", "a checksum that is wrong", "refused", entries("checksum_wrong", "checksum_malformed")),
    Row("C8", "a download cache of links into one folder", "pruned", {"cache": _cache}),
    Row("C9", "a data file with several names", "refused, with what to do",
        {"hard link": special(external.hard_link, "w.bin", "has 2 hard links.*make real copies")}),
    Row("C10", "a data file that is missing, unreadable, a pipe, a device, a folder", "refused, at once",
        {**entries("missing_file", "folder"), "pipe": special(external.pipe, "w.bin", "not a regular file"),
         "device": special(external.device, "w.bin", _OUT), "no permission": _no_permission,
         "nothing there": special(_nothing, "w.bin", "does not exist")}),
    Row("C11", "tensors that overlap; very many on the same bytes", "refused; equal ones are read once",
        {"overlap": tensors(32, 0, says="overlap"), "equal": tensors(0, 64, 0, 64, says=""),
         "amplified": _amplified}),
    Row("C12", "references in constants, branches, functions and sparse attributes", "refused like all others",
        {each.__name__: hidden(each) for each in (external.in_constant, external.in_branch, external.in_function,
                                                  external.in_sparse_attribute)}),
    Row("C13", "an address in memory as a location", "refused", entries("memory_address")),
    Row("C14", "a data file that is swapped between the check and the reading", "refused, or the checked file is read",
        {"before it is opened": _swapped_before_opening, "after it was read": _swapped_after_loading}),
    Row("C15", "a tensor that is marked as external and holds data", "refused", {"both": _raw_too}),
    Row("C16", "another working directory, with a file of the same name", "the model's own file is read",
        {"decoy": _decoy}),
)  # fmt: skip
