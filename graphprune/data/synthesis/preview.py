# SPDX-License-Identifier: Apache-2.0
"""A preview: made images side by side in one picture, for people to look at."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from graphprune.data.synthesis.images import canvas_of
from graphprune.errors import UsageError

if TYPE_CHECKING:
    from graphprune.data.preprocessing import Layout
    from graphprune.data.signature import InputSpec
    from graphprune.data.source import Source

__all__ = ["image_grid"]

_COLUMNS, _ROWS = 8, 4
_SPREAD = 2.0
"""Black and white are so many deviations from the mean."""


def image_grid(source: Source, specs: tuple[InputSpec, ...], layout: Layout | None = None) -> bytes:
    """Return a PNG file with up to 32 images of a source.

    Raises
    ------
    UsageError
        If no input takes images.
    """
    feeds = source.read(np.arange(min(len(source), _COLUMNS * _ROWS), dtype=np.int64)).feeds
    for spec in specs:
        values = feeds[spec.name]
        canvas = canvas_of(spec, values.shape, layout)
        if canvas is None:
            continue
        images = values if canvas.layout == "NHWC" else values.transpose(0, 2, 3, 1)
        shown = images[..., : 3 if canvas.channels > 2 else 1].astype(np.float64)
        shown = 0.5 + (shown - shown.mean()) / (2 * _SPREAD * shown.std() + 1e-12)
        pixels = np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)
        pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
        columns = min(_COLUMNS, len(pixels))
        rows = len(pixels) // columns
        grid = pixels[: rows * columns].reshape(rows, columns, canvas.height, canvas.width, 3)
        whole = np.ascontiguousarray(grid.transpose(0, 2, 1, 3, 4).reshape(rows * canvas.height, -1, 3))
        file = io.BytesIO()
        Image.fromarray(whole).save(file, format="PNG")
        return file.getvalue()
    raise UsageError("there is nothing to look at: no input takes images", hint="leave out --preview")
