# SPDX-License-Identifier: Apache-2.0
"""Reproducible: what keeps decisions and records equal whatever the number of threads, and the processor's kernels.

The order in which a matrix product adds up depends on how many threads share it, and on the kernel that the processor
has; the last digits of what is measured differ then. So linear algebra runs in double precision and in one thread
(work is spread over batches instead, and its results are added up in order), measured values are rounded to digits that
are the same everywhere, and of values that differ by less than rounding the first one wins.
"""

from __future__ import annotations

import math
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from graphprune.array_types import Floats

__all__ = ["NEARLY", "InOrder", "first_least", "in_order", "one_blas_thread", "settled", "settled_all"]

Given = TypeVar("Given")
Made = TypeVar("Made")

DIGITS = 4
_MOST_BYTES = 1 << 29
NEARLY = 1e-6
"""Relative difference below which two measured values are equal: some of it is rounding."""


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run matrix products and factorisations in one thread; also a decorator.

    It costs a few milliseconds, so it stands around whole measurements.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield


class InOrder(Generic[Made]):
    """Work that is done on all cores, and whose results come back in the order in which it was handed in.

    Parameters
    ----------
    size : int
        Bytes that one piece of work and its result hold; few pieces are under way where they are large.
    """

    def __init__(self, size: int = 0) -> None:
        self._ahead = max(1, min(_cores(), _MOST_BYTES // max(1, size)))
        self._pool = ThreadPoolExecutor(self._ahead)
        self._waiting: deque[Future[Made]] = deque()

    def hand_in(self, work: Callable[[Given], Made], given: Given) -> Iterator[Made]:
        """Begin a piece of work; yield the oldest results while more pieces are under way than there is room for."""
        self._waiting.append(self._pool.submit(work, given))
        while len(self._waiting) > self._ahead:
            yield self._waiting.popleft().result()

    def rest(self) -> Iterator[Made]:
        """Yield all other results; nothing can be handed in after that."""
        while self._waiting:
            yield self._waiting.popleft().result()
        self._pool.shutdown()


def in_order(work: Callable[[Given], Made], items: Iterable[Given], size: int = 0) -> Iterator[Made]:
    """Yield what work makes of each item, in order, done on all cores; items are asked for in the calling thread."""
    queue: InOrder[Made] = InOrder(size)
    for item in items:
        yield from queue.hand_in(work, item)
    yield from queue.rest()


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def settled(value: float, digits: int = DIGITS, beside: float = 0.0) -> float:
    """Return a measured value rounded to the significant digits that do not depend on the machine.

    Parameters
    ----------
    value : float
    digits : int
    beside : float
        Where the value is a difference: the size of what it is a difference of, which decides where its digits end.

    Examples
    --------
    >>> settled(0.0014951601836351394), settled(-123456.0), settled(0.0), settled(0.00123456, beside=1.0)
    (0.001495, -123500.0, 0.0, 0.001)
    """
    size = max(abs(value), abs(beside))
    if not size or not math.isfinite(size):
        return value
    return round(value, digits - 1 - math.floor(math.log10(size)))


def settled_all(values: Floats, digits: int = DIGITS) -> Floats:
    """Return an array of the same shape with every value :func:`settled`."""
    flat = [settled(value, digits) for value in values.ravel().tolist()]
    return np.array(flat, dtype=np.float64).reshape(values.shape)


def first_least(values: Floats, negligible: float = 0.0) -> int:
    """Return the first index whose value is nearly the least, so that rounding does not choose between equal ones.

    Parameters
    ----------
    values : ndarray, shape (n,), n >= 1
    negligible : float
        A difference that means nothing, however small all values are.

    Examples
    --------
    >>> first_least(np.array([2.0, 1.0 + 1e-9, 1.0]))
    1
    """
    least = float(values.min())
    return int(np.argmax(values <= least + max(NEARLY * abs(least), negligible)))
