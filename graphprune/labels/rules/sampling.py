# SPDX-License-Identifier: Apache-2.0
"""Sampling and folding: channels pass, positions within an image stay."""

from __future__ import annotations

from math import prod

import numpy as np

from graphprune.labels.adapt import Edits, Pruned, adapter, spell
from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.vector import Labels, stay


@rule("GridSample")
def grid_sample(op: Operator) -> None:
    """X (N, C, ...) is read at the places in grid (N, ..., rank), which gives the output its spatial axes."""
    x = op.labels(0)
    grid = tuple(stay(size) for size in op.shape(1)) if op.is_constant(1) else op.labels(1)
    op.unite(x[0], grid[0])
    op.freeze(x[2:], "GridSample", "is interpolated")
    op.freeze(grid[-1], "GridSample", "holds one coordinate")
    op.set(0, (x[0] if grid[0].live else grid[0], x[1], *grid[1:-1]))


@rule("MaxRoiPool", "RoiAlign")
def region_pool(op: Operator) -> None:
    """Regions are pooled from the images that they name; every channel on its own."""
    x, regions = op.labels(0), op.labels(1)
    op.freeze((x[0], *x[2:]), op.node.op_type, "is read where the regions lie")
    op.freeze(regions[1], op.node.op_type, "holds one coordinate")
    count = regions[0]
    if op.has(2):
        op.unite(count, op.labels(2)[0])
        count = count if op.labels(2)[0].live else op.labels(2)[0]
    op.set(0, (count, x[1], *(stay(size) for size in op.out_shape()[2:])))


@rule("AffineGrid")
def affine_grid(op: Operator) -> None:
    """Every matrix (N, d, d + 1) becomes a grid of its own; `size` says how many there are."""
    theta = op.labels(0)
    op.freeze(theta[0], "AffineGrid", "is counted by the size of the grids")
    op.freeze(theta[1:], "AffineGrid", "is an axis of a matrix")
    op.set(0, (stay(size) for size in op.out_shape()))


@adapter("AffineGrid", slots=(1,))
def adapt_affine_grid(op: Pruned) -> Edits:
    """Of the size of the images, the number of channels says nothing of the grids: it may follow."""
    old, now = op.original(1), op.current(1)
    if old is None or (now is not None and np.array_equal(np.delete(old, 1), np.delete(now, 1))):
        return Edits()
    return spell(Edits(), op, 1, [int(size) for size in np.ravel(old)])


@rule("Col2Im")
def columns_to_image(op: Operator) -> None:
    """Input axis 1 is (channels, positions in the block); columns are added up where they overlap."""
    x, channels = op.labels(0), op.out_shape()[1]
    op.freeze(x[2:], "Col2Im", "is an axis of columns")
    made = op.space.fresh(channels) if x[1].live else stay(channels)
    block = len(x[1]) // channels
    if any(op.is_computed(slot) for slot in (1, 2)):
        op.barrier("Col2Im", "the size of its image or blocks is computed while the model runs")
        return
    if block * channels != len(x[1]) or (op.value(2) is not None and prod(op.ints(2) or [block]) != block):
        op.barrier("Col2Im", "its channels do not fill blocks")
        return
    op.unite(x[1], Labels(made.base, made.repeat * block, made.tile) if made.live else stay(len(x[1])))
    op.set(0, (x[0], made, *(stay(size) for size in op.out_shape()[2:])))
