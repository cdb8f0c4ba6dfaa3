# SPDX-License-Identifier: Apache-2.0
"""Consistency: whether a plan, its model and a pruned file belong together; neither model is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune import api
from graphprune.checks import contained
from graphprune.errors import PlanError, VerificationError, quote
from graphprune.phases import logged
from graphprune.surgery.marks import marks, weights_changed
from graphprune.verification.check_marks import check_marks
from graphprune.verification.fidelity.check_fidelity import check_fidelity
from graphprune.verification.relearned import check_relearned

if TYPE_CHECKING:
    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan

__all__ = ["check_consistency"]


@logged("checking")
@contained
def check_consistency(
    model: Model, plan: Plan, pruned: Model | None = None, *, rebind: bool = False
) -> tuple[str, ...]:
    """Check that a plan fits a model, and that a pruned file is what the plan makes of it, without running either.

    Every figure of the plan is counted anew. A pruned file is compared with the original field by field; one whose
    weights were changed afterwards has to equal what the surgery makes in everything else.

    Parameters
    ----------
    model : Model
        The original.
    plan : Plan
    pruned : Model, optional
    rebind : bool
        Accept another model of the same structure.

    Returns
    -------
    tuple of str
        What there is to say of a plan that was edited.

    Raises
    ------
    PlanError
        If they do not belong together, naming the first thing that differs.
    """
    analysis = api.analyze_for(model, plan, rebind=rebind)
    reconciled = api.reconcile(analysis, plan, rebind=rebind)
    if pruned is None:
        return reconciled.notes
    try:
        if weights_changed(pruned.proto) or reconciled.plan.is_identity:
            check_relearned(api.apply(analysis, reconciled), pruned)
        else:
            check_fidelity(reconciled.reference.start, pruned, reconciled.plan)
            check_marks(marks(analysis, reconciled.plan), pruned.proto)
    except VerificationError as error:
        file = quote(str(pruned.path or pruned.name))
        raise PlanError(
            f"{file} is not what the plan makes of {quote(model.name)}: {error.message}",
            hint="`graphprune apply MODEL PLAN --force` makes the model of this plan",
        ) from error
    return reconciled.notes
