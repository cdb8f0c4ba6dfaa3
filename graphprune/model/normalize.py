# SPDX-License-Identifier: Apache-2.0
"""Bring a model into the form that the analysis reads: local functions inlined, nothing else.

Constants are *seen* as folded by the analysis but stay in the file as they are;
`graphprune.surgery.folding` writes that view out, for looking at it.
"""

from __future__ import annotations

import onnx
from onnx import ModelProto, inliner

from graphprune.errors import UnsupportedModelError

__all__ = ["inline_functions"]


def inline_functions(proto: ModelProto) -> ModelProto:
    """Return the model without local functions; the same object where there are none.

    Raises
    ------
    UnsupportedModelError
        If onnx cannot inline a function of the model.
    """
    if not proto.functions:
        return proto
    try:
        return inliner.inline_local_functions(proto, convert_version=True)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        raise UnsupportedModelError(
            f"a local function of the model cannot be inlined: {error}", hint="export the model without local functions"
        ) from error
