# SPDX-License-Identifier: Apache-2.0
"""Which axis of every input counts samples, as far as the inputs together say.

==============================================  ==========================================================
the inputs declare                              axes of the samples
==============================================  ==========================================================
``image [?, 3, 64, 64]``                        0: of a single input the first
``x [batch, 512]``, ``state [2, batch, 128]``   0 and 1: those with the name of the batch
``x [?, 512]``, ``state [2, ?, 128]``           0 and 1: the first, or else the only open one
``x [?, 512]``, ``scale [1, 2]``, ``rate []``   0, and none for the others: they are the same for all samples
``x [1, 512]``, ``state [2, 1, 128]``           0 and 1: those that all have the same size
``x [?, 512]``, ``state [2, ?, ?]``             0, and unclear
==============================================  ==========================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import TensorShapeProto, TypeProto

__all__ = ["UNCLEAR", "Declared", "fixed_size", "is_name", "sample_axes"]

UNCLEAR = -1
"""Stands for an axis that is there, but cannot be told from others."""


@dataclass(frozen=True)
class Declared:
    """The shape that an input declares.

    Parameters
    ----------
    sizes : tuple of (int or None)
        None where a dimension is open.
    names : tuple of str
        Of the open dimensions; empty where one has none.
    """

    sizes: tuple[int | None, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, kind: TypeProto) -> Declared | None:
        """Return what a type of tensors declares; None without a shape."""
        if not kind.tensor_type.HasField("shape"):
            return None
        dims = kind.tensor_type.shape.dim
        return cls(tuple(map(fixed_size, dims)), tuple(dim.dim_param if is_name(dim.dim_param) else "" for dim in dims))

    @property
    def open(self) -> tuple[int, ...]:
        """The axes that are open."""
        return tuple(axis for axis, size in enumerate(self.sizes) if size is None)


def fixed_size(dim: TensorShapeProto.Dimension) -> int | None:
    """Return what a dimension is declared to be, None where it is open: some exporters write -1 for that.

    A size of 0 is one, as of a cache that is still empty: onnxruntime takes no other.
    """
    return dim.dim_value if dim.WhichOneof("value") == "dim_value" and dim.dim_value >= 0 else None


def is_name(param: str) -> bool:
    """Whether a dimension is named: some exporters write "?" or "-1" for every open one, whatever their sizes are."""
    return any(character.isalpha() for character in param)


def sample_axes(inputs: Sequence[Declared | None]) -> tuple[int | None, ...]:
    """Return the axis that counts samples for every input; None where none does, `UNCLEAR` where several may.

    Inputs without a declared shape count samples on axis 0.
    """
    there = [one for one in inputs if one is not None and one.sizes]
    name = _batch_name(there)
    if not name and len(inputs) == 1:
        return tuple(0 if one is None or one.sizes else None for one in inputs)
    if name or any(one.sizes[0] is None for one in there):
        return tuple(0 if one is None else _open_axis(one, name) for one in inputs)
    size = _common_size(there)
    return tuple(0 if one is None else _fixed_axis(one, size) for one in inputs)


def _batch_name(inputs: Sequence[Declared]) -> str:
    """Return the name of the dimension that counts samples; empty where none has such a name.

    It is called "batch", or it is the one name that all inputs with open axes have: of several the first that is on
    axis 0 of one, and only if there is a single one any other that is not the last axis of all.
    """
    names = dict.fromkeys(name for one in inputs for name in one.names if name)
    called = [name for name in names if "batch" in name.lower()]
    if called:
        return called[0]
    opened = [one for one in inputs if one.open]
    common = [name for name in names if all(name in one.names for one in opened)]
    first = [name for name in common if any(one.names[0] == name for one in opened)]
    if len(opened) < _SEVERAL or not any(one.sizes[0] is None for one in opened):
        return ""
    inner = [name for name in common if any(one.names[-1] != name for one in opened)]  # tokens of a text come last
    return first[0] if first else inner[0] if len(common) == 1 == len(inner) else ""


_SEVERAL = 2


def _open_axis(one: Declared, name: str) -> int | None:
    """Return the axis of one input where samples are counted by an open axis, which perhaps has a name."""
    if name and name in one.names:
        return one.names.index(name)
    if not one.open:
        return None
    if 0 in one.open:
        return 0
    unnamed = [axis for axis in one.open if not (name and one.names[axis])]
    return None if not unnamed else unnamed[0] if len(unnamed) == 1 else UNCLEAR


def _common_size(inputs: Sequence[Declared]) -> int | None:
    """Return a size of a first axis that all inputs have on some axis; None where there is none."""
    sizes = [one.sizes[0] for one in inputs]
    return next((size for size in sizes if all(size in one.sizes or len(one.open) == 1 for one in inputs)), None)


def _fixed_axis(one: Declared, size: int | None) -> int | None:
    """Return the axis of one input where samples are counted by an axis of a fixed size."""
    if not one.sizes:
        return None
    if size is None or one.sizes[0] == size:
        return 0
    return one.sizes.index(size) if size in one.sizes else one.open[0]
