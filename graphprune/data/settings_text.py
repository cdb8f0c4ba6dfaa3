# SPDX-License-Identifier: Apache-2.0
"""The text of a ``graphprune.toml``: how 8-bit images become inputs of the models beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.data.normalisation import described

if TYPE_CHECKING:
    from graphprune.data.preprocessing import ImageInput

__all__ = ["settings_text"]

_HEAD = """\
# How 8-bit images become inputs of the models in this folder. Options of the command line win over what stands here.

[data]
# A pixel is divided by 255, then (value - mean) / std, per channel or with one value for all.
"""


def settings_text(image: ImageInput) -> str:
    """Return the text; what is not known stands in it as a comment, to be filled in.

    Parameters
    ----------
    image : ImageInput
        With mean and deviation if they are known.
    """
    given = image.preprocessing
    known = given.mean is not None or given.std is not None
    mean, std = (list(values) for values in given.scale)
    if known:
        origin = f" ({given.origin})" if given.origin else ""
        lines = [f"# {described(given)}{origin}", f"mean = {mean}", f"std = {std}"]
    else:
        lines = [
            "# Not known: give the values that the model was trained with, or run init again with --calib images/.",
            "# mean = [0.485, 0.456, 0.406]",
            "# std = [0.229, 0.224, 0.225]",
        ]
    if image.height is not None and image.width is not None:
        lines += [
            "# Height and width to which image files are brought.",
            f"image_size = [{image.height}, {image.width}]",
        ]
    else:
        lines += [
            "# Height and width to which image files are brought; the model takes any.",
            "# image_size = [224, 224]",
        ]
    lines += ["# Where the model has its channels: NCHW or NHWC.", f'layout = "{image.layout}"']
    return _HEAD + "\n".join(lines) + "\n"
