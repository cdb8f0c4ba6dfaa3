# SPDX-License-Identifier: Apache-2.0
"""Samples from objects of Python: arrays, dicts of arrays, loaders of torch, and whatever else can be gone through.

An *entry* is what one step of a loader gives: inputs, or inputs and targets. Inputs are a dict by input name, one array
for a model with one input, or arrays in the order of the inputs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphprune.data.arrays import LABELS, from_arrays
from graphprune.errors import DataError, GraphPruneError, quote
from graphprune.model.files.main_memory import main_memory

if TYPE_CHECKING:
    from graphprune.array_types import Array
    from graphprune.data.preprocessing import Preprocessing
    from graphprune.data.signature import InputSpec
    from graphprune.data.source import Source

__all__ = ["FORM", "bounded", "from_entries", "from_object"]

FORM = (
    "each step gives {input name: array}, or ({input name: array}, targets); axis 0 counts samples, or the axis where "
    "the model has them"
)
_LOADER = "it gives one sample at a time; give a loader of it: torch.utils.data.DataLoader(dataset, batch_size=64)"
_PAIR = 2
_SHARE = 4
"""A part of main memory."""
_ENTRY = 1 << 10
"""Bytes that an entry takes beside its numbers."""


def from_object(
    given: object, specs: Sequence[InputSpec], labels: object | None, preprocessing: Preprocessing
) -> Source:
    """Return the samples that an object of Python holds.

    Parameters
    ----------
    given : array, mapping of str to array, or iterable of entries
        Arrays are those of numpy, or whatever numpy makes one of: tensors of torch, too.
    specs : sequence of InputSpec
        What the model takes.
    labels : array, optional
        Classes, where the object holds none itself.
    preprocessing : Preprocessing
        Of 8-bit images.

    Raises
    ------
    DataError
        If it holds nothing that fits the model.
    """
    name = type(given).__name__
    if isinstance(given, Mapping):
        arrays = {str(key): _array(value) for key, value in given.items()}
        own = arrays.pop(LABELS, None) if all(spec.name != LABELS for spec in specs) else None
        return from_arrays(name, specs, arrays, _classes(own if labels is None else _array(labels)), preprocessing)
    if _is_array(given):
        return from_arrays(name, specs, _by_name(given, specs, name), _classes(labels), preprocessing)
    if not isinstance(given, Iterable) or isinstance(given, str | bytes):
        single = hasattr(given, "__getitem__") and not isinstance(given, Iterable)
        raise DataError(
            f"samples cannot be a {quote(name)}",
            hint=_LOADER if single else f"an array, a dict of arrays, or an iterable; {FORM}",
        )
    if labels is not None:
        raise DataError(
            f"labels are given beside a {quote(name)}", hint="an iterable gives its targets itself: " + FORM
        )
    return from_entries(name, given, specs, preprocessing)


def from_entries(
    name: str, entries: Iterable[object], specs: Sequence[InputSpec], preprocessing: Preprocessing
) -> Source:
    """Return the samples of all entries, kept in memory.

    Raises
    ------
    DataError
        If there are none, they do not belong together, or do not fit the model.
    """
    feeds: list[dict[str, Array]] = []
    targets: list[Array | None] = []
    for entry in _entries(name, entries):
        inputs, target = _split(entry, specs)
        feeds.append(_by_name(inputs, specs, name))
        targets.append(None if target is None else _array(target))
    if not feeds:
        raise DataError(f"{name} yields nothing", hint=FORM)
    if any(set(entry) != set(feeds[0]) for entry in feeds):
        raise DataError(f"{name} yields inputs of different names", hint=FORM)
    if len({target is None for target in targets}) > 1:
        raise DataError(f"{name} yields targets with some of its inputs only", hint=FORM)
    try:
        axes = {spec.name: spec.samples for spec in specs}
        arrays = {key: _joined([entry[key] for entry in feeds], axes.get(key, 0)) for key in feeds[0]}
        labels = None if targets[0] is None else np.concatenate([each for each in targets if each is not None])
    except ValueError as error:
        raise DataError(f"{name} yields arrays that cannot be joined: {quote(str(error))}", hint=FORM) from error
    return from_arrays(name, specs, arrays, _classes(labels), preprocessing)


def bounded(name: str, entries: Iterable[object]) -> Iterator[object]:
    """Yield entries that are kept in memory, as long as there is room: an iterable may have no end.

    Raises
    ------
    DataError
        If all so far take more than a quarter of main memory.
    """
    held, most = 0, main_memory() // _SHARE
    for entry in entries:
        held += _ENTRY + _bytes(entry, most)
        if held > most:
            raise DataError(
                f"{name} has not ended after {most / 1e9:.1f} GB of samples, and all are kept in memory",
                hint="end it after as many as are needed (itertools.islice), or give an .npz file or a folder",
            )
        yield entry


def _bytes(entry: object, most: int) -> int:
    """Return the bytes that an entry holds, as far as its parts say; of nested lists no more is counted than `most`."""
    held, parts = 0, [entry]
    while parts and held <= most:
        part = parts.pop()
        if isinstance(part, Mapping):
            parts += part.values()
        elif isinstance(part, list | tuple):
            held += sys.getsizeof(part, 0)
            parts += part
        else:
            size = getattr(part, "nbytes", None)
            held += size if isinstance(size, int) else sys.getsizeof(part, 0)
    return held


def _entries(name: str, entries: Iterable[object]) -> Iterator[object]:
    """Yield what an iterable of the caller yields; what it raises is said to be its own."""
    iterator = iter(bounded(name, entries))
    while True:
        try:
            entry = next(iterator)
        except StopIteration:
            return
        except GraphPruneError:
            raise
        except Exception as error:  # a dataset of the caller raises whatever it likes
            raise DataError(f"{name} raised {type(error).__name__}: {quote(str(error))}") from error
        yield entry


def _split(entry: object, specs: Sequence[InputSpec]) -> tuple[object, object | None]:
    """Return inputs and targets of an entry."""
    if not isinstance(entry, list | tuple):
        return entry, None
    if len(entry) == _PAIR and (isinstance(entry[0], Mapping) or len(specs) == 1):
        return entry[0], entry[1]
    if len(entry) == 1:
        return entry[0], None
    if len(entry) == len(specs) + 1:
        return entry[:-1], entry[-1]
    return entry, None


def _by_name(inputs: object, specs: Sequence[InputSpec], name: str) -> dict[str, Array]:
    """Return arrays by the names of the inputs.

    Raises
    ------
    DataError
        If there is not one for each.
    """
    if isinstance(inputs, Mapping):
        return {str(key): _array(value) for key, value in inputs.items()}
    if len(specs) == 1 and _is_array(inputs):
        return {specs[0].name: _array(inputs)}
    if isinstance(inputs, list | tuple) and len(inputs) == len(specs) and all(map(_is_array, inputs)):
        return {spec.name: _array(value) for spec, value in zip(specs, inputs, strict=True)}
    names = ", ".join(quote(spec.name) for spec in specs)
    raise DataError(f"{name} yields {quote(type(inputs).__name__)} for the inputs {names}", hint=FORM)


def _is_array(value: object) -> bool:
    return hasattr(value, "__array__")


def _array(value: Any) -> Array:
    """Return an array; a tensor of torch may be on a device, or part of a graph of gradients."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    array: Array = np.asarray(value)
    return array


def _classes(labels: object | None) -> Array | None:
    if labels is None:
        return None
    array = _array(labels)
    return array.astype(np.int64) if array.dtype.kind in "iu" else array


def _joined(parts: list[Array], axis: int | None) -> Array:
    """Return all samples of an input, which lie on this axis; what is the same for all of them is one."""
    one = axis is None or not any(part.ndim for part in parts)
    if one and all(np.array_equal(part, parts[0]) for part in parts):
        return parts[0]
    if axis is None:
        raise ValueError("an input that is the same for all samples has different values")
    return np.concatenate(parts, axis=max(axis, 0))
