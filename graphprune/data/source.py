# SPDX-License-Identifier: Apache-2.0
"""A source: samples in a fixed order, ready to feed to a model, with or without labels.

Calibration, evaluation and finetuning read all data through the two types of this module. What
the user names with ``--data`` or ``--calib`` becomes a source in :mod:`graphprune.data.open_source`.

::

    source = open_source("images/", input_specs(model), Preprocessing())
    rest, held_out = source.split(512)
    for batch in rest.batches(64):
        session.run(None, dict(batch.feeds))      # batch.labels is None, or (n,)

A source is random access, so a training loop shuffles by passing its own order::

    for batch in rest.batches(128, order=generator.permutation(len(rest))):
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from graphprune.array_types import Array, Ints
from graphprune.errors import UsageError, quote
from graphprune.report.text import plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Batch", "SampleReader", "Source", "Watched"]


BATCH = 64
"""Samples read at once where nobody asks for another number."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Some samples.

    Parameters
    ----------
    feeds : mapping of str to ndarray
        By input name, of the type that the model declares. Axis 0 counts samples, except for
        the names in `shared` and in `axes`.
    labels : ndarray, shape (n, ...), optional
        int64 classes of shape (n,), or whatever targets the user's own data has.
    shared : frozenset of str
        Inputs that are the same for all samples and have no sample axis.
    axes : mapping of str to int
        The axis that counts samples, where it is another one than 0.
    """

    feeds: Mapping[str, Array]
    labels: Array | None = None
    shared: frozenset[str] = frozenset()
    axes: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        counted = (array.shape[self.axes.get(name, 0)] for name, array in self.feeds.items() if name not in self.shared)
        return next(counted, 1)


class SampleReader(Protocol):
    """What stands behind a source: any samples, by position."""

    @property
    def labelled(self) -> bool:
        """Whether batches have labels."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, where they are known."""
        ...

    def __len__(self) -> int: ...

    def read(self, positions: Ints) -> Batch:
        """Return the samples at these positions, in this order.

        Raises
        ------
        DataError
            If a sample is unreadable, or does not fit the model.
        """
        ...


@dataclass(frozen=True, eq=False)
class Source:
    """Samples of a reader, in a fixed order. Nothing is read before a batch is asked for.

    Parameters
    ----------
    name : str
        What the user named, for messages.
    reader : SampleReader
        Where the samples come from.
    positions : ndarray of int64, shape (n,)
        Which samples of the reader these are.
    """

    name: str
    reader: SampleReader
    positions: Ints

    @classmethod
    def whole(cls, name: str, reader: SampleReader) -> Source:
        """Return all samples of a reader."""
        return cls(name, reader, np.arange(len(reader), dtype=np.int64))

    def __len__(self) -> int:
        return len(self.positions)

    def __repr__(self) -> str:
        labels = "labelled" if self.labelled else "without labels"
        return f"Source({quote(self.name)}: {plural(len(self), 'sample')}, {labels})"

    @property
    def labelled(self) -> bool:
        """Whether batches have labels."""
        return self.reader.labelled

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, where they are known."""
        return self.reader.classes

    def read(self, index: Ints) -> Batch:
        """Return samples by their index within this source.

        Raises
        ------
        DataError
            If a sample is unreadable, or does not fit the model.
        """
        return self.reader.read(self.positions[index])

    def batches(self, size: int = BATCH, *, order: Ints | None = None) -> Iterator[Batch]:
        """Yield all samples once, in batches; the last one may be smaller.

        Parameters
        ----------
        size : int
            Samples in a batch.
        order : ndarray of int64, optional
            Indices within this source, in the order wanted; as they come by default.
        """
        index = np.arange(len(self), dtype=np.int64) if order is None else order
        for start in range(0, len(index), size):
            yield self.read(index[start : start + size])

    def subset(self, index: Ints) -> Source:
        """Return a source of some of these samples."""
        return Source(self.name, self.reader, self.positions[index])

    def limited(self, count: int | None) -> Source:
        """Return at most `count` samples, evenly spaced, so that data sorted by class keeps all classes."""
        if count is None or count >= len(self):
            return self
        if count < 1:
            raise UsageError(f"a limit of {count} samples leaves nothing to read")
        return self.subset(_spaced(len(self), count))

    def split(self, held_out: int) -> tuple[Source, Source]:
        """Return all but `held_out` evenly spaced samples, and these.

        Raises
        ------
        UsageError
            If one of the two would be empty.
        """
        if not 0 < held_out < len(self):
            raise UsageError(
                f"{quote(self.name)} has {plural(len(self), 'sample')}, of which {held_out:,} cannot be held out",
                hint="give more of them: some are used, and others judge",
            )
        apart = np.zeros(len(self), dtype=np.bool_)
        apart[_spaced(len(self), held_out)] = True
        return self.subset(np.flatnonzero(~apart)), self.subset(np.flatnonzero(apart))


@dataclass(eq=False)
class Watched:
    """A reader that knows whether anything was ever read from it.

    Attributes
    ----------
    used : bool
    """

    reader: SampleReader
    used: bool = False

    @classmethod
    def over(cls, source: Source) -> tuple[Source, Watched]:
        """Return the same samples, and what watches them."""
        watched = cls(source.reader)
        return replace(source, reader=watched), watched

    @property
    def labelled(self) -> bool:
        """Whether batches have labels."""
        return self.reader.labelled

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, where they are known."""
        return self.reader.classes

    def __len__(self) -> int:
        return len(self.reader)

    def read(self, positions: Ints) -> Batch:
        """Return the samples at these positions."""
        self.used = True
        return self.reader.read(positions)


def _spaced(total: int, count: int) -> Ints:
    """Return `count` different indices below `total`, evenly spaced."""
    return (np.arange(count, dtype=np.int64) * total + total // 2) // count
