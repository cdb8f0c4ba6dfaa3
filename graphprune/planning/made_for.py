# SPDX-License-Identifier: Apache-2.0
"""Whether a plan was made for a model; where it was not, how the model came to be another one, if it says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.errors import PlanError, quote
from graphprune.plan.structure import check_model
from graphprune.surgery.marks import PLAN, quantized

if TYPE_CHECKING:
    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan

__all__ = ["check_made_for"]

_IN_INTEGERS = frozenset({"ConvInteger", "DequantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"})


def check_made_for(plan: Plan, model: Model, *, rebind: bool) -> None:
    """Refuse a plan of another model.

    Raises
    ------
    PlanError
        It says so where the model was pruned already, or is in lower precision.
    """
    try:
        check_model(plan, model, rebind=rebind)
    except PlanError as error:
        became = _became(model)
        if not became:
            raise
        original = quote(plan.model.name)
        first = f"apply the plan to {original}, the file that it was made for"
        then = ", and `graphprune quantize` what comes of it" if _kind(model) else ""
        raise PlanError(
            f"the plan was made for {original}, and {quote(model.name)} is {became}: no plan of another file fits it",
            hint=f"{first}{then}; for a plan of this very file run `graphprune solve`",
        ) from error


def _became(model: Model) -> str:
    """Return what a model says that it is, where that makes it another one than the original; empty if nothing."""
    marks = {entry.key for entry in model.proto.metadata_props}
    parts = []
    if PLAN in marks:
        parts.append("a file that was pruned already")
    kind = _kind(model)
    if kind:
        parts.append(f"in lower precision ({kind})")
    return " and ".join(parts)


def _kind(model: Model) -> str:
    """Return in which lower precision a model is, by what it says or by its operators; empty if in none."""
    own = any(node.op_type in _IN_INTEGERS for node in model.proto.graph.node)
    return quantized(model.proto) or ("int8" if own else "")
