# SPDX-License-Identifier: Apache-2.0
"""Staging: models are laid out in a folder for a child process, without a second copy of their weights in memory.

Large tensors go from where they are to a data file, piece by piece; every file of the folder that needs them refers
to that. So a model of any size is staged in the memory that its graph takes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from google.protobuf.message import EncodeError
from onnx import ModelProto, TensorProto

from graphprune.model.files.model_bytes import ModelBytes
from graphprune.model.load import Model
from graphprune.model.tensors import TensorStore, count_bytes, is_external, is_packed, may_be_sizes
from graphprune.model.write import ALIGNMENT, INLINE_LIMIT, save

__all__ = ["StagedWeights", "stage_file"]

_SMALLEST = 1024
"""Bytes below which a tensor stays in the graph: shapes and indices, which onnxruntime looks at when it loads."""


class StagedWeights:
    """The stored tensors of a model, as the files of one folder refer to them.

    Parameters
    ----------
    path : Path
        The data file, which is made.
    tensors : iterable of TensorProto
        They are not changed.
    store : TensorStore
        Reads them.

    Raises
    ------
    ModelFileError, UnsafeModelError
        If external data cannot be read.
    """

    def __init__(self, path: Path, tensors: Iterable[TensorProto], store: TensorStore) -> None:
        self.references: list[TensorProto] = []
        self._folder = path.parent
        with path.open("wb") as file:
            for tensor in tensors:
                if not _is_large(tensor):
                    self.references.append(_inside(tensor, store))
                    continue
                file.write(bytes(-file.tell() % ALIGNMENT))
                self.references.append(_reference(tensor, path.name, file.tell()))
                for piece in store.pieces(tensor):
                    file.write(piece)

    def attach(self, light: ModelProto) -> ModelProto:
        """Return a model with these tensors in front of its own; the graph is copied."""
        model = ModelProto()
        model.CopyFrom(light)
        own = list(model.graph.initializer)
        model.graph.ClearField("initializer")
        model.graph.initializer.extend((*self.references, *own))
        return model

    def write(self, light: ModelProto, name: str) -> None:
        """Write a graph with these tensors."""
        (self._folder / name).write_bytes(self.attach(light).SerializeToString())


def stage_file(model: Model, path: Path) -> None:
    """Write a model as it will be written; a file that was loaded is copied byte by byte."""
    if model.path is not None and not model.tensors.files:
        shutil.copyfile(model.path, path)
        return
    try:
        size = 0 if model.tensors.files else ModelBytes(model.proto).count()
    except (EncodeError, ValueError, RuntimeError):  # too large for one file
        size = 0
    if 0 < size <= INLINE_LIMIT:
        with path.open("wb") as file:
            file.writelines(ModelBytes(model.proto))
    else:
        save(model.replaced(model.proto), path)


def _is_large(tensor: TensorProto) -> bool:
    stored = is_external(tensor) or tensor.HasField("raw_data")
    return stored and not is_packed(tensor) and not may_be_sizes(tensor) and count_bytes(tensor) >= _SMALLEST


def _inside(tensor: TensorProto, store: TensorStore) -> TensorProto:
    """Return a small tensor with its values in the message."""
    if not is_external(tensor):
        return tensor
    result = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    result.raw_data = bytes(store.checked_raw(tensor))
    return result


def _reference(tensor: TensorProto, location: str, offset: int) -> TensorProto:
    result = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    result.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(count_bytes(tensor)))):
        result.external_data.add(key=key, value=value)
    return result
