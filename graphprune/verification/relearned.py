# SPDX-License-Identifier: Apache-2.0
"""Files whose weights were changed after pruning: what can still be proven of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from graphprune.errors import VerificationError, quote
from graphprune.model.tensors import FLOATS
from graphprune.model.validity.survey import survey
from graphprune.surgery.marks import KEPT, PLAN
from graphprune.verification.check_marks import check_marks
from graphprune.verification.fidelity.check_weights import check_only_weights_differ

if TYPE_CHECKING:
    from graphprune.model.load import Model
    from graphprune.verification.verify import Verification

__all__ = ["check_relearned", "verify_relearned"]


def verify_relearned(verdict: Verification, made: Model, pruned: Model, changed: str) -> Verification:
    """Say that a file is what the surgery makes but for its weights, of which nothing is proven.

    Parameters
    ----------
    verdict : Verification
        On what the surgery makes.
    made, pruned : Model
        What it makes, and the file.
    changed : str
        How the file says that its weights were changed.

    Returns
    -------
    Verification
        With the status "surgery".

    Raises
    ------
    VerificationError
        If more than weights differs, the marks of the file are not those of the plan, or weights are not finite.
    """
    try:
        check_relearned(made, pruned)
    except VerificationError as error:
        hint = "the file is not what the plan makes of the original; `graphprune apply` makes it anew"
        raise VerificationError(error.message, hint=hint) from error
    own = f"this is what the plan makes; the file differs from it in weights ({quote(changed)}) and in nothing else"
    return replace(verdict, status="surgery", note="; ".join(part for part in (verdict.note, own) if part))


def check_relearned(made: Model, pruned: Model) -> None:
    """Check that a file differs from what the surgery makes in nothing but weights, and that these are finite.

    Raises
    ------
    VerificationError
        If more than weights differs, the marks of the file are not those of the plan, or weights are not finite.
    """
    check_only_weights_differ(made.proto, pruned.proto)
    marks = {entry.key: entry.value for entry in made.proto.metadata_props if entry.key in (PLAN, KEPT)}
    if marks:
        check_marks(marks, pruned.proto)
    _check_finite(made, pruned)


def _check_finite(made: Model, pruned: Model) -> None:
    """Raise if a weight is infinite or no number; masks that were so before may be."""
    before = {held.tensor.name: held.tensor for held in survey(made.proto).tensors}
    for held in survey(pruned.proto).tensors:
        tensor = held.tensor
        if tensor.data_type not in FLOATS or np.isfinite(pruned.tensors.array(tensor).astype(np.float32)).all():
            continue
        old = before.get(tensor.name)
        if old is None or old != tensor:
            raise VerificationError(f"{held.where} holds values that are infinite or no numbers")
