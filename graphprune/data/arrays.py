# SPDX-License-Identifier: Apache-2.0
"""Arrays: .npz and .npy files, and arrays in memory."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from graphprune.array_types import Array
from graphprune.checks import contained
from graphprune.data.preprocessing import ImageInput, Preprocessing
from graphprune.data.read_errors import check_unfolding, reading
from graphprune.data.signature import InputSpec, fitted
from graphprune.data.source import Batch, Source
from graphprune.errors import DataError, did_you_mean, quote
from graphprune.model.sizes.batch_axes import UNCLEAR

__all__ = ["ArrayReader", "from_arrays", "open_npy", "open_npz"]

_IMAGE_AXES = 4
_LOOKED_AT = 8
"""Samples whose range is looked at."""
_UNNAMED = "arr_0"
"""How numpy calls an array that is saved without a name."""
LABELS = "labels"
"""Name of the array of labels in an .npz file."""


@dataclass(frozen=True, eq=False)
class ArrayReader:
    """Samples that lie in arrays; 8-bit images among them become inputs when they are read.

    Parameters
    ----------
    specs : sequence of InputSpec
        What the model takes.
    arrays : mapping of str to ndarray
        By input name, with samples on the axis that the input has for them, unless the name is in `shared`. An array
        of one sample serves all.
    images : mapping of str to ImageInput
        The inputs whose arrays are 8-bit images, shape (n, height, width, channels).
    shared : frozenset of str
        Inputs that are the same for all samples.
    mismatch : float, optional
        How far what is fed as it is lies from what the model remembers of its inputs, once that was looked at.
    doubt : str
        What speaks against feeding it so.
    """

    specs: Sequence[InputSpec]
    arrays: Mapping[str, Array]
    targets: Array | None
    images: Mapping[str, ImageInput]
    shared: frozenset[str]
    name: str
    classes: tuple[str, ...] = ()
    mismatch: float | None = None
    doubt: str = ""

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return self.targets is not None

    def __len__(self) -> int:
        return max(_count(self.arrays[spec.name], spec) for spec in self.specs if spec.name not in self.shared)

    def read(self, positions: npt.NDArray[np.int64]) -> Batch:
        """Return these samples.

        Raises
        ------
        DataError
            If values are not finite.
        """
        feeds: dict[str, Array] = {}
        for spec in self.specs:
            array = self.arrays[spec.name]
            if spec.name in self.shared:
                feeds[spec.name] = fitted(array, spec, self.name, batch=False)
            elif spec.name in self.images:
                feeds[spec.name] = self.images[spec.name].fed(array[positions % len(array)])
            elif spec.samples:
                chosen = np.take(array, positions % _count(array, spec), axis=spec.samples)
                feeds[spec.name] = fitted(np.ascontiguousarray(chosen), spec, self.name)
            else:
                feeds[spec.name] = fitted(np.asarray(array[positions % len(array)]), spec, self.name)
        axes = {spec.name: spec.samples for spec in self.specs if spec.samples}
        return Batch(feeds, None if self.targets is None else self.targets[positions], self.shared, axes)


@contained
def from_arrays(
    name: str,
    specs: Sequence[InputSpec],
    arrays: Mapping[str, Array],
    labels: Array | None = None,
    preprocessing: Preprocessing | None = None,
) -> Source:
    """Return a source of arrays in memory.

    Parameters
    ----------
    name : str
        For messages.
    specs : sequence of InputSpec
        What the model takes.
    arrays : mapping of str to ndarray
        By input name. 8-bit arrays for a float input are images, shape (n, height, width, channels), or
        (n, channels, height, width) where they fit in no other way, and are normalised; everything else is fed as it
        is.
    labels : ndarray, shape (n, ...), optional
    preprocessing : Preprocessing, optional
        Of images.

    Raises
    ------
    DataError
        If inputs are missing, lengths differ, or an array does not fit its input.
    """
    arrays = _named(name, specs, arrays)
    images, shared = {}, set()
    for spec in specs:
        array = arrays[spec.name]
        if spec.samples == UNCLEAR:
            raise _unclear(name, spec)
        if array.dtype == np.uint8 and spec.dtype.kind == "f" and array.ndim == _IMAGE_AXES and spec.samples == 0:
            images[spec.name], arrays[spec.name] = _image(array, spec, preprocessing or Preprocessing(), name)
        elif spec.samples is None:
            fitted(array, spec, name, batch=False)
            shared.add(spec.name)
        elif len(specs) > 1 and _whole(array, spec, arrays, specs):
            shared.add(spec.name)
        else:
            fitted(array[:1] if not spec.samples else array, spec, name)
            if preprocessing is not None and preprocessing.normalises and spec.is_image:
                _check_range(np.asarray(array[:_LOOKED_AT]), spec, name)
    counted = [spec for spec in specs if spec.name not in shared]
    if not counted:
        raise DataError(f"{name}: no array has an axis that counts samples")
    _check_counts(name, {spec: _count(arrays[spec.name], spec) for spec in counted}, labels)
    return Source.whole(name, ArrayReader(specs, arrays, labels, images, frozenset(shared), name))


def _check_range(array: Array, spec: InputSpec, name: str) -> None:
    """Refuse pixels of 0 to 255 that are stored as floats, for a model whose images are normalised."""
    if array.size and array.min() >= 0 and 1 < array.max() <= np.iinfo(np.uint8).max and not np.any(array % 1):
        raise DataError(
            f"{name}: the array for input {spec} holds whole numbers from 0 to {array.max():g}; a mean or deviation of "
            "images is given, but arrays that are not of 8 bits are fed as they are",
            hint="store images as uint8 of shape (samples, height, width, channels)",
        )


def _count(array: Array, spec: InputSpec) -> int:
    """Return the number of samples in an array."""
    return int(array.shape[spec.samples or 0])


def _check_counts(name: str, counts: Mapping[InputSpec, int], labels: Array | None) -> None:
    """Refuse arrays of different numbers of samples; one that holds a single sample serves all."""
    most = max(counts.values())
    told = {
        f"{quote(spec.name)} {count}{f' (axis {spec.samples})' if spec.samples else ''}": count
        for spec, count in counts.items()
    }
    differ = any(count not in (1, most) for count in counts.values())
    if labels is not None:
        length = len(labels) if labels.ndim else 0
        told[f"{LABELS!r} {length}"] = length
        differ |= length != most
    if differ:
        raise DataError(f"{name}: the arrays hold different numbers of samples: {', '.join(told)}")
    if not most:
        raise DataError(f"{name}: the arrays hold no samples")


def _unclear(name: str, spec: InputSpec) -> DataError:
    return DataError(
        f"{name}: which axis of input {spec} counts samples cannot be told from what the model declares",
        hint="give that dimension the name that it has in the other inputs (dim_param in the file), such as 'batch'",
    )


def _named(name: str, specs: Sequence[InputSpec], arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return one array per input; one that was saved without a name serves a single input."""
    if len(specs) == 1 and [*arrays] == [_UNNAMED]:
        arrays = {specs[0].name: arrays[_UNNAMED]}
    missing = [spec for spec in specs if spec.name not in arrays]
    unknown = sorted(set(arrays) - {spec.name for spec in specs})
    if missing:
        there = ", ".join(map(quote, unknown)) or "nothing else"
        raise DataError(
            f"{name}: there is no array for input {missing[0]}; there is {there}", hint=_naming(unknown, specs)
        )
    if unknown:
        raise DataError(f"{name}: {quote(unknown[0])} is no input of the model", hint=_naming(unknown, specs))
    scalar = [spec for spec in specs if not arrays[spec.name].ndim and spec.dims != ()]
    if scalar:
        raise DataError(f"{name}: the array for input {scalar[0]} is a single number")
    return {spec.name: arrays[spec.name] for spec in specs}


def _naming(unknown: Sequence[str], specs: Sequence[InputSpec]) -> str:
    """Return how arrays are to be called, with what was probably meant."""
    inputs = [spec.name for spec in specs]
    meant = next((hint for name in unknown if (hint := did_you_mean(name, inputs, shown=quote))), None)
    listed = f"arrays are named as the inputs ({', '.join(map(quote, inputs))}) and {LABELS!r}"
    return f"{meant} {listed}" if meant else listed


def _image(
    array: Array, spec: InputSpec, preprocessing: Preprocessing, name: str
) -> tuple[ImageInput, npt.NDArray[np.uint8]]:
    """Return how an array of 8-bit images is fed, and the array with its channels last."""
    image = preprocessing.for_input(spec)
    for images in (array, array.transpose(0, 2, 3, 1)):
        have = images.shape[1:]
        if all(
            want in (None, size) for want, size in zip((image.height, image.width, image.channels), have, strict=True)
        ):
            return image, images
    shape = "x".join(map(str, array.shape))
    size = "x".join("any" if side is None else str(side) for side in (image.height, image.width))
    raise DataError(
        f"{name}: 8-bit images of {shape} do not fit input {spec}",
        hint=f"store them as uint8 of shape (samples, height, width, {image.channels}) or (samples, {image.channels}, "
        f"height, width), with height x width {size}; only files of images are resized",
    )


def _whole(array: Array, spec: InputSpec, arrays: Mapping[str, Array], specs: Sequence[InputSpec]) -> bool:
    """Whether an array is one value for all samples: just as declared, while other arrays count samples."""
    if spec.dims is None or array.ndim != len(spec.dims):
        return False
    if any(want not in (None, have) for have, want in zip(array.shape, spec.dims, strict=True)):
        return False
    if not array.ndim:
        return True
    others = [(arrays[other.name], other) for other in specs if other.samples is not None and other.samples >= 0]
    longest = max(_count(held, other) for held, other in others if held.ndim > (other.samples or 0))
    return spec.counted is not None and _count(array, spec) != longest


def open_npz(path: Path, specs: Sequence[InputSpec], preprocessing: Preprocessing) -> Source:
    """Return the samples of an .npz file: arrays by input name, and perhaps `labels`.

    Raises
    ------
    DataError
        If the file is unreadable, or its arrays do not fit.
    """
    name = quote(str(path))
    arrays = _load(path, name)
    if not isinstance(arrays, dict):
        raise DataError(f"{name} is not an .npz file", hint="numpy.savez(path, name=array, labels=array) writes one")
    labels = arrays.pop(LABELS, None)
    return replace(from_arrays(name, specs, arrays, _classes(labels), preprocessing), name=str(path))


def _classes(labels: Array | None) -> Array | None:
    return labels.astype(np.int64) if labels is not None and labels.dtype.kind in "iu" else labels


def open_npy(path: Path, specs: Sequence[InputSpec], preprocessing: Preprocessing) -> Source:
    """Return the samples of an .npy file, for a model with one input.

    Raises
    ------
    DataError
        If the file is unreadable, or its array does not fit.
    """
    name = quote(str(path))
    array = _load(path, name)
    if isinstance(array, dict):
        raise DataError(f"{name} is not an .npy file", hint="an archive of arrays must end in .npz")
    if len(specs) != 1:
        raise DataError(f"{name}: one array cannot feed {len(specs)} inputs", hint="an .npz file holds several")
    return replace(from_arrays(name, specs, {specs[0].name: array}, None, preprocessing), name=str(path))


_MENDED = "write it anew: numpy.save(path, array) or numpy.savez(path, name=array, labels=array)"


def _load(path: Path, name: str) -> Array | dict[str, Array]:
    """Read a file of arrays; nothing in it is ever executed."""
    with reading(name, hint=_MENDED):
        with path.open("rb") as file:
            start = file.read(6)
        if not start.startswith((b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY")):  # numpy would take it for a pickle
            raise DataError(
                f"{name} cannot be read: it holds no arrays of numpy",
                hint=_MENDED,
            )
        if start.startswith(b"PK"):
            with zipfile.ZipFile(path) as members:
                check_unfolding(name, sum(member.file_size for member in members.infolist()), path.stat().st_size)
        archive = np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix == ".npy" else None)
        if isinstance(archive, np.ndarray):
            return _numeric(archive, name)
        with archive:
            return {key: _numeric(archive[key], f"{name}, array {quote(key)}") for key in archive.files}


def _numeric(array: object, name: str) -> Array:
    """Return an array of numbers; a member of an archive may be anything."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        kind = array.dtype if isinstance(array, np.ndarray) else "no array"
        raise DataError(
            f"{name} holds {quote(str(kind))}, but samples and labels are numbers",
            hint="store arrays of numbers: numpy.savez(path, name=array, labels=array)",
        )
    return array
