# SPDX-License-Identifier: Apache-2.0
"""Maps: the rank of feature maps, on average over samples.

Looked at are the maps that the readers of a group see, so behind the activation. Where readers see no maps (a linear
layer behind a flattening), what activation functions give is looked at, and else what the layers of the group make.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graphprune.array_types import Array, Floats, Ints
from graphprune.data.capture import capture
from graphprune.data.feeding import model_batches
from graphprune.model.graph import Graph
from graphprune.model.normalize import inline_functions
from graphprune.reproducible import one_blas_thread
from graphprune.solvers.criteria._slices import filters

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.data.source import Source

__all__ = ["map_ranks", "matrix_ranks"]


_ACTIVATIONS = frozenset(
    {
        *("Celu", "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu", "Selu"),
        *("Sigmoid", "Softplus", "Softsign", "Swish", "Tanh", "ThresholdedRelu"),
    }
)
_BATCH = 16  # maps of many layers are captured at once
_EPSILON = float(np.finfo(np.float32).eps)  # values come in float32, whatever ranks are computed in


@dataclass(frozen=True, eq=False)
class _Place:
    """A value with maps of some atoms of a group: the channels `positions` along an axis belong to these `atoms`."""

    group: int
    axis: int
    positions: Ints
    atoms: Ints


@one_blas_thread()
def map_ranks(analysis: Analysis, source: Source) -> tuple[Floats | None, ...]:
    """Return the mean rank of the maps of each atom, averaged over values, channels and samples.

    None for a group without any value of at least two rows and columns.

    Complexity: a singular value decomposition per map.
    """
    places = _places(analysis)
    sums = [np.zeros(group.size) for group in analysis.groups]
    counts = [np.zeros(group.size) for group in analysis.groups]
    batches = model_batches(analysis.model, source, _BATCH)
    feeds = (source.read(index).feeds for index in batches)
    for values in capture(analysis.model, list(places), feeds) if places else ():
        for name, own in places.items():
            for place in own:
                ranks = _ranks(values[name], place)
                sums[place.group] += np.bincount(place.atoms, ranks, minlength=len(sums[place.group]))
                counts[place.group] += np.bincount(place.atoms, minlength=len(sums[place.group]))
    return tuple(total / count if count.all() else None for total, count in zip(sums, counts, strict=True))


def matrix_ranks(maps: Array) -> npt.NDArray[np.int64]:
    """Return the rank of each matrix, of float32 accuracy, shape (...).

    Parameters
    ----------
    maps : ndarray, shape (..., rows, columns)
    """
    values = np.linalg.svd(maps.astype(np.float64), compute_uv=False)
    least = values.max(axis=-1, keepdims=True) * max(maps.shape[-2:]) * _EPSILON
    ranks: npt.NDArray[np.int64] = (values > least).sum(axis=-1)
    return ranks


def _ranks(value: Array, place: _Place) -> Floats:
    """Return the mean rank over the samples for each channel of a place."""
    channels = np.moveaxis(np.take(value, place.positions, axis=place.axis), place.axis, 1)
    maps = channels.reshape(*channels.shape[:3], -1)
    mean: Floats = matrix_ranks(maps).mean(axis=0, dtype=np.float64)
    return mean


def _places(analysis: Analysis) -> dict[str, list[_Place]]:
    """Return the values to look at, and what of them belongs to which group."""
    read = {contraction.node.inputs[contraction.slot]: None for contraction in analysis.scope.space.contractions}
    made = [value for group in analysis.groups for value in _made(analysis, {one.node for one in filters(group)})]
    activated = [node.outputs[0] for node in analysis.graph.nodes if node.op_type in _ACTIVATIONS]
    there = Graph(inline_functions(analysis.model.proto)).producer  # values in bodies cannot be captured
    places: dict[str, list[_Place]] = {}
    served: set[int] = set()
    for values in (list(read), activated, made):
        new = {
            name: own for name in dict.fromkeys(values) if name in there and (own := _of_value(analysis, name, served))
        }
        for name, own in new.items():
            places.setdefault(name, []).extend(own)
        served |= {place.group for own in new.values() for place in own}
    return places


def _made(analysis: Analysis, labels: set[str]) -> list[str]:
    return [node.outputs[0] for node in analysis.graph.nodes if node.label in labels and node.outputs]


def _of_value(analysis: Analysis, name: str, served: set[int]) -> list[_Place]:
    """Return what of a value belongs to groups that are not served yet; nothing where it holds no maps."""
    dims = analysis.shapes.dims.get(name, ())
    axes = analysis.scope.values.get(name, ())
    if len(dims) < 4 or len(axes) != len(dims):
        return []
    places = []
    for axis, labels in enumerate(axes):
        rest = [size for other, size in enumerate(dims) if other not in (0, axis)]
        if not axis or not labels.live or min(rest[0], int(np.prod(rest[1:]))) < 2:
            continue
        atoms = analysis.grouping.atom_of[labels.expand()]
        mine = np.flatnonzero(atoms >= 0)
        groups = analysis.grouping.group_of[atoms[mine]]
        for group in np.unique(groups).tolist():
            if group not in served:
                own = mine[groups == group]
                places.append(_Place(group, axis, own, analysis.grouping.index_of[atoms[own]]))
    return places
