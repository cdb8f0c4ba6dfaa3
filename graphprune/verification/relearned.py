# SPDX-License-Identifier: Apache-2.0
"""Files whose weights were changed after pruning: what can still be proven of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from graphprune.errors import VerificationError, quote
from graphprune.verification.fidelity.check_weights import check_only_weights_differ

if TYPE_CHECKING:
    from graphprune.model.load import Model
    from graphprune.verification.verify import Verification

__all__ = ["verify_relearned"]


def verify_relearned(found: Verification, made: Model, pruned: Model, changed: str) -> Verification:
    """Say that a file is what the surgery makes but for its weights.

    Parameters
    ----------
    found : Verification
        Of what the surgery makes.
    made, pruned : Model
        What it makes, and the file.
    changed : str
        How the file says that its weights were changed.

    Raises
    ------
    VerificationError
        If more than weights differs.
    """
    try:
        check_only_weights_differ(made.proto, pruned.proto)
    except VerificationError as error:
        hint = "the file is not what the plan makes of the original; `graphprune apply` makes it anew"
        raise VerificationError(error.message, hint=hint) from error
    own = f"this is what the plan makes; the file differs from it in weights ({quote(changed)}) and in nothing else"
    return replace(found, note="; ".join(part for part in (found.note, own) if part))
