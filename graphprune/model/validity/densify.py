# SPDX-License-Identifier: Apache-2.0
"""Sparse weights become dense ones when a model is loaded: channels are cut out of dense tensors.

A sparse initializer becomes an initializer, the `sparse_value` of a `Constant` its `value`, in bodies and functions
too. Indices may be linear, shape (n,), or one row per value, shape (n, rank).
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np
from onnx import AttributeProto, ModelProto, SparseTensorProto, TensorProto, numpy_helper

from graphprune.errors import ModelFileError, UnsafeModelError, quote
from graphprune.model.validity.survey import survey

if TYPE_CHECKING:
    from collections.abc import Callable

    from graphprune.array_types import Array, Ints

    Read = Callable[[TensorProto], Array]

__all__ = ["densified"]


def densified(proto: ModelProto, read: Read, *, most_bytes: int) -> ModelProto:
    """Return a copy of a model in which every sparse tensor is a dense one.

    Parameters
    ----------
    read : callable
        Gives the array of a stored tensor.
    most_bytes : int
        How large all dense tensors may become together.

    Raises
    ------
    ModelFileError
        If indices do not fit their tensor.
    UnsafeModelError
        If the dense tensors would be larger than allowed.
    """
    result = ModelProto()
    result.CopyFrom(proto)
    held = survey(result)
    size = 0
    for tensor in held.sparse:
        size += prod(max(dim, 0) for dim in tensor.dims) * _item_bytes(tensor)
        if size > most_bytes:
            raise UnsafeModelError(
                f"sparse tensor {quote(tensor.values.name)} of shape {list(tensor.dims)} would take more than the "
                f"limit of {most_bytes} bytes as a dense one",
                hint="if the model is trustworthy, raise graphprune.model.load.Limits in a script",
            )
    for graph in held.graphs:
        graph.initializer.extend(_dense(tensor, tensor.values.name, read) for tensor in graph.sparse_initializer)
        graph.ClearField("sparse_initializer")
    for node in held.nodes:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.SPARSE_TENSOR and node.op_type == "Constant":
                dense = _dense(attribute.sparse_tensor, node.output[0], read)
                attribute.ClearField("sparse_tensor")
                attribute.name, attribute.type = "value", AttributeProto.TENSOR
                attribute.t.CopyFrom(dense)
    return result


def _item_bytes(tensor: SparseTensorProto) -> int:
    if not tensor.values.data_type:
        raise ModelFileError(f"sparse tensor {quote(tensor.values.name)} has no values of a known type")
    return int(numpy_helper.to_array(TensorProto(data_type=tensor.values.data_type, dims=[0])).itemsize)


def _dense(tensor: SparseTensorProto, name: str, read: Read) -> TensorProto:
    """Spread the values of a sparse tensor over its shape; what has no value is zero."""
    shown = f"sparse tensor {quote(name)}"
    values, indices = read(tensor.values), read(tensor.indices)
    dims = tuple(tensor.dims)
    if min(dims, default=1) < 0 or indices.dtype != np.int64 or values.ndim != 1:
        raise ModelFileError(
            f"{shown} has shape {list(dims)}, {values.ndim} axes of values and {indices.dtype} indices"
        )
    flat = _linear(indices, dims)
    if flat is None or flat.shape != values.shape:
        raise ModelFileError(f"{shown} has indices of shape {list(indices.shape)} that do not fit shape {list(dims)}")
    dense = np.zeros(prod(dims), dtype=values.dtype)
    dense[flat] = values
    return numpy_helper.from_array(dense.reshape(dims), name)


def _linear(indices: Ints, dims: tuple[int, ...]) -> Ints | None:
    """Return the positions in row-major order, None where some lie outside."""
    if indices.ndim == 2 and indices.shape[1] == len(dims):
        if (indices < 0).any() or (indices >= np.asarray(dims)).any():
            return None
        return np.ravel_multi_index(tuple(indices.T), dims).astype(np.int64) if indices.size else indices[:, 0]
    inside = indices.ndim == 1 and not ((indices < 0) | (indices >= prod(dims))).any()
    return indices if inside else None
