# SPDX-License-Identifier: Apache-2.0
"""Loading turns a file that somebody else made into a `Model`, or into one clear error.

The order is: limits (before anything is allocated or expanded), parse, external data, validity. The protobuf
that comes out is exactly the file's, external references included; nothing of it is ever changed afterwards.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Final, cast

import onnx
from google.protobuf.message import DecodeError

from graphprune.checks import contained
from graphprune.errors import ModelFileError, UnsafeModelError, UsageError, near_file, quote
from graphprune.model.files.external import reason
from graphprune.model.files.main_memory import main_memory
from graphprune.model.files.sniff import PLAN_SUFFIX, TEXT_SUFFIXES, sniff
from graphprune.model.tensors import TensorStore, count_bytes
from graphprune.model.validity.densify import densified
from graphprune.model.validity.survey import Survey, survey
from graphprune.model.validity.validate import validate
from graphprune.notebook import html_table
from graphprune.phases import logged
from graphprune.regular_file import check_mode
from graphprune.report import text

__all__ = ["Limits", "Model", "check_loaded", "load"]

# Files this small may declare anything up to here: eight zeros stored as one byte each are no attack.
_ALWAYS_ALLOWED: Final = 1 << 26
_ALWAYS_EXPANDED: Final = 10_000
_MOST_DENSE: Final = 1 << 30
_RAISE: Final = "if the model is trustworthy, raise graphprune.model.load.Limits in a script"


@dataclass(frozen=True)
class Limits:
    """How much a model may ask for before graphprune refuses it.

    Attributes
    ----------
    file_bytes : int
        Size of the model file (its external data not counted): what protobuf can hold.
    nodes : int
        Nodes, those in subgraphs and functions included.
    depth : int
        Nesting of graphs; the main graph has depth 1.
    name_length : int
        Characters of an identifier.
    tensor_bytes : int
        Sum of what all tensors declare, each stored range counted as often as it is used, beyond the size of the
        data files that are really there: these are mapped, and read piece by piece.
    mapped_bytes : int
        Sum of the sizes of data files; each is read more than once from one end to the other.
    tensor_ratio : int
        That sum divided by the bytes really present: models that unfold into far more than they hold are refused.
    function_calls : int
        Nodes after all local functions are expanded.
    call_ratio : int
        These divided by the nodes that the file holds, where they are more than ten thousand.
    """

    file_bytes: int = 2**31 - 1
    nodes: int = 200_000
    depth: int = 16
    name_length: int = 2**20
    tensor_bytes: int = field(default_factory=lambda: main_memory() // 2)
    mapped_bytes: int = 2**40
    tensor_ratio: int = 4
    function_calls: int = 1_000_000
    call_ratio: int = 32


@dataclass(frozen=True)
class FileStamp:
    """What tells one state of a file from another without reading it."""

    device: int
    inode: int
    size: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileStamp:
        """Return the stamp in a `stat` result."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A loaded model.

    Attributes
    ----------
    proto : onnx.ModelProto
        Exactly as in the file (external references kept), but for sparse tensors, which are made dense. Never mutated
        after loading.
    path : Path or None
        The file, if the model came from one.
    tensors : TensorStore
        Reads the values of this model's tensors.
    name : str
        The file's stem, or the graph's name.
    """

    proto: onnx.ModelProto
    path: Path | None
    tensors: TensorStore
    name: str
    stamp: FileStamp | None = None

    @property
    def _facts(self) -> list[tuple[str, object]]:
        graph = self.proto.graph
        return [
            ("nodes", len(graph.node)),
            ("initializers", len(graph.initializer)),
            ("inputs", ", ".join(text.name(value.name, 40) for value in graph.input)),
            ("outputs", ", ".join(text.name(value.name, 40) for value in graph.output)),
            ("file", "in memory" if self.path is None else str(self.path)),
        ]

    def __repr__(self) -> str:
        where = "in memory" if self.path is None else quote(str(self.path))
        return f"Model({quote(self.name)}, {text.plural(len(self.proto.graph.node), 'node')}, {where})"

    def _repr_html_(self) -> str:
        return html_table(f"Model {quote(self.name)}", (), self._facts)

    def replaced(self, proto: onnx.ModelProto) -> Model:
        """Return a model in memory with another protobuf, which may refer to the external data of this one."""
        return Model(proto, None, self.tensors, self.name)

    @cached_property
    def sha256(self) -> str:
        """Digest of the file's bytes; with external data, of those of all its files.

        Without external data this is what ``sha256sum`` prints. A model in memory is hashed in serialised form.

        Raises
        ------
        ModelFileError
            If the file has been changed since it was loaded.
        """
        if self.path is None:
            try:
                own = hashlib.sha256(self.proto.SerializeToString(deterministic=True)).hexdigest()
            except (ValueError, RuntimeError) as error:
                raise ModelFileError(f"model {quote(self.name)} is too large to be hashed in memory") from error
        else:
            own = _file_digest(self.path, self.stamp)
        files = sorted(self.tensors.files.items())
        if not files:
            return own
        total = hashlib.sha256(own.encode())
        for location, file in files:
            total.update(location.encode() + b"\0" + file.digest("sha256"))
        return total.hexdigest()


def check_loaded(model: object) -> None:
    """Check that something is a model, and not the path of one.

    Raises
    ------
    UsageError
        If it is anything else.
    """
    if not isinstance(model, Model):
        raise UsageError(f"a model cannot be {quote(model)}", hint="graphprune.load(path) reads one")


@logged("loading")
@contained
def load(source: str | Path | onnx.ModelProto, *, limits: Limits | None = None) -> Model:
    """Read a model and check that it is safe and valid.

    Parameters
    ----------
    source : str, Path or onnx.ModelProto
        A binary ONNX file, or a model in memory (used as it is, not copied).
    limits : Limits, optional
        How much the model may ask for.

    Returns
    -------
    Model

    Raises
    ------
    ModelFileError
        If the file is missing, unreadable, not ONNX, damaged, or not valid ONNX.
    UnsafeModelError
        If it exceeds a limit or reaches outside its folder.
    UnsupportedModelError
        If it is valid, but uses what graphprune does not read.
    """
    limits = limits or Limits()
    try:
        if isinstance(source, onnx.ModelProto):
            return _finish(source, None, limits)
        path = Path(source)
        proto, stamp = _read(path, limits)
        return _finish(proto, (path, stamp), limits)
    except MemoryError as error:
        raise UnsafeModelError("there is not enough memory to read this model") from error


def _finish(proto: onnx.ModelProto, origin: tuple[Path, FileStamp] | None, limits: Limits) -> Model:
    """Check a parsed model and wrap it."""
    surveyed = survey(proto, max_depth=limits.depth, max_nodes=limits.nodes, max_name=limits.name_length)
    path, stamp = origin if origin else (None, None)
    tensors = TensorStore(path)
    tensors.check_all(surveyed.tensors)
    _check_amount(tensors, surveyed, limits, stamp)
    if surveyed.sparse:
        proto = densified(proto, tensors.array, most_bytes=min(limits.tensor_bytes, _MOST_DENSE))
        surveyed = survey(proto)
        tensors.check_all(surveyed.tensors)
    proportionate = max(_ALWAYS_EXPANDED, limits.call_ratio * len(surveyed.nodes))
    try:
        validate(proto, surveyed, max_calls=min(limits.function_calls, proportionate))
    except ModelFileError as error:
        error.hint = error.hint or "export it again, or mend what is named; onnx.checker.check_model(path) may say more"
        raise
    return Model(proto, path, tensors, path.stem if path is not None else proto.graph.name, stamp)


def _check_amount(tensors: TensorStore, surveyed: Survey, limits: Limits, stamp: FileStamp | None) -> None:
    """Refuse a model whose tensors add up to more than memory, or than the files can stand for."""
    declared = sum(count_bytes(held.tensor) for held in surveyed.tensors)
    mapped = sum({file.identity: file.size for file in tensors.files.values()}.values())
    allowed = limits.tensor_bytes + mapped
    if stamp is not None:
        allowed = min(allowed, max(_ALWAYS_ALLOWED, limits.tensor_ratio * (stamp.size + mapped)))
    if declared > allowed:
        raise UnsafeModelError(
            f"the tensors declare {declared} bytes, more than the limit {allowed} for this file and machine",
            hint=_RAISE,
        )
    if mapped > limits.mapped_bytes:
        raise UnsafeModelError(
            f"the data files have {mapped} bytes, more than the limit {limits.mapped_bytes}", hint=_RAISE
        )


def _read(path: Path, limits: Limits) -> tuple[onnx.ModelProto, FileStamp]:
    """Read and parse a model file, checking before and after that it is one and the same regular file."""
    shown = quote(str(path))
    if path.name.endswith(PLAN_SUFFIX):
        raise ModelFileError(
            f"{shown} is a plan, where a model is wanted",
            hint="name the .onnx file; `graphprune apply MODEL PLAN` prunes as a plan says",
        )
    if path.suffix.lower() in TEXT_SUFFIXES:
        raise ModelFileError(
            f"{shown} has a suffix of a textual model; only binary ONNX is read",
            hint="convert it with onnx.load and onnx.save",
        )
    try:
        with _open(path, limits) as file:
            stamp = FileStamp.of(os.fstat(file.fileno()))
            data = file.read()
            after = FileStamp.of(os.fstat(file.fileno()))
    except (OSError, ValueError) as error:
        near = near_file(path) if isinstance(error, FileNotFoundError) else None
        raise ModelFileError(f"{shown} cannot be read: {reason(error)}", hint=near) from error
    if after != stamp or len(data) != stamp.size:
        raise ModelFileError(f"{shown} changed while it was read", hint="wait until the file is complete")
    if not data:
        raise ModelFileError(f"{shown} is empty", hint="the file has 0 bytes; get or export it again")
    return _parse(data, shown), stamp


def _open(path: Path, limits: Limits) -> BinaryIO:
    """Open a regular file of acceptable size; anything else is refused before it is opened."""
    _check_status(path.stat(), path, limits)
    # Non-blocking, in case a pipe has taken the file's place since the check.
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        _check_status(os.fstat(descriptor), path, limits)
        return cast(BinaryIO, os.fdopen(descriptor, "rb", buffering=0))
    except BaseException:
        os.close(descriptor)
        raise


def _check_status(status: os.stat_result, path: Path, limits: Limits) -> None:
    shown = quote(str(path))
    if stat.S_ISDIR(status.st_mode):
        raise ModelFileError(f"{shown} is a folder", hint="give the .onnx file inside it")
    check_mode(status.st_mode, path, ModelFileError)
    if status.st_size > limits.file_bytes:
        raise UnsafeModelError(
            f"{shown} has {status.st_size} bytes, more than the limit {limits.file_bytes}",
            hint="save the model with external data: onnx.save(model, path, save_as_external_data=True)",
        )


def _parse(data: bytes, shown: str) -> onnx.ModelProto:
    """Parse the bytes of a model file."""
    lookalike = sniff(data[:512])
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except (DecodeError, ValueError, RuntimeError) as error:
        if lookalike is not None:
            raise ModelFileError(f"{shown} looks like {lookalike.what}", hint=lookalike.hint) from error
        if "depth" in str(error).lower():
            raise UnsafeModelError(f"{shown} nests messages deeper than protobuf reads; the depth limit") from error
        raise ModelFileError(
            f"{shown} ({len(data)} bytes) is not an ONNX model, or truncated or corrupt",
            hint="get or export the file again and compare its size",
        ) from error
    if lookalike is not None and not proto.HasField("graph"):
        raise ModelFileError(f"{shown} looks like {lookalike.what}", hint=lookalike.hint)
    if not proto.HasField("graph"):
        raise ModelFileError(f"{shown} ({len(data)} bytes) has no graph: not an ONNX model, truncated or corrupt")
    return proto


def _file_digest(path: Path, stamp: FileStamp | None) -> str:
    """Hash a file that must still be the one that was loaded."""
    shown = quote(str(path))
    try:
        with path.open("rb") as file:
            before = FileStamp.of(os.fstat(file.fileno()))
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            after = FileStamp.of(os.fstat(file.fileno()))
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{shown} cannot be read: {reason(error)}") from error
    if before != after or (stamp is not None and stamp != before):
        raise ModelFileError(f"{shown} changed after it was loaded", hint="run the command again")
    return digest
