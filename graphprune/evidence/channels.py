# SPDX-License-Identifier: Apache-2.0
"""Channels: what samples say of single channels, computed once, when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.array_types import Floats
    from graphprune.data.source import Source
    from graphprune.evidence.gradients import Way
    from graphprune.solvers.protocols.observed import Flows, Gradients, Products
    from graphprune.solvers.protocols.reading import Reading


__all__ = ["Channels"]

Found = TypeVar("Found")


@dataclass(eq=False)
class Channels:
    """What samples say of single channels; it fulfils :class:`graphprune.solvers.protocols.observed.Observed`.

    Parameters
    ----------
    analysis : Analysis
        Of the network.
    source : Source
        Samples as the network meets them in use.
    seed : int
        For what is drawn.
    """

    analysis: Analysis
    source: Source
    seed: int = 0
    _known: dict[tuple[str, int], Any] = field(default_factory=dict, init=False, repr=False)

    def readings(self, samples: int) -> tuple[tuple[Reading, ...] | None, ...]:
        """Return what every consumer of a group sees of it; errors count behind a following BatchNormalization."""
        from graphprune.evidence.consumer_readings import consumer_readings

        return self._once("readings", samples, lambda source: consumer_readings(self.analysis, source, self.seed))

    def output_gradients(self, samples: int) -> tuple[tuple[Floats, ...] | None, ...]:
        """Return for each of the `readings` the root mean square of the gradient at each output, shape (outputs,)."""
        from graphprune.evidence import gradients

        return self._once(
            "output gradients", samples, lambda source: gradients.output_gradients(self.analysis, source, self.seed)
        )

    def map_ranks(self, samples: int) -> tuple[Floats | None, ...]:
        """Return the mean rank of the feature maps of each atom, as what reads the group sees them."""
        from graphprune.evidence.maps import map_ranks

        return self._once("map ranks", samples, lambda source: map_ranks(self.analysis, source))

    def taylor_activation(self, samples: int) -> Gradients:
        """Return the mean over samples of ``|sum of a dL/da|`` over all places that read the atom."""
        return self._gated("taylor_activation", samples)

    def taylor_weight(self, samples: int) -> Gradients:
        """Return the mean over batches of ``|sum of w dL/dw|`` over all weights that make the atom."""
        return self._gated("taylor_weight", samples)

    def fisher(self, samples: int) -> Gradients:
        """Return half the mean over samples of the squared sum of a dL/da over all places that read the atom."""
        return self._gated("fisher", samples)

    def products(self, samples: int) -> Products:
        """Return weights times gradients, elementwise."""
        from graphprune.evidence import gradients

        return self._once("products", samples, lambda source: gradients.products(self.analysis, source, self.seed))

    def flows(self, samples: int, *, squared: bool) -> Flows:
        """Return activations times gradients, layer by layer; halves of squares instead of magnitudes if `squared`."""
        from graphprune.evidence.flows import flows

        return self._once(
            f"flows {squared}", samples, lambda source: flows(self.analysis, source, self.seed, squared=squared)
        )

    def _gated(self, name: Way, samples: int) -> Gradients:
        from graphprune.evidence import gradients

        return self._once(name, samples, lambda source: gradients.per_atom(name, self.analysis, source, self.seed))

    def _once(self, name: str, samples: int, compute: Callable[[Source], Found]) -> Found:
        """Return what was computed from at most so many samples before, or compute it."""
        source = self.source.limited(samples)
        key = name, len(source)
        if key not in self._known:
            self._known[key] = compute(source)
        return cast(Found, self._known[key])
