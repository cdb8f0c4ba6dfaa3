# SPDX-License-Identifier: Apache-2.0
"""The size to which image files are brought where a model declares none, but its graph takes only one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from graphprune.data.callables import DatasetReader
from graphprune.data.image_folder import FolderReader
from graphprune.model.sizes.usual_shapes import fixed_shapes

if TYPE_CHECKING:
    from graphprune.data.source import Source
    from graphprune.model.load import Model

__all__ = ["sized"]


def sized(source: Source, model: Model) -> Source:
    """Return a source whose image files get the one size that the graph takes; others are returned as they are.

    Where the graph takes several sizes, images keep their own, as long as all have the same.
    """
    reader = source.reader
    if not isinstance(reader, FolderReader | DatasetReader) or None not in (reader.image.height, reader.image.width):
        return source
    shape = fixed_shapes(model).get(reader.image.spec.name)
    if shape is None:
        return source
    height, width = shape[2:] if reader.image.layout == "NCHW" else shape[1:3]
    return replace(source, reader=replace(reader, image=replace(reader.image, height=height, width=width)))
