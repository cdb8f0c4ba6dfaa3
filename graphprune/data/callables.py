# SPDX-License-Identifier: Apache-2.0
"""Samples from Python: a function of the user's own, or a torchvision dataset that is already on disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from graphprune.data.from_python import FORM, bounded, from_entries
from graphprune.data.source import Batch, Source
from graphprune.data.user_code import FAILURES, imported, reason
from graphprune.errors import DataError, GraphPruneError, UsageError, did_you_mean, quote
from graphprune.extras import require

if TYPE_CHECKING:
    from graphprune.data.preprocessing import ImageInput, Preprocessing
    from graphprune.data.signature import InputSpec

__all__ = ["DATA_ROOT", "DatasetReader", "open_function", "open_torchvision"]

DATA_ROOT = "GRAPHPRUNE_DATA"
"""Environment variable: the folder in which torchvision datasets lie; ``data`` without it."""

_FORM = f"called without arguments, {FORM}"


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
    function = imported(text)
    if not callable(function):
        raise UsageError(f"{quote(text)} is no function", hint=_FORM)
    try:
        entries = list(bounded(text, function()))
    except GraphPruneError:
        raise
    except FAILURES as error:
        raise DataError(f"{text} failed: {reason(error)}", hint=_FORM) from error
    return from_entries(text, entries, specs, preprocessing)


@dataclass(frozen=True, eq=False)
class DatasetReader:
    """A torchvision dataset of images and classes."""

    dataset: Any
    image: ImageInput
    classes: tuple[str, ...]
    name: str
    labelled: bool = True

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, positions: npt.NDArray[np.int64]) -> Batch:
        """Read and prepare these images."""
        entries = [self.dataset[at] for at in positions.tolist()]
        mode = "L" if self.image.channels == 1 else "RGB"
        images = [np.asarray(_placed(picture.convert(mode), self.image), dtype=np.uint8) for picture, _ in entries]
        if len({image.shape for image in images}) > 1:
            raise DataError(f"the images of {self.name} have different sizes", hint="give one: --image-size 224")
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
        near = did_you_mean(name, datasets.__all__, shown="torchvision:{}".format)
        raise UsageError(f"torchvision has no dataset {quote(name)}", hint=near or "e.g. torchvision:CIFAR10:test")
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
    return Source.whole(text, DatasetReader(dataset, image, classes, text))
