# SPDX-License-Identifier: Apache-2.0
"""Cutting: slices of a stored tensor that are taken when they are written, a piece at a time.

A tensor of hundreds of megabytes in a data file is not cut in memory: the pruned model holds a
deferred tensor in its place (`TensorStore.defer`), and whoever writes or compares it gets pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, numpy_helper

from graphprune.array_types import Array, Mask
from graphprune.model.files.messages import copy_but
from graphprune.model.tensors import DATA_FIELDS, count_bytes, is_external, is_packed

if TYPE_CHECKING:
    from graphprune.model.tensors import TensorStore

__all__ = ["cut_array", "cut_tensor"]


_DEFERRED = 1 << 20
"""Bytes of external data from which on a tensor is cut when it is written."""
_PIECE = 1 << 24


def cut_array(array: Array, masks: Sequence[Mask]) -> Array:
    """Take the slices of an array that stay; the axis that loses most goes first."""
    for axis in sorted(range(len(masks)), key=lambda axis: float(masks[axis].mean()) if len(masks[axis]) else 1.0):
        if not masks[axis].all():
            array = np.compress(masks[axis], array, axis=axis)
    return array


def cut_tensor(store: TensorStore, tensor: TensorProto, masks: Sequence[Mask], name: str | None = None) -> TensorProto:
    """Return a tensor message with the slices that stay; whatever else it says is kept, its name too if none is given.

    Parameters
    ----------
    store : TensorStore
        Reads the tensor, and keeps what a deferred tensor is made from.
    masks : sequence of ndarray of bool
        For each axis, which slices stay.
    """
    result = TensorProto()
    copy_but(tensor, result, "dims", *DATA_FIELDS)
    if name is not None:
        result.name = name
    result.dims.extend(int(mask.sum()) for mask in masks)
    if is_external(tensor) and count_bytes(tensor) >= _DEFERRED:
        store.defer(result, lambda: _cut_pieces(store.array(tensor), masks, packed=is_packed(tensor)))
    else:
        result.raw_data = _bytes(cut_array(store.array(tensor), masks), packed=is_packed(tensor))
    return result


def _bytes(array: Array, *, packed: bool) -> bytes:
    whole = np.ascontiguousarray(array)
    return numpy_helper.from_array(whole).raw_data if packed else whole.tobytes()


def _cut_pieces(array: Array, masks: Sequence[Mask], *, packed: bool) -> Iterator[bytes]:
    """Yield the bytes of the slices that stay, in order, looking at few bytes of the array at a time."""
    if packed or not masks or array.nbytes <= _PIECE:
        yield _bytes(cut_array(array, masks), packed=packed)
        return
    row = array.nbytes // len(array)
    if row > _PIECE:
        for index in np.flatnonzero(masks[0]).tolist():
            yield from _cut_pieces(array[index], masks[1:], packed=False)
        return
    for start in range(0, len(array), _PIECE // row):
        rows = slice(start, start + _PIECE // row)
        if masks[0][rows].any():
            yield cut_array(array[rows], (masks[0][rows], *masks[1:])).tobytes()
