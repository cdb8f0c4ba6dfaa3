# SPDX-License-Identifier: Apache-2.0
"""How a model is analysed: what is asked for, or what a plan says it was made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

from graphprune.choices import Attention, Grouped
from graphprune.errors import PlanError, quote

if TYPE_CHECKING:
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
    grouped : {"auto", "groups", "slices"}
        What goes from a grouped convolution where both can: whole groups, a slice of each group, or what reaches
        further; by node, where that was decided before.
    """

    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    attention: Attention = "heads"
    approximate: bool = False
    grouped: Grouped | Mapping[str, str] = "auto"

    @classmethod
    def of(cls, plan: Plan) -> AnalyzeOptions:
        """Return the options with which a plan was made.

        Raises
        ------
        PlanError
            If the plan records an unknown way to prune attention.
        """
        recorded = plan.solver.options
        attention = recorded.get("attention", "heads")
        if attention not in get_args(Attention):
            raise PlanError(f"the plan prunes attention by {quote(attention)}, which is not known")
        choices = [entry for entry in recorded.get("choices", ()) if isinstance(entry, dict)]
        carried = {str(entry.get("node")): str(entry.get("carried")) for entry in choices}
        return cls(plan.model.inputs, attention, recorded.get("approximate") is True, carried)
