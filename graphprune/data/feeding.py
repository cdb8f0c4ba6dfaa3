# SPDX-License-Identifier: Apache-2.0
"""Feeding: a source in batches of the size that a model takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graphprune.data.signature import batch_size
from graphprune.data.source import BATCH, Batch
from graphprune.errors import DataError, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from graphprune.data.signature import InputSpec
    from graphprune.data.source import Source

__all__ = ["filled", "whole_batches"]


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
        raise DataError(f"{quote(source.name)} has {len(source)} samples, the model takes {count} at once")
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
