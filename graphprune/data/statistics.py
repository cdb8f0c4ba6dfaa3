# SPDX-License-Identifier: Apache-2.0
"""What a network remembers of its training data: the statistics that its normalisations keep of their inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, helper

from graphprune.array_types import Array, Floats
from graphprune.data.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from onnx import TensorProto

    from graphprune.model.graph import Graph, Node
    from graphprune.model.load import Model

__all__ = [
    "RememberedNorm",
    "SampleStatistics",
    "Statistics",
    "mean_mismatch",
    "measured",
    "remembered",
    "sample_statistics",
    "stored_tensor",
]

_LEAST = 1e-12
_FLOOR = 1e-3
_MOST = 1e18
"""Beyond this the square of a statistic is no number in float32 any more."""
"""A variance counts as at least this share of the layer's median: a channel that was nearly constant would outweigh
all others."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean and variance of the input of a normalisation, each of shape (channels,)."""

    mean: Floats
    variance: Floats

    @property
    def scale(self) -> Floats:
        """The variances by which differences are judged."""
        result: Floats = np.maximum(self.variance, max(_FLOOR * float(np.median(self.variance)), _LEAST))
        return result

    def mismatch(self, other: Statistics) -> Floats:
        """Return how far others are from these, per channel: squared differences of means and of deviations.

        Relative to these variances: 0 for the same distribution, 1 if the mean is off by one deviation.
        """
        means = np.square(other.mean - self.mean)
        deviations = np.square(np.sqrt(other.variance) - np.sqrt(self.variance))
        result: Floats = (means + deviations) / self.scale
        return result


@dataclass(frozen=True, eq=False)
class RememberedNorm:
    """A `BatchNormalization` with the statistics that it keeps."""

    node: Node
    kept: Statistics

    @property
    def x(self) -> str:
        """What it normalises."""
        return self.node.inputs[0]


@dataclass(frozen=True, eq=False)
class SampleStatistics:
    """Means and mean squares of the input of one normalisation for each sample, each of shape (samples, channels)."""

    means: Array
    squares: Array

    def over(self, index: Array | slice) -> Statistics:
        """Return the statistics of some samples together."""
        mean = self.means[index].mean(axis=0, dtype=np.float64)
        square = self.squares[index].mean(axis=0, dtype=np.float64)
        return Statistics(mean, np.maximum(square - mean**2, 0.0))


def remembered(model: Model, graph: Graph) -> list[RememberedNorm]:
    """Return the normalisations of a graph that keep statistics, in the order in which the network runs them.

    One that depends on nothing but stored values (a weight standardisation) is not among them, nor one whose
    statistics no data has: a negative variance, or numbers that are not finite or as good as that.
    """
    found = []
    for node in graph.nodes:
        if node.op_type != "BatchNormalization" or node.domain or node.attribute("training_mode", 0):
            continue
        tensors = [stored_tensor(graph, name) for name in node.inputs[3:5]]
        if node.inputs[0] not in graph.producer or len(tensors) < 2 or None in tensors:
            continue
        mean, variance = (model.tensors.array(tensor).astype(np.float64) for tensor in tensors if tensor is not None)
        if _sound(mean) and _sound(variance) and variance.min(initial=0) >= 0:
            found.append(RememberedNorm(node, Statistics(mean, variance)))
    return found


def _sound(values: Floats) -> bool:
    """Whether statistics are numbers that squares of can be summed."""
    return bool((np.abs(values) < _MOST).all())


def stored_tensor(graph: Graph, name: str) -> TensorProto | None:
    """Return the message of an initializer or of a `Constant` node, None for other values."""
    if name in graph.initializers:
        return graph.initializers[name]
    node = graph.producer.get(name)
    if node is not None and node.op_type == "Constant" and not node.domain:
        return next((attribute.t for attribute in node.proto.attribute if attribute.name == "value"), None)
    return None


def measured(values: Iterable[Array]) -> Statistics:
    """Return the statistics of some values, each of shape (n, channels, ...); at least one must be there."""
    count, total, square = 0, np.zeros(1), np.zeros(1)
    shift = np.zeros(1)
    for value in values:
        flat = value.reshape(len(value), value.shape[1], -1).astype(np.float64)
        if not count:
            shift = flat.mean(axis=(0, 2))
        flat -= shift[:, None]
        count += flat.shape[0] * flat.shape[2]
        total = total + flat.sum(axis=(0, 2))
        square = square + np.einsum("ncp,ncp->c", flat, flat)
    mean = total / count
    return Statistics(mean + shift, np.maximum(square / count - mean**2, 0.0))


def sample_statistics(
    model: Model, graph: Graph, norms: Sequence[RememberedNorm], batches: Iterable[dict[str, Array]]
) -> list[SampleStatistics]:
    """Return, for each normalisation of a network, what every sample gives it by itself.

    Parameters
    ----------
    model : Model
    graph : Graph
        Of the model, local functions inlined.
    norms : sequence of RememberedNorm
    batches : iterable of dict
        What is fed.

    Complexity: one pass of the network over the samples.
    """
    values = list(dict.fromkeys(norm.x for norm in norms))
    exposed = ModelProto()
    exposed.CopyFrom(graph.proto)
    present = {value.name for value in exposed.graph.output}
    exposed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in values if name not in present)
    session = Session(model, exposed)
    parts: list[list[tuple[Array, Array]]] = [[] for _ in norms]
    for feeds in batches:
        given = dict(zip(values, session.run(feeds, values), strict=True))
        for part, norm in zip(parts, norms, strict=True):
            value = given[norm.x]
            flat = value.reshape(len(value), value.shape[1], -1)
            part.append((flat.mean(axis=2), np.einsum("ncp,ncp->nc", flat, flat) / flat.shape[2]))
    return [
        SampleStatistics(np.concatenate([mean for mean, _ in part]), np.concatenate([square for _, square in part]))
        for part in parts
    ]


def mean_mismatch(norms: Sequence[RememberedNorm], met: Iterable[Statistics]) -> float:
    """Return the mean of all mismatches, every normalisation counting alike."""
    return float(np.mean([norm.kept.mismatch(one).mean() for norm, one in zip(norms, met, strict=True)]))
