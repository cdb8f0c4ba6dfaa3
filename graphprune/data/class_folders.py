# SPDX-License-Identifier: Apache-2.0
"""Whether the folders of a folder of images are the classes of a model, or something else that lies there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from graphprune.data.image_folder import FolderReader
from graphprune.report import text

if TYPE_CHECKING:
    from graphprune.data.source import Source
    from graphprune.model.load import Model

__all__ = ["with_sure_labels"]

_ROWS = 2


def with_sure_labels(source: Source, model: Model) -> Source:
    """Return a source without labels where its folders are not as many as the classes that a model tells apart.

    A class is told from others by the place of its folder among all of them, so each class needs one. Where the model
    does not declare how many classes it has, folders are taken for classes.
    """
    reader, count = source.reader, _classes(model)
    if not isinstance(reader, FolderReader) or not reader.labelled or count in (None, len(reader.classes)):
        return source
    why = f"{text.plural(len(reader.classes), 'folder')} with images, but the model tells {count} classes apart"
    return replace(source, reader=replace(reader, targets=None, classes=(), unlabelled=why))


def _classes(model: Model) -> int | None:
    """Return how many classes the first output declares: rows of logits, perhaps with axes of length 1 behind them."""
    dims = model.proto.graph.output[0].type.tensor_type.shape.dim if model.proto.graph.output else []
    if len(dims) < _ROWS or any(dim.dim_value != 1 for dim in dims[_ROWS:]):
        return None
    return dims[1].dim_value or None
