# SPDX-License-Identifier: Apache-2.0
"""Fidelity: a recovered model differs from the pruned one in the weights that were recovered, and in nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.errors import VerificationError
from graphprune.model.normalize import inline_functions
from graphprune.verification.fidelity.check_weights import check_same_but_weights

if TYPE_CHECKING:
    from graphprune.model.load import Model
    from graphprune.recovery.editable_model import EditableModel

__all__ = ["check_recovered"]


def check_recovered(pruned: Model, recovered: Model, editable: EditableModel) -> None:
    """Compare a recovered model with the pruned one, field by field.

    Parameters
    ----------
    pruned, recovered : Model
    editable : EditableModel
        Says which tensors have new values, and which nodes a new bias.

    Raises
    ------
    VerificationError
        If anything else differs.

    Complexity: O(bytes of the model).
    """
    before = inline_functions(pruned.proto)
    try:
        check_same_but_weights(before, recovered.proto, lambda tensor: tensor.name in editable.written, editable.biased)
    except VerificationError as error:
        raise VerificationError(f"recovery failed, {error.message}", hint="this is a fault of graphprune") from error
