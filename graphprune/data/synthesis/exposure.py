# SPDX-License-Identifier: Apache-2.0
"""Exposure: the brightness and contrast that a network's inputs have, as its first normalisations remember them.

Made images have a mean of 0 and a deviation of 1. Whether a network was trained on pixels from 0 to 1, from 0 to 255,
or on normalised ones, it does not say; but the inputs of its first normalisations are affine in the pixels, and their
means and variances over the training data are stored. The brightness and contrast of each channel with which made
images give about the same ones are found by least squares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import least_squares

from graphprune.array_types import Floats
from graphprune.data.session import Session
from graphprune.data.walk import constant_nodes, cut_subgraph
from graphprune.reproducible import one_blas_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from graphprune.data.statistics import RememberedNorm
    from graphprune.model.graph import Graph
    from graphprune.model.load import Model

    Inputs = npt.NDArray[np.float32]

__all__ = ["Exposure", "affine_values", "fit_exposure"]

_AFFINE = frozenset(
    ("Add", "AveragePool", "Cast", "Concat", "Conv", "Div", "Flatten", "Gemm", "Identity", "MatMul", "Mul", "Pad")
) | {"Reshape", "Resize", "Slice", "SpaceToDepth", "Split", "Squeeze", "Sub", "Transpose", "Unsqueeze"}
"""Operators whose results are affine in one operand, or in all of them, as checked in :func:`affine_values`."""
_SUMS = frozenset(("Add", "Sub", "Concat"))
_MOST_CHANNELS = 4
"""Of more channels all have the same exposure: they are no colours."""
_STARTS = (1.0, 0.3, 70.0)
"""Contrasts from which the fit starts: normalised pixels, those from 0 to 1, and those from 0 to 255."""
_ALIKE = 0.1
"""Weight of the wish that all channels have the same contrast, beside one normalised channel of the network."""


@dataclass(frozen=True, eq=False)
class Exposure:
    """How made images become inputs: ``brightness + contrast * image`` per channel.

    Attributes
    ----------
    brightness, contrast : ndarray of float32, shape (channels,)
    mismatch : float or None
        What is left between the statistics that they give and those that the network remembers, as in
        :meth:`graphprune.data.statistics.Statistics.mismatch`; None where it remembers none.
    """

    brightness: Inputs
    contrast: Inputs
    mismatch: float | None = None


def affine_values(graph: Graph, start: str) -> set[str]:
    """Return the values of a graph that are affine in one of its inputs, all others being constant."""
    constant = constant_nodes(graph)
    fixed = {name for index in constant for name in graph.nodes[index].outputs} | set(graph.initializers) | {""}
    affine = {start}
    for node in graph.nodes:
        moving = [name for name in node.inputs if name not in fixed]
        if node.index in constant or node.domain or node.op_type not in _AFFINE or not set(moving) <= affine:
            continue
        first = node.inputs[0] in moving
        if node.op_type in _SUMS or (len(moving) == 1 and (first or node.op_type in ("Mul", "MatMul"))):
            affine.update(node.outputs)
    return affine


@one_blas_thread()
def fit_exposure(
    model: Model,
    graph: Graph,
    name: str,
    images: Inputs,
    place: Callable[[Inputs], Inputs],
    norms: Sequence[RememberedNorm],
    batch: int = 8,
) -> Exposure:
    """Return the exposure with which images give the statistics that the first normalisations remember.

    Parameters
    ----------
    model : Model
        Where external weights come from.
    graph : Graph
        Of the model.
    name : str
        The graph input.
    images : ndarray of float32, shape (n, height, width, channels)
        With a mean of 0 and a deviation of 1.
    place : callable
        Gives images the layout and type of the input.
    norms : sequence of RememberedNorm
        Of the graph.
    batch : int
        Images that are run at once; the number of images is a multiple of it.

    Complexity: 2 * channels + 1 runs of the part of the network in front of the normalisations.
    """
    channels = images.shape[-1]
    affine = affine_values(graph, name)
    first = [norm for norm in norms if norm.x in affine]
    plain = Exposure(np.zeros(channels, np.float32), np.ones(channels, np.float32))
    if not first:
        return plain
    respond = _responder(model, graph, name, [norm.x for norm in first], batch)
    means, covariances = _moments(respond, images, place, channels if channels <= _MOST_CHANNELS else 1)
    if not (np.isfinite(means).all() and np.isfinite(covariances).all()):
        return plain  # whatever is shown, the network gives no numbers
    wanted = np.concatenate([norm.kept.mean for norm in first])
    deviation = np.sqrt(np.concatenate([norm.kept.scale for norm in first]))
    count = (means.shape[1] - 1) // 2

    def residuals(theta: Floats) -> Floats:
        whole = np.concatenate([theta, [1.0]])
        made = np.sqrt(np.maximum(np.einsum("i,oij,j->o", whole, covariances, whole), 0.0))
        parts = (means @ whole - wanted) / deviation, (made - deviation) / deviation
        alike = np.log(theta[:count] / theta[:count].mean())
        return np.concatenate([*parts, _ALIKE * alike])

    lower = np.concatenate([np.full(count, 1e-4), np.full(count, -np.inf)])
    fits = [
        least_squares(residuals, np.concatenate([np.full(count, start), np.zeros(count)]), bounds=(lower, np.inf))
        for start in _STARTS
    ]
    best = min(fits, key=lambda fit: fit.cost)
    left = float(np.square(best.fun[: 2 * len(wanted)]).sum() / len(wanted))
    spread = np.ones(channels if count == 1 else 1)
    contrast, brightness = (part * spread for part in (best.x[:count], best.x[count:]))
    return Exposure(brightness.astype(np.float32), contrast.astype(np.float32), left)


def _responder(
    model: Model, graph: Graph, name: str, wanted: Sequence[str], size: int
) -> Callable[[Inputs], list[Inputs]]:
    """Return what runs the part of a network in front of some values, on so many samples at once."""
    values = list(dict.fromkeys(wanted))
    constant = constant_nodes(graph)
    needed: set[int] = set()
    pending = list(values)
    while pending:
        node = graph.producer.get(pending.pop())
        if node is not None and node.index not in needed and node.index not in constant:
            needed.add(node.index)
            pending.extend(node.inputs)
    sessions: list[Session] = []

    def respond(fed: Inputs) -> list[Inputs]:
        if not sessions:
            nodes = [graph.nodes[index] for index in sorted(needed)]
            sessions.append(Session(model, cut_subgraph(graph, constant, nodes, {name: fed[:size]}, values)))
        runs = [sessions[0].run({name: fed[at : at + size]}, values) for at in range(0, len(fed), size)]
        given = {value: np.concatenate(parts) for value, parts in zip(values, zip(*runs, strict=True), strict=True)}
        return [given[value] for value in wanted]

    return respond


def _moments(
    respond: Callable[[Inputs], list[Inputs]], images: Inputs, place: Callable[[Inputs], Inputs], count: int
) -> tuple[Floats, Floats]:
    """Return means and covariances of responses, over images and positions.

    The responses are those to the contrast of each channel, to the brightness of each, and to nothing; shapes are
    (outputs, 2 count + 1) and (outputs, 2 count + 1, 2 count + 1).
    """
    channels = images.shape[-1]
    dark = respond(place(np.zeros_like(images)))
    responses: list[list[Inputs]] = []
    for lit in (images, np.ones_like(images)):
        for at in range(count):
            only = np.arange(channels) == at if count == channels else np.ones(channels, dtype=np.bool_)
            responses.append(
                [own - none for own, none in zip(respond(place(np.where(only, lit, np.float32(0)))), dark, strict=True)]
            )
    responses.append(dark)
    means, covariances = [], []
    for parts in zip(*responses, strict=True):
        rows = np.stack([part.reshape(len(part), part.shape[1], -1) for part in parts], axis=-1)
        flat = rows.transpose(1, 0, 2, 3).reshape(rows.shape[1], -1, len(parts)).astype(np.float64)
        mean = flat.mean(axis=1)
        flat -= mean[:, None]
        means.append(mean)
        covariances.append(flat.transpose(0, 2, 1) @ flat / flat.shape[1])
    return np.concatenate(means), np.concatenate(covariances)
