# SPDX-License-Identifier: Apache-2.0
"""How a model is analysed: what is asked for, or what a plan says it was made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from graphprune.checks import check_choice, check_fields
from graphprune.choices import Attention, Grouped
from graphprune.errors import PlanError, quote
from graphprune.labels.vector import MOST_SLICES

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.plan.schema import Plan

__all__ = ["AnalyzeOptions"]


@dataclass(frozen=True)
class AnalyzeOptions:
    """How a model is analysed.

    Parameters
    ----------
    input_shapes : mapping of str to tuple of int
        Shapes for which costs are counted, of inputs with dynamic dimensions.
    attention : {"heads", "head-dim"}
        What goes from an attention layer: whole heads, or the same part of every head.
    approximate : bool
        Let channels pass through normalisations over the channel axis (embedding widths of
        transformers). Such groups are not exact: their statistics run over what is kept.
    grouped : {"auto", "groups", "slices", "own"}
        What goes from a grouped convolution where there is a choice: whole groups; a slice of each group at the same
        positions, or at positions of its own where nothing behind forbids it; with "auto" what reaches further, at
        own positions. By node, where that was decided before: the name of what goes, or the rank of every output
        within its group.
    """

    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    attention: Attention = "heads"
    approximate: bool = False
    grouped: Grouped | Mapping[str, str | Sequence[int]] = "auto"

    def __post_init__(self) -> None:
        check_fields(self, attention=Attention)
        if not isinstance(self.grouped, Mapping):
            check_choice("grouped", self.grouped, Grouped)

    @classmethod
    def like(cls, analysis: Analysis) -> AnalyzeOptions:
        """Return the options with which a model was analysed."""
        return cls(analysis.input_shapes, analysis.attention, analysis.approximate, analysis.grouped)

    @classmethod
    def of(cls, plan: Plan) -> AnalyzeOptions:
        """Return the options with which a plan was made.

        Raises
        ------
        PlanError
            If the plan records an unknown way to prune attention, or ranks that are no numbers.
        """
        recorded = plan.solver.options
        attention = recorded.get("attention", "heads")
        if attention not in get_args(Attention):
            raise PlanError(f"the plan prunes attention by {quote(attention)}, which is not known")
        choices = [entry for entry in recorded.get("choices", ()) if isinstance(entry, dict)]
        carried = {str(entry.get("node")): _taken(entry) for entry in choices}
        return cls(plan.model.inputs, attention, recorded.get("approximate") is True, carried)


def _taken(entry: Mapping[str, Any]) -> str | tuple[int, ...]:
    """Return what a plan says of one choice: the ranks of outputs, where it records them, or a name."""
    if "ranks" not in entry:
        return str(entry.get("carried"))
    ranks = entry["ranks"]
    if not isinstance(ranks, list | tuple) or not all(type(rank) is int and 0 <= rank < MOST_SLICES for rank in ranks):
        raise PlanError(f"the plan records no ranks of the outputs of {quote(entry.get('node'))}")
    return tuple(ranks)
