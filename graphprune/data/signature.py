# SPDX-License-Identifier: Apache-2.0
"""The inputs that a model declares, and whether arrays fit them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper

from graphprune.array_types import Array
from graphprune.errors import DataError, UnsupportedModelError, quote
from graphprune.model.sizes.batch_axes import Declared, sample_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnx import TypeProto

    from graphprune.model.load import Model

__all__ = ["InputSpec", "batch_size", "fitted", "input_specs"]


@dataclass(frozen=True)
class InputSpec:
    """One graph input.

    Parameters
    ----------
    name : str
    dtype : numpy.dtype
    dims : tuple of (int or None), or None
        Declared sizes, None where a dimension is dynamic; None altogether without a declared shape.
    samples : int or None
        The axis that counts samples; None for what is the same for all of them, `UNCLEAR` where it cannot be told.
    """

    name: str
    dtype: np.dtype[Any]
    dims: tuple[int | None, ...] | None
    samples: int | None = 0

    @property
    def counted(self) -> int | None:
        """How many samples are fed at once; None where that is open, or nothing counts them."""
        return self.dims[self.samples] if self.dims and self.samples is not None and self.samples >= 0 else None

    @property
    def is_image(self) -> bool:
        """Whether an image can be fed: four axes, numbers of at least eight bits."""
        return self.dims is not None and len(self.dims) == 4 and self.dtype.kind in "fui"

    def __str__(self) -> str:
        dims = "an undeclared shape" if self.dims is None else "x".join("?" if d is None else str(d) for d in self.dims)
        return f"{quote(self.name)} ({self.dtype} of {dims})"


def input_specs(model: Model) -> tuple[InputSpec, ...]:
    """Return what a model wants to be fed, in its own order.

    Raises
    ------
    UnsupportedModelError
        If an input is no tensor of numbers.
    """
    stored = {tensor.name for tensor in model.proto.graph.initializer}
    inputs = [value for value in model.proto.graph.input if value.name not in stored]
    axes = sample_axes([Declared.of(value.type) for value in inputs])
    return tuple(_spec(value.name, value.type, axis) for value, axis in zip(inputs, axes, strict=True))


def _spec(name: str, kind: TypeProto, axis: int | None) -> InputSpec:
    if kind.WhichOneof("value") != "tensor_type":
        raise UnsupportedModelError(f"input {quote(name)} is no tensor; only tensors can be fed")
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type))
    if dtype.kind not in "fiub":
        raise UnsupportedModelError(f"input {quote(name)} holds {dtype} values; only numbers can be fed")
    declared = Declared.of(kind)
    return InputSpec(name, dtype, None if declared is None else declared.sizes, axis)


def batch_size(specs: Sequence[InputSpec]) -> int | None:
    """Return the number of samples that a model takes at once; None where it takes any number.

    Raises
    ------
    UnsupportedModelError
        If two inputs declare different numbers.
    """
    fixed = {spec.counted for spec in specs if spec.counted is not None}
    if not fixed:
        return None
    if len(fixed) > 1:
        raise UnsupportedModelError(f"the inputs declare different batch sizes: {', '.join(map(str, specs))}")
    return fixed.pop()


def fitted(array: Array, spec: InputSpec, where: str, *, batch: bool = True) -> Array:
    """Return an array as the model takes it.

    Parameters
    ----------
    array : ndarray
        With an axis that counts samples if `batch`; otherwise of exactly the declared shape.
    spec : InputSpec
        What it is fed to.
    where : str
        Where the array comes from, for messages.
    batch : bool
        Whether an axis counts samples, of which the model's own batch size says nothing.

    Raises
    ------
    DataError
        If shape or type do not fit, or a float is not finite.
    """
    if spec.dims is not None:
        pairs = list(zip(array.shape, spec.dims, strict=False))
        if batch and spec.samples is not None:
            del pairs[spec.samples : spec.samples + 1]
        if array.ndim != len(spec.dims) or any(want not in (None, have) for have, want in pairs):
            shape = "x".join(map(str, array.shape)) or "no axes"
            hint = _shape_hint(array, spec, batch=batch)
            raise DataError(f"{where}: an array of {shape} does not fit input {spec}", hint=hint)
    if array.dtype != spec.dtype:
        array = _converted(array, spec, where)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{where}: the values for input {spec} hold NaN or infinity")
    return array


def _shape_hint(array: Array, spec: InputSpec, *, batch: bool) -> str | None:
    """Say what is often the matter with a shape."""
    dims = spec.dims or ()
    if batch and array.ndim + 1 == len(dims) and spec.samples:
        return f"axis {spec.samples} must count samples; for a single one use numpy.expand_dims(array, {spec.samples})"
    if batch and array.ndim + 1 == len(dims):
        return "the first axis must count samples; for a single one use array[None]"
    if batch and spec.samples and array.ndim == len(dims):
        first, *moved = array.shape
        moved.insert(spec.samples, first)
        if all(want in (None, size) for size, want in zip(moved, dims, strict=True)):
            return f"axis {spec.samples} of this input counts samples: numpy.moveaxis(array, 0, {spec.samples})"
    if array.ndim == len(dims) == 4 and dims[1] in (1, 3) and array.shape[-1] == dims[1]:
        return "the array has its channels last, the model wants them first: array.transpose(0, 3, 1, 2)"
    return None


def _converted(array: Array, spec: InputSpec, where: str) -> Array:
    """Return the array in the model's type, unless that would change what it says."""
    kinds = array.dtype.kind + spec.dtype.kind
    if kinds in ("ff", "ii", "uu", "iu", "ui"):
        if kinds != "ff" and array.size:
            limits = np.iinfo(spec.dtype)
            if int(array.min()) < limits.min or int(array.max()) > limits.max:
                raise DataError(f"{where}: values from {array.min()} to {array.max()} do not fit input {spec}")
        return array.astype(spec.dtype)
    raise DataError(
        f"{where}: {array.dtype} values cannot be fed to input {spec}",
        hint="convert and normalise them; only 8-bit images are normalised here (--mean, --std)",
    )
