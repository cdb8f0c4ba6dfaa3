# SPDX-License-Identifier: Apache-2.0
"""What recovery is asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from graphprune.checks import check_fields
from graphprune.data.varied import MOST_COPIES
from graphprune.data.windows import POSITIONS
from graphprune.errors import UsageError
from graphprune.notebook import html_table
from graphprune.report import text

if TYPE_CHECKING:
    from graphprune.data.source import Source
    from graphprune.model.load import Model

__all__ = ["METHODS", "Method", "Progress", "RecoverOptions", "Recovery"]

Method = Literal["least-squares", "blocks", "bn", "bias"]
METHODS: tuple[Method, ...] = get_args(Method)
Progress = Callable[[int, int], None]
"""Called with what is done and what there is to do."""


@dataclass(frozen=True)
class RecoverOptions:
    """How accuracy is brought back.

    Parameters
    ----------
    method : {"least-squares", "blocks", "bn", "bias"}
        Refit weights; refit them, and then let blocks of layers learn from the dense network, which needs torch
        (:mod:`graphprune.recovery.refine_blocks`); estimate BatchNormalization anew; or shift biases only
        (:mod:`graphprune.recovery.methods`).
    ridge : float
        The weakest pull towards the present weights, relative to the variance of the inputs. How much stronger it is at
        a layer, is what one half of the samples says of the other (:mod:`graphprune.recovery.ridge`).
    samples : int
        The most calibration samples used, those held out included.
    held_out : float
        Share of them that only judges the result.
    rounds : int
        How often targets in front of a ReLU or `Clip` are adapted to it; 0 refits without looking at it.
    rescale : bool
        After least squares, give every output the variance of its target, as CaP does; ReLUs are not looked at then.
    seed : int
        For the sampled positions.
    positions : int
        The most output positions of a convolution that are looked at per sample.
    copies : int
        Of each image that is not held out, so many changed copies are fitted to as well: the mirror image, then pieces
        (:mod:`graphprune.data.varied`). For networks to which left and right are alike.
    """

    method: Method = "least-squares"
    ridge: float = 1e-3
    samples: int = 1024
    held_out: float = 0.125
    rounds: int = 4
    rescale: bool = False
    seed: int = 0
    positions: int = POSITIONS
    copies: int = 0

    def __post_init__(self) -> None:
        check_fields(self, method=Method)
        if not 0 < self.ridge <= 1:
            raise UsageError(f"the ridge is {self.ridge}, but must be in (0, 1]")
        if not 0 < self.held_out < 1:
            raise UsageError(f"the held-out share is {self.held_out}, but must lie between 0 and 1")
        if self.positions < 1:
            raise UsageError(f"at least one position per sample is looked at, positions is {self.positions}")
        if not 0 <= self.copies <= MOST_COPIES:
            raise UsageError(f"there can be up to {MOST_COPIES} copies of each image, not {self.copies}")
        if self.samples < 2:
            raise UsageError(f"{text.plural(self.samples, 'sample')} cannot be divided: some are held out")

    def limited(self, source: Source) -> tuple[Source, int]:
        """Return the samples that are used, and how many of them are held out."""
        used = source.limited(self.samples)
        return used, max(1, round(self.held_out * len(used)))


@dataclass(frozen=True, eq=False, repr=False)
class Recovery:
    """What came of it.

    Attributes
    ----------
    model : Model
        The recovered model; the pruned one as it was where recovery did not help.
    improved : bool
        Whether it did: the error on held-out samples fell. For scores of classes it is the product of the errors at
        their own and at their best scale: the class that comes first does not depend on the scale, and by the error
        alone, outputs that have collapsed look better than they are.
    before, after : float
        Squared error of the outputs against the dense network on held-out samples, relative to their variance.
    misfit, agreement : tuple of two float, optional
        Before and after: the error of scores at their best scale, and the share of held-out samples with the class that
        the dense network gives. None where the only output is no logits.
    nodes : tuple of str
        Nodes that were changed.
    left : tuple of str
        Nodes that could not be refitted.
    """

    model: Model
    method: Method
    improved: bool
    before: float
    after: float
    samples: int
    held_out: int
    nodes: tuple[str, ...]
    left: tuple[str, ...]
    misfit: tuple[float, float] | None = None
    agreement: tuple[float, float] | None = None

    @property
    def _facts(self) -> list[tuple[str, str]]:
        change = f"{100 * self.before:.3g} % -> {100 * self.after:.3g} % of the variance of the outputs"
        judged = f"{text.plural(self.held_out, 'sample')} held out of {self.samples + self.held_out}"
        facts = [("error", f"{change}, on {judged}"), ("layers", str(len(self.nodes)))]
        if self.agreement is not None:
            facts.append(("agreement", f"{self.agreement[0]:.1%} -> {self.agreement[1]:.1%}"))
        return facts

    def __repr__(self) -> str:
        head = self.method if self.improved else f"{self.method}, no gain"
        return f"Recovery({head}: {'; '.join(f'{name} {value}' for name, value in self._facts)})"

    def _repr_html_(self) -> str:
        return html_table(f"Recovery by {self.method}{'' if self.improved else ': no gain'}", (), self._facts)
