# SPDX-License-Identifier: Apache-2.0
"""Levels: the widths of a group that runtimes execute well.

Fewer FLOPs are not less time. Measured in onnxruntime 1.31 on an AVX-512 CPU with one thread:

- MobileNetV2 at 0.51 of its multiply-adds with unaligned widths takes 1.75 times as long as the original, and a
  chain of convolutions of width 50 is slower than one of width 64: a width that is not a multiple of 4 leaves the
  blocked kernels.
- Among multiples of 4 the time depends on ``ceil(channels / 16)`` alone: 52 costs what 64 costs, 48 is 45 % cheaper.
- A grouped convolution stays blocked only where each of its groups has a multiple of 16 channels, so whole groups
  go; a depthwise convolution wants a multiple of 4.

Other processors and runtimes have other steps (8 on AVX2, 8 or 32 on tensor cores). So alignment is part of the
problem that a solver is given, never a rounding of its answer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from graphprune.errors import InternalError, UsageError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["levels"]

_WIDE, _MIDDLE = 128, 32  # channels from which a coarse step of 16, of 8, still leaves enough choice
_FINE_STEPS = (8, 4)


def levels(
    size: int, channels: int, round_to: int | Literal["auto"], minimum: int = 1, relaxed: bool = False
) -> npt.NDArray[np.int64]:
    """Return the widths that a group may take, in atoms; a width of ``n`` atoms is ``n * channels`` channels.

    With a number, channels come in multiples of it. With "auto" they come in multiples of 16 in a group of 128
    channels or more, of 8 from 32 on, of 4 below that, and one by one in a group of fewer than 4; below the first
    multiple of a step the finer steps 8 and 4 go on, so that narrow widths stay reachable. The full size is always
    allowed.

    Parameters
    ----------
    size : int
        Full width in atoms.
    channels : int
        Channels per atom.
    round_to : int or "auto"
    minimum : int
        The fewest atoms to keep, at most `size`.
    relaxed : bool
        With "auto", also allow every width below the narrowest aligned one, for budgets that aligned widths cannot
        reach. A number is the user's word and never relaxed.

    Returns
    -------
    ndarray of int64, strictly increasing, first >= minimum, last == size

    Raises
    ------
    UsageError
        When `round_to` is neither a positive number nor "auto".
    InternalError
        When `size`, `channels` or `minimum` is not positive, or `minimum` exceeds `size`.

    Examples
    --------
    >>> levels(64, 1, 16).tolist()
    [16, 32, 48, 64]
    >>> levels(36, 1, "auto").tolist()
    [4, 8, 16, 24, 32, 36]
    >>> levels(4, 1, "auto", relaxed=True).tolist()
    [1, 2, 3, 4]
    """
    if not 1 <= minimum <= size or channels < 1:
        raise InternalError(f"no widths for {size} atoms of {channels} channels with a minimum of {minimum}")
    if round_to == "auto":
        aligned = _automatic(size, channels)
    elif round_to >= 1:
        aligned = _multiples(size, channels, round_to)
    else:
        raise UsageError(f"widths can be rounded to a positive number or 'auto', got {round_to}")
    if relaxed and round_to == "auto":
        aligned = np.union1d(np.arange(1, aligned[0], dtype=np.int64), aligned)
    return aligned[aligned >= minimum]


def _multiples(size: int, channels: int, step: int) -> npt.NDArray[np.int64]:
    """Return the atom counts whose channels are a multiple of `step`, and the full size."""
    atoms = step // math.gcd(step, channels)
    return np.union1d(np.arange(atoms, size + 1, atoms, dtype=np.int64), np.array([size], dtype=np.int64))


def _automatic(size: int, channels: int) -> npt.NDArray[np.int64]:
    total = size * channels
    if total < _FINE_STEPS[-1]:
        return np.arange(1, size + 1, dtype=np.int64)
    coarse = 16 if total >= _WIDE else 8 if total >= _MIDDLE else 4
    allowed = _multiples(size, channels, coarse)
    for step in _FINE_STEPS:
        if step < coarse:
            finer = _multiples(size, channels, step)
            allowed = np.concatenate([finer[finer < allowed[0]], allowed])
    return allowed
