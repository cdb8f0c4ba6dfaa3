# SPDX-License-Identifier: Apache-2.0
"""The loader: batches of a source for training, in an order that the seed and the epoch alone decide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from graphprune.array_types import Ints
from graphprune.data.source import Batch, Source
from graphprune.errors import UsageError
from graphprune.training.augment import Augmentation

__all__ = ["Loader", "Samples"]


@dataclass(frozen=True, eq=False)
class Samples:
    """A batch as tensors.

    Parameters
    ----------
    feeds : mapping of str to Tensor
        Inputs by name.
    labels : Tensor, optional
    count : int
        Number of samples.
    axes : mapping of str to int
        The axis of an input that counts samples, where it is another one than 0.
    """

    feeds: Mapping[str, Tensor]
    labels: Tensor | None
    count: int
    axes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, batch: Batch) -> Samples:
        """Return the tensors of a batch."""
        feeds = {name: torch.from_numpy(np.array(array)) for name, array in batch.feeds.items()}
        labels = None if batch.labels is None else torch.from_numpy(np.array(batch.labels))
        return cls(feeds, labels, len(batch), batch.axes)

    def to(self, device: torch.device) -> Samples:
        """Return the batch on a device."""
        labels = None if self.labels is None else self.labels.to(device, non_blocking=True)
        feeds = {name: value.to(device, non_blocking=True) for name, value in self.feeds.items()}
        return Samples(feeds, labels, self.count, self.axes)

    def taken(self, rows: Tensor) -> Samples:
        """Return some of the samples, which may be repeated; what all share stays as it is."""
        feeds = {name: self._taken(name, value, rows) for name, value in self.feeds.items()}
        return Samples(feeds, None if self.labels is None else self.labels[rows], len(rows), self.axes)

    def _taken(self, name: str, value: Tensor, rows: Tensor) -> Tensor:
        axis = self.axes.get(name, 0)
        counted = value.dim() > axis and value.shape[axis] == self.count
        return value.index_select(axis, rows.to(value.device)) if counted else value


@dataclass(frozen=True)
class Loader:
    """Batches for training; each process gets its share of every batch.

    Parameters
    ----------
    source : Source
    batch : int
        Samples of a batch, over all processes together. At most what the source has.
    augmentation : Augmentation
        Applied to inputs that are images.
    seed : int
    rank, processes : int
        Which process this is, and of how many.
    """

    source: Source
    batch: int
    augmentation: Augmentation = field(default_factory=lambda: Augmentation([], 0))
    seed: int = 0
    rank: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "batch", min(self.batch, len(self.source)))
        if self.batch < 1 or self.batch % self.processes:
            raise UsageError(
                f"a batch of {self.batch} cannot be divided among {self.processes} processes", hint="set --batch"
            )

    @property
    def steps(self) -> int:
        """Batches of an epoch; what does not fill the last one waits for the next epoch."""
        return len(self.source) // self.batch

    def order(self, epoch: int) -> Ints:
        """Return the samples of an epoch in their order."""
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.source))

    def read(self, step: int) -> Samples:
        """Return the share of this process in the batch of a step, counted from the first epoch on."""
        return self._augmented(self._fetch(step), step)

    def _mine(self, step: int) -> Ints:
        at = step % self.steps
        return self.order(step // self.steps)[at * self.batch : (at + 1) * self.batch][self.rank :: self.processes]

    def _fetch(self, step: int) -> Samples:
        return Samples.of(self.source.read(self._mine(step)))

    def _augmented(self, samples: Samples, step: int) -> Samples:
        """Change the images of a batch; not in the reading thread, which would share random numbers with the loss."""
        mine, epoch = self._mine(step).tolist(), step // self.steps
        feeds = {
            name: self.augmentation(value, epoch, mine) if self._images(name, samples, len(mine)) else value
            for name, value in samples.feeds.items()
        }
        return replace(samples, feeds=feeds)

    def _images(self, name: str, samples: Samples, count: int) -> bool:
        """Whether an input holds an image of each sample."""
        return samples.feeds[name].dim() == 4 and len(samples.feeds[name]) == count and name not in samples.axes

    def stream(self, first: int, last: int) -> Iterator[Samples]:
        """Yield the batches of the steps `first` to `last`, the next one being read while one is worked on."""
        with ThreadPoolExecutor(max_workers=1) as pool:
            pending = pool.submit(self._fetch, first) if first < last else None
            for step in range(first, last):
                if pending is None:
                    return
                current = pending.result()
                pending = pool.submit(self._fetch, step + 1) if step + 1 < last else None
                yield self._augmented(current, step)
