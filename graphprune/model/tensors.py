# SPDX-License-Identifier: Apache-2.0
"""A tensor store reads the values of a model's tensors: checked, lazily and without copying.

Values in the file itself are read from the protobuf; external ones from a read-only memory map
(`graphprune.model.files.external`). Known limit: a data file cut short by another program while it is mapped
ends the process (SIGBUS); nothing is written in that case.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from graphprune.errors import ModelFileError, UnsafeModelError, quote
from graphprune.model.files.external import DataFile, Extent, check_sum, data_folders, open_data_file, read_extent
from graphprune.model.validity.survey import HeldTensor

__all__ = [
    "DATA_FIELDS",
    "FLOATS",
    "TensorStore",
    "check_tensor",
    "count_bits",
    "count_bytes",
    "is_external",
    "is_packed",
    "may_be_sizes",
]

Buffer = bytes | memoryview

_MAX_RANK: Final = 16
_LONGEST_LIST: Final = 1 << 24
# No location in a file can be this: it is no relative path.
_DEFERRED: Final = "graphprune://deferred/"
_PIECE: Final = 1 << 24
# Bytes read from mapped files after which their pages are let go.
_RESIDENT: Final = 1 << 28
_BYTE: Final = 8
# Bits per element; types that a given onnx release does not know are left out below.
_BITS_BY_NAME: Final = {
    "FLOAT": 32, "UINT8": 8, "INT8": 8, "UINT16": 16, "INT16": 16, "INT32": 32, "INT64": 64, "BOOL": 8,
    "FLOAT16": 16, "DOUBLE": 64, "UINT32": 32, "UINT64": 64, "COMPLEX64": 64, "COMPLEX128": 128, "BFLOAT16": 16,
    "FLOAT8E4M3FN": 8, "FLOAT8E4M3FNUZ": 8, "FLOAT8E5M2": 8, "FLOAT8E5M2FNUZ": 8, "FLOAT8E8M0": 8,
    "UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2, "FLOAT6E2M3": 6, "FLOAT6E3M2": 6,
}  # fmt: skip
_TYPES: Final = dict(onnx.TensorProto.DataType.items())
_BITS: Final = {_TYPES[name]: bits for name, bits in _BITS_BY_NAME.items() if name in _TYPES}
_TYPED_FIELDS: Final = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
FLOATS: Final = frozenset(_TYPES[name] for name in ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16"))
"""Types of weights that can be computed with."""
DATA_FIELDS: Final = (*_TYPED_FIELDS, "raw_data", "external_data", "data_location")
"""Where a tensor message keeps its values."""


def is_packed(tensor: onnx.TensorProto) -> bool:
    """Return whether several values of `tensor` share a byte."""
    return _BITS.get(tensor.data_type, 0) % 8 != 0


def may_be_sizes(tensor: onnx.TensorProto) -> bool:
    """Return whether `tensor` is a list of whole numbers, such as the sizes of parts.

    onnxruntime reads them when it opens a model, and refuses those that lie in another file.
    """
    whole = tensor.data_type in (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
    return whole and len(tensor.dims) <= 1 and count_bytes(tensor) < _LONGEST_LIST


def is_external(tensor: onnx.TensorProto) -> bool:
    """Return whether the values of `tensor` lie in another file."""
    return tensor.data_location == onnx.TensorProto.EXTERNAL


def count_bits(tensor: onnx.TensorProto) -> int:
    """Return the bits that the values of `tensor` take in packed form (strings: 0)."""
    return math.prod(tensor.dims) * _BITS.get(tensor.data_type, 0)


def count_bytes(tensor: onnx.TensorProto) -> int:
    """Return the bytes that hold these bits."""
    return (count_bits(tensor) + 7) // 8


def check_tensor(tensor: onnx.TensorProto, where: str) -> None:
    """Raise unless type, dimensions and the amount of data of `tensor` agree.

    Raises
    ------
    ModelFileError
        If the type is unknown, a dimension is negative, or there is too little or too much data.
    UnsafeModelError
        If the rank exceeds the limit, or the values are given both in the file and outside.
    """
    if tensor.data_type not in _BITS and tensor.data_type != onnx.TensorProto.STRING:
        raise ModelFileError(f"{where} has the unknown element type {tensor.data_type}")
    if len(tensor.dims) > _MAX_RANK:
        raise UnsafeModelError(f"{where} has {len(tensor.dims)} dimensions, more than the limit {_MAX_RANK}")
    if min(tensor.dims, default=0) < 0 or math.prod(tensor.dims) >= 2**60:
        raise ModelFileError(f"{where} has impossible dimensions {_show_dims(tensor)}")
    if tensor.HasField("segment"):
        raise ModelFileError(f"{where} is split into segments, which ONNX does not define")
    fields = [name for name in _TYPED_FIELDS if len(getattr(tensor, name))]
    raw = tensor.HasField("raw_data")
    if is_external(tensor):
        if fields or raw:
            raise UnsafeModelError(f"{where} is marked as external and also holds data in the file")
    elif raw:
        _check_raw(tensor, fields, where)
    else:
        _check_typed(tensor, fields, where)


def _check_raw(tensor: onnx.TensorProto, fields: list[str], where: str) -> None:
    if fields:
        raise ModelFileError(f"{where} holds its data twice: in raw_data and in {fields[0]}")
    if tensor.data_type == onnx.TensorProto.STRING:
        raise ModelFileError(f"{where} holds strings in raw_data")
    held, needed = len(tensor.raw_data), count_bytes(tensor)
    if held != needed:
        raise ModelFileError(f"{where} with dimensions {_show_dims(tensor)} needs {needed} bytes, but holds {held}")


def _check_typed(tensor: onnx.TensorProto, fields: list[str], where: str) -> None:
    count, bits = math.prod(tensor.dims), _BITS.get(tensor.data_type, 0)
    expected = helper.tensor_dtype_to_field(tensor.data_type)
    if any(name != expected for name in fields):
        raise ModelFileError(f"{where} holds data in {fields[0]}, expected {expected}")
    needed = count
    if bits in (2, 4):
        needed = (count * bits + 7) // 8
    elif tensor.data_type in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128):
        needed = 2 * count
    held = len(getattr(tensor, expected))
    if held != needed:
        raise ModelFileError(
            f"{where} with dimensions {_show_dims(tensor)} needs {needed} values in {expected}, but holds {held}"
        )


def _show_dims(tensor: onnx.TensorProto) -> str:
    return quote(list(tensor.dims))


def _view(raw: bytes | memoryview, tensor: onnx.TensorProto) -> np.ndarray[Any, Any]:
    """Return packed bytes as a read-only array of the tensor's type and dimensions."""
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    values = np.frombuffer(raw, dtype=dtype).reshape(tensor.dims)
    values.flags.writeable = False
    return values


class TensorStore:
    """Reads tensors of one model.

    Parameters
    ----------
    model_path : Path or None
        The model's file; external data is looked for beside it. None: a model in memory, without external data.

    Attributes
    ----------
    model_path : Path or None
    files : dict[str, DataFile]
        The external data files opened so far, by location.
    """

    def __init__(self, model_path: Path | None) -> None:
        self.model_path = model_path
        self.files: dict[str, DataFile] = {}
        self._folders = data_folders(model_path) if model_path is not None else ()
        self._verified: set[tuple[str, str]] = set()
        self._deferred: dict[str, Callable[[], Iterator[Buffer]]] = {}
        self._touched = 0

    def array(self, tensor: onnx.TensorProto) -> np.ndarray[Any, Any]:
        """Return the values of `tensor` as a read-only array with its dimensions.

        Types that numpy lacks come as `ml_dtypes`. Values are not copied where the layout allows it.

        Raises
        ------
        ModelFileError, UnsafeModelError
            As `check`.
        """
        where = f"tensor {quote(tensor.name)}"
        if not is_external(tensor) and tensor.HasField("raw_data"):
            # Every access to raw_data copies it, so look once; the full check is for what does not fit.
            raw = tensor.raw_data
            if _BITS.get(tensor.data_type, 0) >= _BYTE and len(raw) == count_bytes(tensor):
                return _view(raw, tensor)
        self.check(tensor, where)
        bits = _BITS.get(tensor.data_type, 0)
        if bits < 8 or not (is_external(tensor) or tensor.HasField("raw_data")):
            return self._unpack(tensor, where)
        return _view(self.raw(tensor), tensor)

    def _unpack(self, tensor: onnx.TensorProto, where: str) -> np.ndarray[Any, Any]:
        """Let onnx decode strings, typed fields and types of less than a byte."""
        if is_external(tensor):
            inner = onnx.TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=bytes(self.raw(tensor)))
        else:
            inner = tensor
        try:
            values = numpy_helper.to_array(inner)
        except (ValueError, TypeError, OverflowError, KeyError) as error:
            raise ModelFileError(f"{where} cannot be decoded: {quote(str(error))}") from error
        values.flags.writeable = False
        return values

    def raw(self, tensor: onnx.TensorProto) -> bytes | memoryview:
        """Return the little-endian packed bytes of a tensor that keeps them in raw_data or in another file."""
        if not is_external(tensor):
            return tensor.raw_data
        making = self._maker(tensor)
        if making is not None:
            return b"".join(making())
        self._make_room(count_bytes(tensor))
        extent = read_extent(tensor, f"tensor {quote(tensor.name)}")
        file = self._file(extent, f"tensor {quote(tensor.name)}")
        return memoryview(file.content)[extent.offset : extent.offset + count_bytes(tensor)]

    def checked_raw(self, tensor: onnx.TensorProto) -> bytes | memoryview:
        """Return `raw` of a tensor after `check`."""
        self.check(tensor, f"tensor {quote(tensor.name)}")
        return self.raw(tensor)

    def pieces(self, tensor: onnx.TensorProto) -> Iterator[Buffer]:
        """Yield what `checked_raw` returns in pieces that never fill the memory."""
        making = self._maker(tensor)
        if making is not None:
            yield from making()
            return
        whole = memoryview(self.checked_raw(tensor))
        for start in range(0, len(whole), _PIECE):
            yield whole[start : start + _PIECE]
            if is_external(tensor):
                self._make_room(_PIECE)

    def defer(self, tensor: onnx.TensorProto, pieces: Callable[[], Iterator[Buffer]]) -> None:
        """Let the values of `tensor` be made when they are read: it refers to `pieces` instead of a file.

        Such a tensor is known to this store only, and is never written as it is.

        Parameters
        ----------
        tensor : TensorProto
            With its type and dimensions; changed in place.
        pieces : callable
            Gives its little-endian packed bytes, anew at each call.
        """
        location = f"{_DEFERRED}{len(self._deferred)}"
        self._deferred[location] = pieces
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    def _maker(self, tensor: onnx.TensorProto) -> Callable[[], Iterator[Buffer]] | None:
        """Return what makes a deferred tensor, None for all others."""
        if not is_external(tensor) or len(tensor.external_data) != 1:
            return None
        return self._deferred.get(tensor.external_data[0].value)

    def _make_room(self, size: int) -> None:
        """Let go of the mapped pages that were read so far, once in a while; they come back when read again."""
        self._touched += size
        if self._touched > _RESIDENT:
            self._touched = size
            for file in self.files.values():
                file.release()

    def check(self, tensor: onnx.TensorProto, where: str) -> tuple[DataFile, Extent] | None:
        """Raise unless `tensor` can be read; return where its external data lies, if it has any.

        Raises
        ------
        ModelFileError
            If data is missing, too short or too long, or has another checksum.
        UnsafeModelError
            If the tensor points out of the model's folder, or its entries are not what ONNX defines.
        """
        check_tensor(tensor, where)
        if not is_external(tensor) or self._maker(tensor) is not None:
            return None
        if tensor.data_type == onnx.TensorProto.STRING:
            raise ModelFileError(f"{where} holds strings in external data, which ONNX does not define")
        extent = read_extent(tensor, where)
        file = self._file(extent, where)
        needed = count_bytes(tensor)
        given = file.size - extent.offset if extent.length is None else extent.length
        if extent.offset + max(given, needed) > file.size or given != needed:
            raise ModelFileError(
                f"{where} with dimensions {_show_dims(tensor)} needs {needed} bytes, but {quote(extent.location)} "
                f"of {file.size} bytes gives {given} at offset {extent.offset}"
            )
        if extent.checksum is not None and (extent.location, extent.checksum) not in self._verified:
            check_sum(file, extent.checksum, where)
            self._verified.add((extent.location, extent.checksum))
        return file, extent

    def check_all(self, tensors: Iterable[HeldTensor]) -> None:
        """Check every tensor of a model, and that no two of them share only a part of their bytes.

        Raises
        ------
        ModelFileError
            As `check`.
        UnsafeModelError
            As `check`; also if two ranges in one file overlap without being equal.
        """
        ranges: dict[tuple[int, int], dict[tuple[int, int], str]] = {}
        for held in tensors:
            external = self.check(held.tensor, held.where)
            if external is not None and count_bytes(held.tensor):
                file, extent = external
                span = (extent.offset, extent.offset + count_bytes(held.tensor))
                ranges.setdefault(file.identity, {}).setdefault(span, held.where)
        for spans in ranges.values():
            ordered = sorted(spans)
            for before, after in pairwise(ordered):
                if after[0] < before[1]:
                    raise UnsafeModelError(f"{spans[before]} and {spans[after]} overlap in their external data")

    def _file(self, extent: Extent, where: str) -> DataFile:
        if not self._folders:
            raise ModelFileError(
                f"{where} has external data, but the model was given in memory",
                hint="load the model from its file, or use onnx.load with load_external_data=True",
            )
        if extent.location not in self.files:
            self.files[extent.location] = open_data_file(self._folders, extent.location, where)
        return self.files[extent.location]
