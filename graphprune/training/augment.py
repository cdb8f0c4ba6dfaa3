# SPDX-License-Identifier: Apache-2.0
"""Augmentation: each sample is changed at random, in a way that only its number and the epoch decide.

Randomness that hangs on nothing but (seed, epoch, sample) makes training with two processes equal to
training with one, and a resumed run equal to one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from graphprune.data.user_code import FAILURES, reason
from graphprune.errors import UsageError, did_you_mean, quote
from graphprune.training.losses import load_function

__all__ = ["Augmentation", "parse_augmentation"]

Transform = Callable[[Any], object]
"""Takes an image and should return one; but a user's own may return anything."""

_NAMES = ("flip", "crop", "resized-crop", "erase", "cutmix")
_PADDING = 8
"""A crop moves an image by up to an eighth of its side."""
_UNMIXED = 0.5
"""Share of the images that cutmix leaves as they are: what is learned has to hold for whole images, too."""


class Augmentation:
    """Transforms in a row, for one image at a time.

    Parameters
    ----------
    transforms : list of callable
        Each takes and returns a tensor of shape (channels, height, width).
    seed : int
    cutmix : bool
        Whether half of the images get a rectangle of another image of their batch in the end: the one half a batch
        further, so that processes which share a batch find it in their own part.
    """

    def __init__(self, transforms: list[Transform], seed: int, *, cutmix: bool = False) -> None:
        self.transforms = transforms
        self.seed = seed
        self.cutmix = cutmix

    def __call__(self, images: Tensor, epoch: int, samples: list[int]) -> Tensor:
        """Change images, shape (n, channels, height, width) or channels last; `samples` are their numbers."""
        if not (self.transforms or self.cutmix):
            return images
        if channels_last(images.shape):
            return self(images.permute(0, 3, 1, 2), epoch, samples).permute(0, 2, 3, 1).contiguous()
        changed: list[Tensor] = []
        windows: list[tuple[slice, slice] | None] = []
        with torch.random.fork_rng(devices=[]):
            for image, sample in zip(images, samples, strict=True):
                torch.default_generator.manual_seed(hash((self.seed, epoch, sample)) & (2**63 - 1))
                changed.append(self._changed(image))
                windows += [_window(*image.shape[-2:])] if self.cutmix else []
        whole = torch.stack(changed)
        return _pasted(whole, windows) if self.cutmix else whole

    def _changed(self, image: Tensor) -> Tensor:
        """Return one image after all transforms."""
        changed: object = image
        for transform in self.transforms:
            try:
                changed = transform(changed)
            except FAILURES as error:
                name = getattr(transform, "__qualname__", type(transform).__qualname__)
                raise UsageError(f"the augmentation {quote(name)} failed: {reason(error)}") from error
        if not isinstance(changed, Tensor) or changed.shape != image.shape:
            what = f"a tensor of shape {list(changed.shape)}" if isinstance(changed, Tensor) else type(changed).__name__
            raise UsageError(f"augmentation makes {what} of an image of shape {list(image.shape)}")
        return changed


def _window(height: int, width: int) -> tuple[slice, slice] | None:
    """Return rows and columns that another image gives, or None for an image that stays as it is.

    torchvision's CutMix is not used: it wants labels, and cuts one rectangle for a whole batch.

    Source: Yun et al., CutMix, ICCV 2019, arXiv:1905.04899, eq. 1 and 2, with a share of the area that is uniform.
    """
    mixed, area, middle_row, middle_column = torch.rand(4).tolist()
    if mixed < _UNMIXED:
        return None
    side = area**0.5
    spans = ((middle_row, height), (middle_column, width))
    rows, columns = (
        slice(round(max(0.0, middle - side / 2) * size), round(min(1.0, middle + side / 2) * size))
        for middle, size in spans
    )
    return rows, columns


def _pasted(images: Tensor, windows: list[tuple[slice, slice] | None]) -> Tensor:
    """Return the images with rectangles of the ones half a batch further, which are whole themselves."""
    mixed = images.clone()
    for number, window in enumerate(windows):
        if window is not None:
            other = (number + len(windows) // 2) % len(windows)
            mixed[number][:, *window] = images[other][:, *window]
    return mixed


def channels_last(shape: Sequence[int]) -> bool:
    """Whether a batch of images of this shape has its colours on the last axis."""
    return len(shape) == 4 and shape[1] not in (1, 3) and shape[3] in (1, 3)


def parse_augmentation(text: str, image: tuple[int, ...], seed: int) -> Augmentation:
    """Return what ``--augment`` means for images of this shape.

    Parameters
    ----------
    text : str
        Names joined by commas (flip, crop, resized-crop, erase, cutmix), or ``package.module:function`` for one of
        your own, or ``none``.
    image : tuple of int
        Shape of a sample: (channels, height, width).

    Raises
    ------
    UsageError
        If a name is unknown, or the samples are no images.
    """
    names = [name.strip() for name in text.split(",") if name.strip() and name.strip() != "none"]
    if not names:
        return Augmentation([], seed)
    if len(image) != 3:
        raise UsageError(f"--augment {quote(text)} needs images, but a sample has shape {list(image)}")
    own = [_transform(name, image) for name in names if name != "cutmix"]
    return Augmentation(own, seed, cutmix="cutmix" in names)


def _transform(name: str, image: tuple[int, ...]) -> Transform:
    if ":" in name:
        return load_function(name, "--augment")
    from torchvision.transforms import v2

    size = list(image[1:])
    made: dict[str, Callable[[], Transform]] = {
        "flip": lambda: v2.RandomHorizontalFlip(),
        "crop": lambda: v2.RandomCrop(size, padding=[max(1, side // _PADDING) for side in size[::-1]]),
        "resized-crop": lambda: v2.RandomResizedCrop(size, scale=(0.35, 1.0), antialias=True),
        "erase": lambda: v2.RandomErasing(p=0.25),
    }
    if name not in made:
        raise UsageError(
            f"--augment does not know {quote(name)}", hint=did_you_mean(name, _NAMES) or f"it knows {', '.join(_NAMES)}"
        )
    return made[name]()
