# SPDX-License-Identifier: Apache-2.0
"""Samples from Python: a function of the user's own, or a torchvision dataset that is already on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from graphprune.data.arrays import from_arrays
from graphprune.data.source import Batch, Source
from graphprune.data.user_code import FAILURES, imported, reason
from graphprune.errors import DataError, UsageError, quote
from graphprune.extras import require

if TYPE_CHECKING:
    from graphprune.data.preprocessing import ImageInput, Preprocessing
    from graphprune.data.signature import InputSpec

__all__ = ["DATA_ROOT", "open_function", "open_torchvision"]

DATA_ROOT = "GRAPHPRUNE_DATA"
"""Environment variable: the folder in which torchvision datasets lie; ``data`` without it."""

_FORM = (
    "it returns an iterable of {input name: array}, or of ({input name: array}, targets); axis 0 counts samples, or "
    "the axis where the model has them"
)


def open_function(text: str, specs: Sequence[InputSpec], preprocessing: Preprocessing) -> Source:
    """Call ``package.module:function`` and keep everything that it yields in memory.

    Modules are also looked for in the current folder.

    Raises
    ------
    UsageError
        If there is no such module or function.
    DataError
        If the function fails, or yields something else than input dicts.
    """
    feeds, targets = _collected(text)
    if not feeds:
        raise DataError(f"{text} yields nothing", hint=_FORM)
    if any(set(entry) != set(feeds[0]) for entry in feeds):
        raise DataError(f"{text} yields inputs of different names", hint=_FORM)
    if len({target is None for target in targets}) > 1:
        raise DataError(f"{text} yields targets with some of its inputs only", hint=_FORM)
    try:
        axes = {spec.name: spec.samples for spec in specs}
        arrays = {name: _joined([entry[name] for entry in feeds], axes.get(name, 0)) for name in feeds[0]}
        labels = None if targets[0] is None else np.concatenate(targets)
    except ValueError as error:
        raise DataError(f"{text} yields arrays that cannot be joined: {quote(str(error))}", hint=_FORM) from error
    if labels is not None and labels.dtype.kind in "iu":
        labels = labels.astype(np.int64)
    return from_arrays(text, specs, arrays, labels, preprocessing)


def _joined(parts: list[Any], axis: int | None) -> Any:
    """Return all samples of an input, which lie on this axis; what is the same for all of them is one."""
    one = axis is None or not any(part.ndim for part in parts)
    if one and all(np.array_equal(part, parts[0]) for part in parts):
        return parts[0]
    if axis is None:
        raise ValueError("an input that is the same for all samples has different values")
    return np.concatenate(parts, axis=max(axis, 0))


def _collected(text: str) -> tuple[list[dict[str, Any]], list[Any]]:
    """Return all inputs and targets that the user's function yields."""
    function = imported(text)
    if not callable(function):
        raise UsageError(f"{quote(text)} is no function", hint=_FORM)
    feeds: list[dict[str, Any]] = []
    targets: list[Any] = []
    try:
        entries = list(function())
    except FAILURES as error:
        raise DataError(f"{text} failed: {reason(error)}", hint=_FORM) from error
    for entry in entries:
        inputs, target = entry if isinstance(entry, tuple) and len(entry) == 2 else (entry, None)
        if not isinstance(inputs, Mapping):
            raise DataError(f"{text} yields {quote(type(inputs).__name__)}", hint=_FORM)
        feeds.append({str(name): np.asarray(value) for name, value in inputs.items()})
        targets.append(None if target is None else np.asarray(target))
    return feeds, targets


@dataclass(frozen=True, eq=False)
class _DatasetReader:
    """A torchvision dataset of images and classes."""

    dataset: Any
    image: ImageInput
    classes: tuple[str, ...]
    name: str
    labelled: bool = True

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, positions: npt.NDArray[np.int64]) -> Batch:
        entries = [self.dataset[at] for at in positions.tolist()]
        mode = "L" if self.image.channels == 1 else "RGB"
        images = [np.asarray(_placed(picture.convert(mode), self.image), dtype=np.uint8) for picture, _ in entries]
        if len({image.shape for image in images}) > 1:
            raise DataError(f"the images of {self.name} have different sizes", hint="give one: --size 224")
        stacked = np.stack(images)
        labels = np.array([int(label) for _, label in entries], dtype=np.int64)
        return Batch({self.image.spec.name: self.image.fed(stacked.reshape(*stacked.shape[:3], -1))}, labels)


def _placed(picture: Any, image: ImageInput) -> Any:
    placed = image.placed(*picture.size)
    return picture if placed is None else picture.resize(placed[0]).crop(placed[1])


def open_torchvision(text: str, image: ImageInput) -> Source:
    """Open ``torchvision:NAME`` or ``torchvision:NAME:SPLIT`` from disk; nothing is downloaded.

    ``SPLIT`` is "train" (the default) or "test", or what the dataset itself calls its splits. Datasets lie in the
    folder that the environment variable ``GRAPHPRUNE_DATA`` names, or in ``data``.

    Raises
    ------
    UsageError
        If torchvision has no such dataset.
    DataError
        If it is not on disk.
    """
    _, name, *rest = text.split(":")
    split = rest[0] if rest else "train"
    require("train", quote(text))
    from torchvision import datasets

    kind = getattr(datasets, name, None)
    if not (isinstance(kind, type) and issubclass(kind, datasets.VisionDataset)):
        raise UsageError(f"torchvision has no dataset {quote(name)}", hint="e.g. torchvision:CIFAR10:test")
    root = os.environ.get(DATA_ROOT, "data")
    problem: Exception | None = None
    for options in ({"train": split == "train"} if split in ("train", "test") else {}, {"split": split}):
        try:
            dataset = kind(root, **options)
            break
        except TypeError as error:  # it calls its splits otherwise
            problem = error
        except (RuntimeError, OSError, ValueError) as error:
            raise DataError(
                f"{text} is not complete in {quote(root)}: {quote(str(error))}",
                hint=f"put it there, or name its folder in {DATA_ROOT}; nothing is downloaded",
            ) from error
    else:
        raise UsageError(f"{text} cannot be opened: {quote(str(problem))}")
    classes = tuple(map(str, getattr(dataset, "classes", ())))
    return Source.whole(text, _DatasetReader(dataset, image, classes, text))
