# SPDX-License-Identifier: Apache-2.0
"""Refining blocks: after least squares, each block learns to give what the dense network gives, by gradient.

A least-squares fit sees one layer at a time. A block of several layers can do more: a layer may give something else
than it did, as long as the next one makes the same of it. So a few hundred steps of Adam on all weights of a block
bring its outputs closer to those of the dense block, while it reads what the pruned network gives, errors included:
block after block, as post-training quantisation reconstructs them. No labels. What a block has learnt is judged by
samples that it did not see, and forgotten where they say so.

Source: block reconstruction of Li et al., BRECQ, arXiv:2102.05426, here with float weights and squared errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.data.feeding import whole_batches
from graphprune.data.signature import batch_size, input_specs
from graphprune.data.walk import Walk, constant_nodes, cut_subgraph
from graphprune.model.graph import Graph
from graphprune.model.normalize import inline_functions
from graphprune.recovery.blocks import Block, find_blocks
from graphprune.recovery.check_recovered import check_recovered
from graphprune.recovery.editable_model import EditableModel
from graphprune.recovery.sites import cut

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from graphprune.analysis.analysis import Analysis
    from graphprune.array_types import Array, Ints
    from graphprune.data.source import Source
    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan
    from graphprune.recovery.recover_options import Progress

__all__ = ["refine_blocks"]

_BATCH = 8
_MOST_BYTES = 1 << 30
"""Of what a block reads and should give; later batches are left out where maps are large, and hold enough positions."""


def refine_blocks(
    analysis: Analysis,
    plan: Plan,
    recovered: Model,
    dense: Model,
    source: Source,
    seed: int,
    progress: Progress | None = None,
    together: int = 1,
) -> Model:
    """Return a recovered network whose blocks have learnt from those of the dense one.

    Parameters
    ----------
    analysis : Analysis
        Of the original.
    plan : Plan
        What was removed from it.
    recovered : Model
        What is left, recovered by least squares. It is not changed.
    dense : Model
        The network that gives the targets.
    source : Source
        Samples as the network meets them in use; labels are not looked at.
    seed : int
        For the order of batches.
    progress : callable, optional
        Told how many blocks are done.
    together : int
        So many samples, from one of which the number is a multiple, are copies of each other, and in one batch.

    Raises
    ------
    UsageError
        If torch is not installed.
    UnsupportedModelError
        If it cannot compute one of the blocks.
    VerificationError
        If anything but weights changed.
    """
    from graphprune.training.block_fit import fit_block

    editable = EditableModel(recovered)
    blocks = find_blocks(editable, analysis, plan)
    batches = _batches(source, dense, together)
    constant = constant_nodes(editable.graph)

    def feeds(number: int) -> Mapping[str, Array]:
        return source.read(batches[number]).feeds

    graph = Graph(inline_functions(dense.proto))
    own_walk = Walk(recovered, editable.graph, [block.inputs for block in blocks], feeds, len(batches))
    dense_walk = Walk(dense, graph, [block.outputs for block in blocks], feeds, len(batches))
    with own_walk, dense_walk:
        for number, block in enumerate(blocks):
            if progress is not None:
                progress(number, len(blocks))
            inputs, targets = _collected(block, own_walk.step(), dense_walk.step())
            part = cut_subgraph(editable.graph, constant, block.nodes, inputs[0], block.outputs)
            for name, value in fit_block(recovered.replaced(part), inputs, targets, seed + number).items():
                if editable.own(name):
                    editable.write(name, value)
    if progress is not None:
        progress(len(blocks), len(blocks))
    refined = editable.finished()
    check_recovered(recovered, refined, editable)
    return refined


def _batches(source: Source, model: Model, together: int) -> list[Ints]:
    """Return the samples of every batch: whole families of copies, where the model takes batches of any size."""
    specs = input_specs(model)
    size = together * max(1, _BATCH // together)
    if together == 1 or batch_size(specs) is not None or len(source) < size:
        return whole_batches(source, specs, _BATCH)
    return list(np.arange(len(source) - len(source) % size, dtype=np.int64).reshape(-1, size))


def _collected(
    block: Block, own: Iterable[dict[str, Array]], dense: Iterable[Mapping[str, Array]]
) -> tuple[list[dict[str, Array]], list[dict[str, Array]]]:
    """Return what a block reads and should give, batch by batch, as far as memory is meant for it."""
    inputs: list[dict[str, Array]] = []
    targets: list[dict[str, Array]] = []
    size = 0
    for read, values in zip(own, dense, strict=True):  # to the end: walks go on from there
        if size > _MOST_BYTES:
            continue
        inputs.append(read)
        targets.append({name: cut(values[name], masks) for name, masks in zip(block.outputs, block.masks, strict=True)})
        size += sum(value.nbytes for value in (*read.values(), *targets[-1].values()))
    return inputs, targets
