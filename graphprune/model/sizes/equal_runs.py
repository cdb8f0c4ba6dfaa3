# SPDX-License-Identifier: Apache-2.0
"""Equal runs: which axes of a tensor and of its reshaped form hold the same elements."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["equal_runs"]


def equal_runs(before: Sequence[int], after: Sequence[int]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Cut two shapes of equal size into the shortest runs of equal product; axes of length 1 are left out.

    Parameters
    ----------
    before, after : sequence of int
        Shapes without zeros, of the same number of elements.
    """
    left = [axis for axis, size in enumerate(before) if size != 1]
    right = [axis for axis, size in enumerate(after) if size != 1]
    runs: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    i = j = 0
    while i < len(left) and j < len(right):
        run_in, run_out = [left[i]], [right[j]]
        product_in, product_out = before[left[i]], after[right[j]]
        i, j = i + 1, j + 1
        while product_in != product_out:
            if product_in < product_out:
                run_in.append(left[i])
                product_in *= before[left[i]]
                i += 1
            else:
                run_out.append(right[j])
                product_out *= after[right[j]]
                j += 1
        runs.append((tuple(run_in), tuple(run_out)))
    return runs
