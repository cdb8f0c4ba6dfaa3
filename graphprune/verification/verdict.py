# SPDX-License-Identifier: Apache-2.0
"""The verdict: whether a pruned model may be used, from its plan and its comparison with the masked original."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.errors import UnsupportedModelError, VerificationError, quote
from graphprune.plan.keep_mask import keep_mask
from graphprune.plan.schema import digest
from graphprune.surgery.marks import PLAN
from graphprune.verification.causes import strange_domains
from graphprune.verification.verify import Verification, verify_equal, verify_pruned

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan

__all__ = ["judged"]

_BEYOND = 1e299  # stands for infinity in a verification


def judged(
    analysis: Analysis, pruned: Model, plan: Plan, *, original: Analysis | None = None, unverified: bool = False
) -> Verification:
    """Compare a pruned model with the masked original, and refuse it if they differ.

    What a plan calls lossless is then compared with the original itself.

    Parameters
    ----------
    analysis : Analysis
        Of the original, reweighted as the plan says.
    pruned : Model
        The result.
    plan : Plan
        What was removed; every figure in it is right.
    original : Analysis, optional
        Of the original itself, where that is another model.
    unverified : bool
        Let a model pass that cannot be run because of operators that onnxruntime does not know.

    Raises
    ------
    VerificationError
        If the models differ, or could not be run.
    UnsupportedModelError
        If the original does not run.
    """
    if plan.is_identity and pruned is analysis.model:
        return Verification("identity", error=0.0, tolerance=0.0, tensor="", effect=0.0, compared=0)
    try:
        keep = keep_mask(analysis, plan)
        verdict = verify_pruned(analysis, pruned, keep)
        if plan.lossless and verdict.ok:
            verdict = verify_equal(original or analysis, pruned, keep)
    except (UnsupportedModelError, VerificationError) as error:
        strange = strange_domains(analysis)
        if not strange:
            raise
        if unverified:
            return Verification("unverified", error=0.0, tolerance=0.0, tensor="", effect=0.0, compared=0)
        hint = f"it has operators of {', '.join(strange)}; --unverified (unverified=True) goes on without a proof"
        raise type(error)(error.message, hint=hint) from error
    if not verdict.ok:
        raise _difference(verdict, pruned, plan)
    return verdict


def _difference(verdict: Verification, pruned: Model, plan: Plan) -> VerificationError:
    """Return the error that says where two models differ, and why that may be."""
    much = (
        f"by {verdict.error:.1e} ({verdict.tolerance:.1e} is allowed)"
        if verdict.error < _BEYOND
        else "in shape or infinities"
    )
    marked = next((entry.value for entry in pruned.proto.metadata_props if entry.key == PLAN), None)
    if marked is not None and marked != digest(plan):
        hint = f"the file was made from another plan, with the digest {quote(marked)}"
    else:
        hint = "if graphprune made this file from this plan, please report it; nothing was written"
    other = "original" if verdict.lossless else "masked original"
    return VerificationError(f"the pruned model differs from the {other} {much} at {quote(verdict.tensor)}", hint=hint)
