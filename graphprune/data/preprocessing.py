# SPDX-License-Identifier: Apache-2.0
"""How an 8-bit image becomes a model's input: size, scale, normalisation, layout.

The values of a pixel are divided by 255, then ``(value - mean) / std`` per channel. Defaults stand in a file
``graphprune.toml`` beside the model::

    [data]
    mean = [0.485, 0.456, 0.406]
    std = [0.229, 0.224, 0.225]
    image_size = [224, 224]
    layout = "NCHW"
"""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
import numpy.typing as npt

from graphprune.choices import Layout
from graphprune.data.read_errors import read_small, reading
from graphprune.errors import DataError, UsageError, quote
from graphprune.report.text import plural

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from graphprune.data.signature import InputSpec

__all__ = ["SETTINGS", "Layout", "Preprocessing", "parse_numbers", "parse_size", "read_settings"]

SETTINGS = "graphprune.toml"
"""Name of the file beside a model that says how its inputs are made."""

_FARTHEST = 1e6
_MOST_BYTES = 1 << 14
_RESIZED = 256 / 224
"""A photograph is resized to this many times the wanted size before its centre is cut out, as is usual."""


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an 8-bit image.

    Parameters
    ----------
    mean, std : tuple of float, optional
        Per channel, or one for all, in units of full scale (0 to 1). Where neither is given, what the network was
        trained with is found from its file (:mod:`graphprune.data.normalisation`) when samples are opened; else the
        other one is 0 or 1.
    size : tuple of int, optional
        Height and width; those of the model's input by default.
    layout : {"NCHW", "NHWC"}, optional
        Where the model has its channels; found from its input by default.
    origin : str
        How mean and deviation came about, once that is settled.
    doubt : str
        What speaks against them.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: tuple[int, int] | None = None
    layout: Layout | None = None
    origin: str = field(default="", compare=False)
    doubt: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        mean, std = self.scale
        too_far = not all(math.isfinite(value) and abs(value) <= _FARTHEST for value in (*mean, *std))
        if too_far or any(value < 1 / _FARTHEST for value in std):
            raise UsageError(
                f"mean {mean} and std {std} must be finite, and std positive",
                hint=f"in units of full scale: std from {1 / _FARTHEST:g} to {_FARTHEST:g}",
            )
        if self.layout is not None and self.layout not in get_args(Layout):
            raise UsageError(f"the layout is {quote(self.layout)}, but must be NCHW or NHWC")

    @property
    def scale(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation: 0 and 1 where they are open."""
        return self.mean or (0.0,), self.std or (1.0,)

    @property
    def normalises(self) -> bool:
        """Whether values become others than pixels divided by 255."""
        mean, std = self.scale
        return any(mean) or any(value != 1 for value in std)

    def for_input(self, spec: InputSpec) -> ImageInput:
        """Return what makes images into the values of one input.

        Raises
        ------
        DataError
            If the input takes no images, or not with this layout or number of channels.
        UsageError
            If the layout cannot be told from the model.
        """
        if not spec.is_image or spec.dims is None:
            raise DataError(
                f"input {spec} takes no images", hint="give arrays: an .npz file, or package.module:function"
            )
        layout = self.layout or _layout(spec)
        channels, *declared = (spec.dims[at] for at in ((1, 2, 3) if layout == "NCHW" else (3, 1, 2)))
        channels = 3 if channels is None else channels
        if channels not in (1, 3):
            raise DataError(f"input {spec} has {channels} channels as {layout}; images have 1 or 3")
        for values in self.scale:
            if len(values) not in (1, channels):
                raise UsageError(
                    f"{len(values)} values of mean or std are given for {plural(channels, 'channel')}",
                    hint=f"one value, or one for each channel, by --mean and --std or in a {SETTINGS} beside the model",
                )
        height, width = declared
        if self.size is not None:
            if height not in (None, self.size[0]) or width not in (None, self.size[1]):
                raise UsageError(f"the size {self.size[0]}x{self.size[1]} does not fit input {spec}")
            height, width = self.size
        return ImageInput(self, spec, layout, int(channels), height, width)


def _layout(spec: InputSpec) -> Layout:
    """Tell where the channels are from the declared sizes."""
    dims = spec.dims or (None,) * 4
    first, last = dims[1] in (1, 3), dims[3] in (1, 3)
    if last and not first:
        return "NHWC"
    if first or dims[1] is None:
        return "NCHW"
    raise UsageError(f"where input {spec} has its channels is unclear", hint="say --layout NCHW or --layout NHWC")


@dataclass(frozen=True)
class ImageInput:
    """An input that takes images, with everything that was left open filled in.

    Parameters
    ----------
    height, width : int or None
        None where the model takes any: what the images themselves have, or keeps their proportions.
    """

    preprocessing: Preprocessing
    spec: InputSpec
    layout: Layout
    channels: int
    height: int | None
    width: int | None

    def fed(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Return images as the model takes them.

        Parameters
        ----------
        images : ndarray of uint8, shape (n, height, width, channels)
        """
        values: npt.NDArray[Any] = images
        if self.spec.dtype.kind == "f":
            mean, std = (np.asarray(each, dtype=np.float32) for each in self.preprocessing.scale)
            scale = np.float32(1) / std
            values = (images.astype(np.float32) * np.float32(1 / 255) - mean) * scale
        values = values.astype(self.spec.dtype, copy=False)
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2)) if self.layout == "NCHW" else values

    def placed(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int, int, int]] | None:
        """Return to which (width, height) an image is resized, and the box cut out of it; None if it is taken as it is.

        The wanted size is the central part of the image resized to 256/224 of it. Where one side is open (a line of
        text), the whole image gets the other one and keeps its proportions.
        """
        if self.width is None and self.height is None:
            return None
        if self.width is None or self.height is None:
            factor = self.width / width if self.width is not None else (self.height or height) / height
            whole = self.width or max(1, round(width * factor)), self.height or max(1, round(height * factor))
            return None if whole == (width, height) else (whole, (0, 0, *whole))
        if (width, height) == (self.width, self.height):
            return None
        factor = max(self.width / width, self.height / height) * _RESIZED
        resized = max(self.width, round(width * factor)), max(self.height, round(height * factor))
        left, top = (resized[0] - self.width) // 2, (resized[1] - self.height) // 2
        return resized, (left, top, left + self.width, top + self.height)


def read_settings(model: Path | None) -> Preprocessing:
    """Return the preprocessing that stands in ``graphprune.toml`` beside a model; the defaults without such a file.

    Raises
    ------
    UsageError
        If the file cannot be read, or says something unknown.
    """
    path = None if model is None else model.parent / SETTINGS
    if path is None or not path.is_file():
        return Preprocessing()
    data = read_small(path, _MOST_BYTES, UsageError)
    with reading(quote(str(path)), error=UsageError):
        content = tomllib.loads(data.decode("utf-8"))
    try:
        return _from_content(content)
    except (UsageError, TypeError, ValueError, OverflowError) as error:
        what = error.message if isinstance(error, UsageError) else error
        raise UsageError(
            f"{quote(str(path))}: {what}", hint="it has mean, std, image_size and layout under [data]"
        ) from error


def _from_content(content: dict[str, Any]) -> Preprocessing:
    unknown = set(content) - {"data"}
    if unknown:
        raise UsageError(f"the unknown entry {quote(min(unknown))} is outside of [data]")
    table = content.get("data", {})
    if not isinstance(table, dict):
        raise UsageError("[data] is no table")
    return _from_table(table)


def _from_table(table: dict[str, Any]) -> Preprocessing:
    table = {name.replace("-", "_"): value for name, value in table.items()}
    if "size" in table:
        raise UsageError("[data] has size, which is called image_size, as the option --image-size is")
    unknown = set(table) - {"mean", "std", "image_size", "layout"}
    if unknown:
        raise UsageError(f"[data] has the unknown entry {quote(min(unknown))}")
    layout: Any = table.get("layout")
    if isinstance(layout, str):
        layout = cast("Layout", layout.upper())
    result = Preprocessing(layout=layout)
    if "mean" in table:
        result = replace(result, mean=_numbers(table["mean"]))
    if "std" in table:
        result = replace(result, std=_numbers(table["std"]))
    if "image_size" in table:
        size = table["image_size"] if isinstance(table["image_size"], list) else [table["image_size"]] * 2
        result = replace(result, size=parse_size("x".join(map(str, size)), "image_size"))
    return result


def _numbers(value: Any) -> tuple[float, ...]:
    numbers = value if isinstance(value, list) else [value]
    if not numbers or any(isinstance(entry, bool) or not isinstance(entry, int | float) for entry in numbers):
        raise UsageError(f"a number, or a list of numbers, is expected instead of {quote(value)}")
    return tuple(float(entry) for entry in numbers)


def parse_numbers(text: str, option: str) -> tuple[float, ...]:
    """Return the numbers of ``--mean`` and ``--std``: one, or one per channel, with commas between.

    Raises
    ------
    UsageError
        If the text is something else.
    """
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3):
        raise UsageError(
            f"{option} cannot be {quote(text)}", hint=f"one number or three, e.g. {option} 0.485,0.456,0.406"
        )
    return values


def parse_size(text: str, option: str = "--image-size") -> tuple[int, int]:
    """Return the height and width of ``--image-size``, or whatever gives one: ``224`` or ``224x320``.

    Raises
    ------
    UsageError
        If the text is something else.
    """
    match: Sequence[str] | None = re.findall(r"\d+", text) if re.fullmatch(r"\d{1,5}(x\d{1,5})?", text) else None
    if match is None or not all(int(part) for part in match):
        raise UsageError(
            f"{option} cannot be {quote(text)}", hint=f"height and width, e.g. {option} 224 or {option} 224x320"
        )
    return int(match[0]), int(match[-1])
