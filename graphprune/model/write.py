# SPDX-License-Identifier: Apache-2.0
"""Writing puts a model on disk: whole or not at all, and never over an input.

A result that fits protobuf becomes one file; external weights move into it unless they are large. Anything else becomes
a pair: a data file named by its content, and the ``.onnx`` file that refers to it and is renamed last, so that an
interrupted run leaves the old pair intact.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx
from google.protobuf.message import EncodeError

from graphprune.errors import OutputError, quote
from graphprune.model.files.atomic import PendingFile, check_target, holds, output_errors, terminate_by_exception
from graphprune.model.load import Model
from graphprune.model.tensors import TensorStore, count_bytes, is_external, may_be_sizes
from graphprune.model.validity.survey import survey

__all__ = [
    "ALIGNMENT",
    "INLINE_LIMIT",
    "KEPT_OUTSIDE",
    "copy_or_save",
    "file_bytes",
    "save",
    "write_bytes_atomically",
]

INLINE_LIMIT: Final = 1_900_000_000
"""Bytes of weights up to which a model is written as one file; protobuf ends at 2 GiB."""

KEPT_OUTSIDE: Final = 1 << 28
"""The same for weights that come from a data file: more would fill the memory for no gain."""

_SMALLEST_OUTSIDE: Final = 1024
ALIGNMENT: Final = 4096
"""Bytes at a multiple of which tensors start in a data file: a memory page, so that runtimes can map them."""


def write_bytes_atomically(data: bytes, path: Path, *, force: bool) -> None:
    """Write `data` to `path` so that the path holds the old file or the whole new one at every instant.

    Raises
    ------
    OutputError
        If the file exists and `force` is not given, or if writing fails. What was there before is unchanged.
    """
    with output_errors(path), terminate_by_exception(), ExitStack() as stack:
        _commit([_pending(stack, path, data, force=force)], force=force)


def save(
    model: Model,
    path: str | Path,
    *,
    force: bool = False,
    inline_limit: int | None = None,
    beside: Mapping[Path, bytes] | None = None,
) -> Path:
    """Write a model to a file, atomically.

    Parameters
    ----------
    model : Model
        Neither it nor the files it came from are changed.
    path : str or Path
        The output. A symbolic link is followed; a replaced file keeps its permissions.
    force : bool, optional
        Replace an existing file.
    inline_limit : int, optional
        Bytes of weights above which they go to a data file beside the output. By default `INLINE_LIMIT`, and
        `KEPT_OUTSIDE` for a model that has a data file already.
    beside : mapping of Path to bytes, optional
        Files that belong to it, as its plan does. All are complete on the disk before the first gets its name, and
        the model gets its own first.

    Returns
    -------
    Path
        The output path as given.

    Raises
    ------
    OutputError
        If an output exists and `force` is not given, is an input, or cannot be written.
    ModelFileError, UnsafeModelError
        If external data of the model cannot be read.
    """
    path = Path(path)
    with output_errors(path), terminate_by_exception(), ExitStack() as stack:
        target = check_target(path, force=force, inputs=_inputs(model))
        held = [entry.tensor for entry in survey(model.proto).tensors]
        if inline_limit is None:
            inline_limit = KEPT_OUTSIDE if any(map(is_external, held)) else INLINE_LIMIT
        if sum(count_bytes(tensor) for tensor in held) > inline_limit:
            files = _fill_pair(stack, model, target, force=force)
        else:
            data = _serialise(_inlined(model) if any(map(is_external, held)) else model.proto)
            files = [_filled(stack, target, data)]
        files += [_pending(stack, other, data, force=force) for other, data in (beside or {}).items()]
        _commit(files, force=force)
    return path


def copy_or_save(
    model: Model, path: str | Path, *, force: bool = False, beside: Mapping[Path, bytes] | None = None
) -> Path:
    """Write a model like :func:`save`, but copy byte by byte what was not changed since it was loaded."""
    path = Path(path)
    moved = model.tensors.files and path.resolve().parent != (model.path or path).resolve().parent
    if model.path is None or moved:
        return save(model, path, force=force, beside=beside)
    with output_errors(path), terminate_by_exception(), ExitStack() as stack:
        target = check_target(path, force=force, inputs=[model.path])
        files = [_filled(stack, target, model.path.read_bytes())]
        files += [_pending(stack, other, data, force=force) for other, data in (beside or {}).items()]
        _commit(files, force=force)
    return path


def _pending(stack: ExitStack, path: Path, data: bytes, *, force: bool) -> PendingFile:
    """Return a complete file for an output that is checked."""
    with output_errors(path):
        return _filled(stack, check_target(path, force=force), data)


def _filled(stack: ExitStack, target: Path, data: bytes) -> PendingFile:
    pending = stack.enter_context(PendingFile(target))
    pending.fill([data])
    return pending


def _commit(files: Sequence[PendingFile], *, force: bool) -> None:
    """Give files that are complete their names; where one is taken in the meantime, none of the new ones stays."""
    done: list[PendingFile] = []
    for pending in files:
        with output_errors(pending.target):
            try:
                pending.commit(replace=force)
            except FileExistsError as error:
                for earlier in done:
                    earlier.target.unlink(missing_ok=True)
                shown = quote(str(pending.target))
                hint = "give --force (force=True) to replace it"
                raise OutputError(f"{shown} has been written by somebody else in the meantime", hint=hint) from error
        done.append(pending)


def file_bytes(model: Model) -> int:
    """Return the bytes of a model's files, data files included; of one in memory, what its parts take."""
    if model.path is not None:
        return model.path.stat().st_size + sum(file.size for file in model.tensors.files.values())
    outside = [entry.tensor for entry in survey(model.proto).tensors if is_external(entry.tensor)]
    return int(model.proto.ByteSize()) + sum(map(count_bytes, outside))


def _inputs(model: Model) -> list[Path]:
    """Return every file that the model was read from."""
    own = [path for path in (model.path, model.tensors.model_path) if path is not None]
    return own + [file.path for file in model.tensors.files.values()]


def _serialise(proto: onnx.ModelProto) -> bytes:
    try:
        return proto.SerializeToString()
    except (EncodeError, ValueError, RuntimeError) as error:
        raise OutputError("the model is too large or too deep for protobuf to write") from error


def _inlined(model: Model) -> onnx.ModelProto:
    """Return a copy of the model's protobuf with all external weights inside."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for entry in survey(proto).tensors:
        if is_external(entry.tensor):
            _put_inside(entry.tensor, model.tensors)
    return proto


def _put_inside(tensor: onnx.TensorProto, tensors: TensorStore) -> None:
    tensor.raw_data = bytes(tensors.checked_raw(tensor))
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")


@dataclass(frozen=True, eq=False)
class _DataFile:
    """The content of a data file: the bytes of `sources`, each at its offset, zeros between."""

    sources: list[onnx.TensorProto]
    offsets: list[int]
    tensors: TensorStore

    def __iter__(self) -> Iterator[bytes | memoryview]:
        end = 0
        for source, offset in zip(self.sources, self.offsets, strict=True):
            yield bytes(offset - end)
            end = offset
            for piece in self.tensors.pieces(source):
                end += len(piece)
                yield piece


def _fill_pair(stack: ExitStack, model: Model, target: Path, *, force: bool) -> list[PendingFile]:
    """Fill a data file and the model that refers to it, which is to be renamed last; an equal data file is used."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    outside, content = _lay_out(model, proto)
    digest = hashlib.sha256()
    for piece in content:
        digest.update(piece)
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", target.stem)
    data_target = target.with_name(f"{stem}-{digest.hexdigest()[:8]}.data")
    for tensor, offset in zip(outside, content.offsets, strict=True):
        _put_outside(tensor, data_target.name, offset)
    files = []
    if not _is_there(data_target, content):
        files.append(stack.enter_context(PendingFile(data_target)))
        check_target(data_target, force=force, inputs=_inputs(model))
        files[0].fill(content)
    return [*files, _filled(stack, target, _serialise(proto))]


def _lay_out(model: Model, proto: onnx.ModelProto) -> tuple[list[onnx.TensorProto], _DataFile]:
    """Choose the tensors of `proto` (a copy of the model's) that go outside, and where; put all others inside."""
    outside: list[onnx.TensorProto] = []
    content = _DataFile([], [], model.tensors)
    end = 0
    for source, entry in zip(survey(model.proto).tensors, survey(proto).tensors, strict=True):
        tensor, size = entry.tensor, count_bytes(entry.tensor)
        stored = is_external(tensor) or tensor.HasField("raw_data")
        if stored and entry.node is None and size >= _SMALLEST_OUTSIDE and not may_be_sizes(tensor):
            offset = -(-end // ALIGNMENT) * ALIGNMENT
            content.sources.append(source.tensor)
            content.offsets.append(offset)
            outside.append(tensor)
            end = offset + size
        elif is_external(tensor):
            _put_inside(tensor, model.tensors)
    return outside, content


def _put_outside(tensor: onnx.TensorProto, location: str, offset: int) -> None:
    length = count_bytes(tensor)
    tensor.ClearField("raw_data")
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def _is_there(path: Path, content: _DataFile) -> bool:
    """Return whether an earlier run has left this very data file, for us to use as it is."""
    try:
        return path.lstat().st_nlink == 1 and holds(path, content)
    except OSError:
        return False
