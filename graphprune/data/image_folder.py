# SPDX-License-Identifier: Apache-2.0
"""A folder of images: flat, or one folder per class."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from graphprune.data.read_errors import reading
from graphprune.data.source import Batch, Source
from graphprune.errors import DataError, quote

if TYPE_CHECKING:
    from pathlib import Path

    from graphprune.data.preprocessing import ImageInput

__all__ = ["FolderReader", "open_folder"]

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"))
_MOST_PIXELS = 1 << 26
_DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
"""What Pillow calls pixels of more than 8 bits."""
_WHITE = (1 << 16) - 1
_MENDED = "mend it, or take it out of the folder"


@dataclass(frozen=True, eq=False)
class FolderReader:
    """Image files, and the class of each if they lie in folders of classes; or why these folders are none."""

    files: tuple[Path, ...]
    image: ImageInput
    targets: npt.NDArray[np.int64] | None = None
    classes: tuple[str, ...] = field(default=())
    unlabelled: str = ""

    @property
    def labelled(self) -> bool:
        """Whether the files lie in folders of classes."""
        return self.targets is not None

    def __len__(self) -> int:
        return len(self.files)

    def read(self, positions: npt.NDArray[np.int64]) -> Batch:
        """Read and prepare these images.

        Raises
        ------
        DataError
            If one is no image, or images of one batch have different sizes and nobody says which to take.
        """
        images = [_read(self.files[at], self.image) for at in positions.tolist()]
        sizes = {image.shape for image in images}
        if len(sizes) > 1:
            raise DataError(
                f"the images of {quote(str(self.files[0].parent))} have different sizes, and the model takes any",
                hint="give the size that they are brought to: --image-size 224",
            )
        labels = None if self.targets is None else self.targets[positions]
        return Batch({self.image.spec.name: self.image.fed(np.stack(images))}, labels)


def _read(path: Path, wanted: ImageInput) -> npt.NDArray[np.uint8]:
    """Return one image, shape (height, width, channels)."""
    from PIL import Image

    name = quote(str(path))
    with reading(name, "as an image", hint=_MENDED), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is lower
        with Image.open(path) as file:
            if file.size[0] * file.size[1] > _MOST_PIXELS:
                raise DataError(
                    f"{name} has {file.size[0]}x{file.size[1]} pixels, more than the limit {_MOST_PIXELS}",
                    hint="bring the images to a smaller size first",
                )
            placed = wanted.placed(*file.size)
            image: Any = _of_eight_bits(file, name).convert("L" if wanted.channels == 1 else "RGB")
            if placed is not None:
                resized, box = placed
                image = image.resize(resized, Image.Resampling.BILINEAR).crop(box)
            array = np.asarray(image, dtype=np.uint8)
    return array.reshape(*array.shape[:2], wanted.channels)


def _of_eight_bits(picture: Any, name: str) -> Any:
    """Return a picture of 8 bits a channel: Pillow cuts off what is brighter where it converts others.

    Raises
    ------
    DataError
        If its values are on no known scale.
    """
    from PIL import Image

    if picture.mode not in _DEEP:
        return picture
    values = np.asarray(picture)
    if picture.mode == "F" or values.min() < 0 or values.max() > _WHITE:
        raise DataError(
            f"{name} has pixels of 32 bits, of which nobody knows what is white",
            hint="store images of 8 or 16 bits, or give arrays as the model takes them in an .npz file",
        )
    return Image.fromarray((values // (_WHITE // 255)).astype(np.uint8))


def open_folder(folder: Path, image: ImageInput) -> Source:
    """Return the images of a folder, in the order of their names.

    A folder without images of its own, but with folders that have some, holds one class in each.

    Raises
    ------
    DataError
        If there is no image at all.
    """
    name = str(folder)
    flat = _images(folder)
    if flat:
        return Source.whole(name, FolderReader(tuple(flat), image))
    inner = {path.name: _images(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    inner = {label: files for label, files in inner.items() if files}
    if not inner:
        raise DataError(
            f"{quote(name)} holds no images", hint=f"images end in {', '.join(sorted(SUFFIXES))}; folders are classes"
        )
    files = tuple(path for images in inner.values() for path in images)
    targets = np.repeat(np.arange(len(inner), dtype=np.int64), [len(images) for images in inner.values()])
    return Source.whole(name, FolderReader(files, image, targets, tuple(inner)))


def _images(folder: Path) -> list[Path]:
    """Return the images of a folder; hidden files are what systems keep beside them."""
    found = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    return sorted(path for path in found if path.is_file())
