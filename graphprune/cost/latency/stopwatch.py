# SPDX-License-Identifier: Apache-2.0
"""A stopwatch: how long models take, in one runtime on this machine. Tables, budgets and pairs all ask it.

That of onnxruntime is :mod:`graphprune.cost.latency.session_stopwatch`; those of other runtimes come from
:mod:`graphprune.export.runtime_stopwatch`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from graphprune.cost.latency.environment import Environment
    from graphprune.cost.latency.probe import Sample

__all__ = ["Stopwatch"]


class Stopwatch(Protocol):
    """Times models in one runtime.

    Attributes
    ----------
    environment : Environment
        What its times hold for.
    """

    @property
    def environment(self) -> Environment:
        """What its times hold for."""

    def rounds(self, models: Sequence[Path | bytes], shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[float, ...]]:
        """Run models in turn, in an order that changes from round to round.

        Parameters
        ----------
        models : sequence of Path or bytes
            Files, or serialised models without external data.
        shapes : mapping of str to tuple of int
            Shapes of the inputs.

        Returns
        -------
        list of tuple of float
            For each round the seconds of each model.

        Raises
        ------
        UnsupportedModelError
            If one of them does not run there.
        """

    def layers(self, samples: Sequence[Sample]) -> Iterator[dict[str, int]]:
        """Measure parts of networks, each alone.

        Yields
        ------
        dict of str to int
            Nanoseconds by the key of each sample, some samples at a time; what does not run alone is left out.

        Raises
        ------
        UnsupportedModelError
            If nothing can be measured there.
        """
