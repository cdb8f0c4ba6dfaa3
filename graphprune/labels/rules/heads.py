# SPDX-License-Identifier: Apache-2.0
"""Heads of attention that stand side by side on one axis: which of them, or which part of each, may go.

What is kept of such an axis is a choice, as for a `Reshape`. Several query heads may share one key-value head:
all of them go with it, or the same query heads of every key-value head go, which then stays itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphprune.labels.adapt import Counts
from graphprune.labels.operator import Operator
from graphprune.labels.space import Alternative
from graphprune.labels.vector import Labels, all_matched, stay

__all__ = ["Heads", "choose_heads", "each_label", "heads_left", "part_of_head"]


@dataclass(frozen=True)
class Heads:
    """Labels of the parts of an attention layer: heads of keys and values, positions within a key and a value.

    Attributes
    ----------
    queries : Labels
        Labels of the query heads, of which several may share a head of keys and values.
    """

    batch: Labels
    heads: Labels
    queries: Labels
    key: Labels
    value: Labels


def choose_heads(
    op: Operator,
    axes: tuple[Labels, Labels, Labels],
    counts: tuple[int, int],
    *,
    batch: Labels,
    divisible: bool = True,
    tied: bool = False,
) -> tuple[Heads, Labels]:
    """Offer the ways in which heads can go; returns the labels of the parts, and of what the layer makes.

    Parameters
    ----------
    axes : tuple of Labels
        The axes of queries, keys and values on which heads stand side by side.
    counts : tuple of int
        Number of query heads, and of heads of keys and values.
    batch : Labels
    divisible : bool
        Whether a head may lose positions.
    tied : bool
        Whether keys and values must stay equally long.
    """
    q, k, v = axes
    many, few = counts
    shared, size, length = many // few, len(k) // few, len(v) // few
    live = any(vector.live for vector in axes)
    heads = op.space.fresh(few) if live else stay(few)
    key = op.space.fresh(size) if live and divisible else stay(size)
    value = key if tied else op.space.fresh(length) if live and divisible else stay(length)
    inner = op.space.fresh(shared) if live and shared > 1 else None
    queries = heads if inner is None else op.space.fresh(many)
    parts = Heads(batch, heads, queries, key, value)
    y = op.space.fresh(many * length) if live else stay(many * length)
    if not y.live:
        return parts, y
    inside = np.concatenate([key.base, value.base])
    whole = [
        (q, each_label(heads, shared * size)),
        (k, each_label(heads, size)),
        (v, each_label(heads, length)),
        (y, each_label(heads, shared * length)),
    ]
    if inner is None:
        alternatives = [Alternative("whole heads", *all_matched(*whole), inside)]
    else:
        whole.append((queries, each_label(heads, shared)))
        each = [(q, Labels(inner.base, size, few)), (y, Labels(inner.base, length, few))]
        each.append((queries, Labels(inner.base, 1, few)))
        stays = np.concatenate([inside, heads.base, k.base, v.base])
        alternatives = [
            Alternative("whole heads", *all_matched(*whole), np.concatenate([inside, inner.base])),
            Alternative("the same queries of each head", *all_matched(*each), stays, sides=2),
        ]
        op.space.batch.append(inner.base)
    if divisible:
        part = [(q, _all(key, many)), (k, _all(key, few)), (v, _all(value, few)), (y, _all(value, many))]
        stays = np.concatenate([heads.base, queries.base])
        alternatives.append(Alternative("a part of each head", *all_matched(*part), stays, sides=2))
    op.space.choose(op.node, alternatives)
    op.space.batch.append(heads.base)
    op.space.contracted.append(key.base)
    return parts, y


def each_label(labels: Labels, times: int) -> Labels:
    """Every label, so many times."""
    return Labels(labels.base, labels.repeat * times, labels.tile)


def _all(labels: Labels, times: int) -> Labels:
    """All labels, again and again."""
    return Labels(labels.base, labels.repeat, labels.tile * times)


def heads_left(kept: Counts, heads: int) -> int:
    """Return how many of the heads that stand side by side on an axis are left."""
    return int(kept.reshape(heads, -1).max(axis=1).sum())


def part_of_head(kept: Counts, heads: int) -> Counts:
    """Return which positions of a head are left in those heads that are."""
    return np.atleast_1d(kept.astype(np.bool_).reshape(heads, -1).any(axis=0))
