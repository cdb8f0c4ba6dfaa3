# SPDX-License-Identifier: Apache-2.0
"""Declared shapes: what a file says of the sizes of its values stays true when slices go, or is taken back.

Runtimes plan memory by declared shapes, and take two dimensions of one name for equal. So a size that is named follows
the labels; a symbol (``8*N``) on an axis that loses slices is false from then on, and nobody can say which is
true: the dimension stays open. A shape that was false before goes altogether: one of another rank than the value has,
or with a number in it that is not the size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from onnx import ValueInfoProto

__all__ = ["follow_sizes", "forget_false_shapes", "is_false"]


def follow_sizes(value: ValueInfoProto, before: tuple[int, ...] | None, now: tuple[int, ...] | None) -> None:
    """Bring the declared shape of one value into line with its sizes, in place.

    Parameters
    ----------
    value : ValueInfoProto
    before, now : tuple of int, or None
        Sizes of the value in the original and in the result; None where they are not known: `before` for a value that
        no label reaches, `now` for a constant that cannot be computed any more.
    """
    kind = value.type.tensor_type
    if before is None or before == now or value.type.WhichOneof("value") != "tensor_type" or not kind.HasField("shape"):
        return
    if now is None or not len(kind.shape.dim) == len(before) == len(now):
        kind.ClearField("shape")
        return
    for dim, full, size in zip(kind.shape.dim, before, now, strict=True):
        if size == full:
            continue
        if dim.WhichOneof("value") == "dim_value" and dim.dim_value > 0:
            dim.dim_value = size
        else:
            dim.ClearField("value")


def is_false(value: ValueInfoProto, dims: tuple[int, ...] | None) -> bool:
    """Whether the shape that a file declares of a value is not the one that the value has.

    Parameters
    ----------
    value : ValueInfoProto
    dims : tuple of int, or None
        Sizes of the value; of what is not known nothing is false.
    """
    kind = value.type.tensor_type
    if dims is None or value.type.WhichOneof("value") != "tensor_type" or not kind.HasField("shape"):
        return False
    declared = [dim.dim_value if dim.WhichOneof("value") == "dim_value" else None for dim in kind.shape.dim]
    return len(declared) != len(dims) or any(
        number is not None and number != size for number, size in zip(declared, dims, strict=True)
    )


def forget_false_shapes(values: Iterable[ValueInfoProto], dims: Mapping[str, tuple[int, ...]]) -> None:
    """Take back declared shapes of another rank than values have, in place.

    onnxruntime merges them with what it infers, is left with none, and then has none for what a Scan gives; only where
    it optimises a graph it may get by.
    """
    for value in values:
        kind = value.type.tensor_type
        known = dims.get(value.name)
        if known is not None and kind.HasField("shape") and len(kind.shape.dim) != len(known):
            kind.ClearField("shape")
