# SPDX-License-Identifier: Apache-2.0
"""Feeding: a source in batches of the size that a model takes, and that memory holds."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graphprune.data.signature import batch_size, input_specs
from graphprune.data.source import BATCH, Batch
from graphprune.errors import DataError, quote
from graphprune.model.graph import Graph
from graphprune.model.normalize import inline_functions
from graphprune.model.values.shapes import infer
from graphprune.report.text import plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from graphprune.data.signature import InputSpec
    from graphprune.data.source import Source
    from graphprune.model.load import Model

__all__ = ["affordable_batch", "filled", "model_batches", "whole_batches"]

_MOST_BYTES = 1 << 24
"""Bytes of the largest value of a batch: a walk holds some dozens of such at a time."""
_ELEMENT = 4


def affordable_batch(model: Model, source: Source, most: int = BATCH) -> int:
    """Return how many samples are run at once, so that no value of the model takes much memory.

    Parameters
    ----------
    model : Model
    source : Source
        Says how large its samples are.
    most : int
        The number where memory does not matter.

    Complexity: O(nodes).
    """
    if batch_size(input_specs(model)) is not None or not len(source):
        return most
    graph = Graph(inline_functions(model.proto))
    one = source.read(np.zeros(1, dtype=np.int64)).feeds
    shapes = {name: value.shape for name, value in one.items() if name in graph.inputs}
    dims = infer(graph, model.tensors.array, shapes).dims
    largest = max((prod(dims[name]) for node in graph.nodes for name in node.outputs if name in dims), default=1)
    return max(1, min(most, _MOST_BYTES // max(1, _ELEMENT * largest)))


def model_batches(model: Model, source: Source, most: int = BATCH) -> list[npt.NDArray[np.int64]]:
    """Return the samples of every batch with which a model is run; see :func:`whole_batches`."""
    return whole_batches(source, input_specs(model), affordable_batch(model, source, most))


def whole_batches(source: Source, specs: Sequence[InputSpec], size: int = BATCH) -> list[npt.NDArray[np.int64]]:
    """Return the samples of every batch, all of the same size; a few that do not fill a batch are left out.

    Where the model lets it choose, the size is the largest up to `size` with which the fewest batches are needed: fewer
    samples than there are batches are left out then.

    Raises
    ------
    DataError
        If there are fewer samples than the model takes at once.
    """
    fixed = batch_size(specs)
    count = len(source) // max(1, -(-len(source) // size)) if fixed is None else fixed
    if len(source) < count or not count:
        raise DataError(f"{quote(source.name)} has {plural(len(source), 'sample')}, the model takes {count} at once")
    index = np.arange(len(source) - len(source) % count, dtype=np.int64)
    return list(index.reshape(-1, count))


def filled(source: Source, specs: Sequence[InputSpec], size: int = BATCH) -> Iterator[tuple[Batch, int]]:
    """Yield all samples in batches that the model takes, with the number of samples that count.

    Where the model's batch size is fixed, the last batch is filled up with its last sample.
    """
    fixed = batch_size(specs)
    count = size if fixed is None else fixed
    for start in range(0, len(source), count):
        index = np.arange(start, min(start + count, len(source)), dtype=np.int64)
        real = len(index)
        if fixed is not None and real < count:
            index = np.concatenate([index, np.full(count - real, index[-1])])
        yield source.read(index), real
