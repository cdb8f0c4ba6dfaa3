# SPDX-License-Identifier: Apache-2.0
"""The tensors of a pruned model, compared bit for bit with slices of the original's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NoReturn

import numpy as np
from onnx import TensorProto, helper

from graphprune.array_types import Array
from graphprune.errors import GraphPruneError, VerificationError, quote
from graphprune.model.files.messages import differing
from graphprune.model.tensors import DATA_FIELDS, TensorStore, is_external, is_packed
from graphprune.verification.fidelity.expectation import Demands, Expectation, Masks

__all__ = ["TensorCheck"]


_WHOLE = 1 << 24  # bytes of a tensor up to which it is compared at once

_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


class TensorCheck:
    """Compares every tensor with what its readers have to find.

    Parameters
    ----------
    tensors : TensorStore
        Of the pruned model.
    """

    def __init__(self, expectation: Expectation, tensors: TensorStore, demands: Demands) -> None:
        self._analysis = expectation.analysis
        self._tensors = tensors
        self._demands = demands

    def run(
        self,
        stored: Mapping[str, TensorProto],
        added: Mapping[str, TensorProto],
        shares: Mapping[str, tuple[float, str]],
    ) -> None:
        """Compare all tensors.

        Raises
        ------
        VerificationError
            If one is not what the plan makes of the original.
        """
        for name, tensor in stored.items():
            self._check_stored(name, tensor)
        for name, tensor in added.items():
            if name in shares:
                self._check_share(tensor, *shares[name])
            elif name in self._demands.sizes:
                self._check_sizes(tensor)
            else:
                self._check_added(tensor)

    def _check_stored(self, name: str, tensor: TensorProto) -> None:
        original = self._analysis.constants.stored(name)
        if original is None:
            _fail(name, "is no tensor of the original")
        if tensor == original and not self._is_cut(name):
            return
        fields = differing(original, tensor, "dims", *DATA_FIELDS)
        if fields:
            _fail(name, f"has another {fields[0]}")
        masks = self._agreed(name, self._demands.stored.get(name, []))
        self._compare(tensor, self._analysis.model.tensors.array(original), masks)

    def _is_cut(self, name: str) -> bool:
        return any(not mask.all() for masks in self._demands.stored.get(name, ()) for mask in masks)

    def _agreed(self, name: str, wanted: list[Masks]) -> Masks:
        """Return what all readers want; they cannot be served by one tensor if they differ."""
        if not wanted:
            return tuple(np.ones(size, dtype=np.bool_) for size in self._analysis.shapes.dims[name])
        for masks in wanted[1:]:
            if any(not np.array_equal(first, mask) for first, mask in zip(wanted[0], masks, strict=True)):
                _fail(name, "is read by nodes that need different slices")
        return wanted[0]

    def _check_added(self, tensor: TensorProto) -> None:
        wanted = self._demands.added.get(tensor.name, [])
        if not wanted:
            _fail(tensor.name, "is new, and replaces no constant")
        source = wanted[0][0]
        if any(name != source for name, _ in wanted):
            _fail(tensor.name, "replaces two different constants")
        masks = self._agreed(source, [masks for _, masks in wanted])
        try:
            original = self._analysis.constants.array(source)
        except KeyError:
            _fail(tensor.name, f"replaces {quote(source)}, whose value is not known")
        if self._analysis.shapes.dtypes.get(source, tensor.data_type) != tensor.data_type:
            _fail(tensor.name, "has another data type than what it replaces")
        self._compare(tensor, original, masks)

    def _check_sizes(self, tensor: TensorProto) -> None:
        """Compare sizes and positions with what was there: as many at most, and of the same kind."""
        node, slot = self._demands.sizes[tensor.name]
        shapes = self._analysis.shapes
        old = node.inputs[slot] if slot < len(node.inputs) else ""
        known = old in shapes.dims
        # Sizes that were not spelled out before: one for each axis, or for each output.
        most = shapes.dims[old] if known else (max(len(node.outputs), len(shapes.dims.get(node.outputs[0], ()))),)
        if tensor.data_type != shapes.dtypes.get(old, TensorProto.INT64) or len(tensor.dims) != len(most):
            _fail(tensor.name, "is no list of sizes")
        if math.prod(tensor.dims) > math.prod(most):
            _fail(tensor.name, "lists more sizes than the original")
        self._read(tensor)

    def _check_share(self, tensor: TensorProto, share: float, scaled: str) -> None:
        dtype = self._analysis.shapes.dtypes.get(scaled, TensorProto.FLOAT)
        expected = np.asarray(share, dtype=helper.tensor_dtype_to_np_dtype(dtype))
        if tensor.data_type != dtype:
            _fail(tensor.name, "has another data type than what it scales")
        self._compare(tensor, expected, ())

    def _compare(self, tensor: TensorProto, original: Array, masks: Masks) -> None:
        """Compare with the slices of the original that stay, bit for bit."""
        expected = tuple(int(mask.sum()) for mask in masks)
        if tuple(tensor.dims) != expected:
            _fail(tensor.name, f"has the shape {list(tensor.dims)}, the plan leaves {list(expected)}")
        if is_external(tensor) and not is_packed(tensor) and original.nbytes > _WHOLE:
            same = _same_pieces(self._tensors.pieces(tensor), _cut_pieces(_bits(original), masks))
            if not same or helper.tensor_dtype_to_np_dtype(tensor.data_type) != original.dtype:
                _fail(tensor.name, "has other values than the slices that the plan leaves")
            return
        stored = self._read(tensor)
        if stored.dtype != original.dtype or not np.array_equal(_bits(stored), _cut(_bits(original), masks)):
            _fail(tensor.name, "has other values than the slices that the plan leaves")

    def _read(self, tensor: TensorProto) -> Array:
        try:
            return self._tensors.array(tensor)
        except GraphPruneError as error:
            _fail(tensor.name, error.message)


def _fail(name: str, text: str) -> NoReturn:
    raise VerificationError(
        f"the tensor {quote(name)} of the pruned model {text}",
        hint="nothing was written; this is a fault of graphprune, please report it",
    )


def _bits(array: Array) -> Array:
    """Look at floats as integers, so that NaN equals itself and -0 is not 0."""
    word = _WORDS.get(array.dtype.itemsize)
    return array if word is None or array.dtype.hasobject else np.ascontiguousarray(array).view(word)


def _same_pieces(first: Iterator[bytes | memoryview], second: Iterator[bytes | memoryview]) -> bool:
    """Whether two streams of pieces, cut at different places, hold the same bytes."""
    rest: list[memoryview] = [memoryview(b""), memoryview(b"")]
    streams = (first, second)
    while True:
        for at, stream in enumerate(streams):
            while not len(rest[at]):
                piece = next(stream, None)
                if piece is None:
                    return not len(rest[1 - at]) and not any(len(item) for item in streams[1 - at])
                rest[at] = memoryview(piece)
        size = min(len(rest[0]), len(rest[1]))
        # Bytes are compared at once, views one element after the other.
        if bytes(rest[0][:size]) != bytes(rest[1][:size]):
            return False
        rest = [rest[0][size:], rest[1][size:]]


def _cut_pieces(array: Array, masks: Masks) -> Iterator[bytes]:
    """Yield the bytes of the slices that stay, a part of the first axis that is longer than 1 at a time."""
    if array.nbytes <= _WHOLE or not masks:
        yield _cut(array, masks).tobytes()
        return
    rows = max(1, _WHOLE * len(array) // array.nbytes)
    for start in range(0, len(array), rows):
        part = array[start : start + rows]
        if rows > 1:
            yield _cut(part, (masks[0][start : start + rows], *masks[1:])).tobytes()
        elif masks[0][start]:
            yield from _cut_pieces(part[0], masks[1:])


def _cut(array: Array, masks: Masks) -> Array:
    """Take the slices that stay; the axis that loses most goes first."""
    for axis in sorted(range(len(masks)), key=lambda axis: float(masks[axis].mean()) if len(masks[axis]) else 1.0):
        if not masks[axis].all():
            array = array.take(np.flatnonzero(masks[axis]), axis)
    return array
