# SPDX-License-Identifier: Apache-2.0
"""Gradients: what the loss of samples says of channels and weights. torch is loaded here, when it is first needed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import numpy as np

from graphprune.data.feeding import whole_batches
from graphprune.data.signature import batch_size, input_specs
from graphprune.errors import UnsupportedModelError, UsageError, quote
from graphprune.evidence.consumer_readings import consumer_outputs
from graphprune.solvers.protocols.observed import Gradients, Products

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.array_types import Floats, Floats32
    from graphprune.data.source import Source
    from graphprune.training.loader import Samples


__all__ = ["Way", "at_values", "output_gradients", "per_atom", "products"]

Way = Literal["taylor_activation", "taylor_weight", "fisher"]

_BATCH = 32


def per_atom(way: Way, analysis: Analysis, source: Source, seed: int) -> Gradients:
    """Return one figure from gradients for every atom; None for groups that torch does not reach.

    Raises
    ------
    UnsupportedModelError
        If the model cannot be converted for training, or not be run there.
    DataError
        If labels are no classes of the network.
    """
    try:
        return _per_atom(way, analysis, source, seed, _BATCH)
    except UsageError:
        # Somewhere in the network the samples are not on axis 0, so that their gradients cannot be told apart.
        if batch_size(input_specs(analysis.model)) is not None:
            raise
        return _per_atom(way, analysis, source, seed, 1)


def _per_atom(way: Way, analysis: Analysis, source: Source, seed: int, size: int) -> Gradients:
    from graphprune.training import gradient_saliency as gradients
    from graphprune.training.likelihood import Likelihood

    loss = Likelihood(analysis.graph, seed)
    with _torch_errors(analysis):
        by_id = getattr(gradients, way)(analysis, _batches(analysis, source, size), loss)
    return Gradients(tuple(by_id.get(group.id) for group in analysis.groups), loss.of)


def products(analysis: Analysis, source: Source, seed: int) -> Products:
    """Return the mean over batches of ``|w dL/dw|`` for every weight that training reaches.

    Raises
    ------
    DataError, UnsupportedModelError
        As for `per_atom`.
    """
    from graphprune.training.bridge import to_torch
    from graphprune.training.gradient_saliency import weight_products
    from graphprune.training.likelihood import Likelihood

    net = to_torch(analysis.model)
    loss = Likelihood(net.graph, seed)
    with _torch_errors(analysis):
        return Products(weight_products(net, _batches(analysis, source, _BATCH), loss), loss.of)


def output_gradients(analysis: Analysis, source: Source, seed: int) -> tuple[tuple[Floats, ...] | None, ...]:
    """Return the root mean square of the gradient at each output of each consumer; zeros where torch does not reach.

    Raises
    ------
    DataError, UnsupportedModelError
        As for `per_atom`.
    """
    places = consumer_outputs(analysis)
    axes = {name: axis for own in places for name, axis in own or ()}
    squares: dict[str, Floats] = {}
    count = 0
    for values, _ in at_values(analysis, list(axes), source, seed):
        for name, (_, gradient) in values.items():
            others = tuple(axis for axis in range(gradient.ndim) if axis != axes[name] % gradient.ndim)
            squares[name] = squares.get(name, 0.0) + np.square(gradient, dtype=np.float64).mean(axis=others)
        count += 1
    return tuple(
        None if own is None else tuple(_root(squares.get(name), count, analysis, name, axis) for name, axis in own)
        for own in places
    )


def _root(squares: Floats | None, count: int, analysis: Analysis, name: str, axis: int) -> Floats:
    if squares is None:
        return np.zeros(analysis.shapes.dims[name][axis])
    root: Floats = np.sqrt(squares / count)
    return root


def at_values(
    analysis: Analysis, names: Sequence[str], source: Source, seed: int
) -> Iterator[tuple[dict[str, tuple[Floats32, Floats32]], str]]:
    """Yield for every batch values with the gradients at them, by name, and what was differentiated.

    Raises
    ------
    DataError, UnsupportedModelError
        As for `per_atom`.
    """
    from graphprune.training.bridge import to_torch
    from graphprune.training.likelihood import Likelihood
    from graphprune.training.observers import observed

    net = to_torch(analysis.model)
    loss = Likelihood(net.graph, seed)
    with _torch_errors(analysis):
        for values in observed(net, names, _batches(analysis, source, _BATCH), loss):
            yield values, loss.of


def _batches(analysis: Analysis, source: Source, size: int) -> Iterator[Samples]:
    from graphprune.training.loader import Samples

    for index in whole_batches(source, input_specs(analysis.model), size):
        yield Samples.of(source.read(index))


@contextmanager
def _torch_errors(analysis: Analysis) -> Iterator[None]:
    """Say which model it was that torch could not run."""
    try:
        yield
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        first = str(error).strip().split("\n")[0]
        raise UnsupportedModelError(
            f"{quote(analysis.model.name)} gives no gradients in torch: {quote(first)}",
            hint="criteria without gradients are reconstruct and hrank, and all that need no samples",
        ) from error
