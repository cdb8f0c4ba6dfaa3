# SPDX-License-Identifier: Apache-2.0
"""Models that never end or take all memory: a chain of convolutions with something hostile between them."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto
from tiny_models import model

__all__ = ["doubling", "endless"]

_WEIGHTS = {"first": (8, 3, 3, 3), "last": (4, 8, 3, 3)}


def endless() -> ModelProto:
    """Return a model with a loop that goes on for ever."""
    return model(
        """(float[1,3,8,8] x) => (float[1,4,8,8] y) {
            h = Conv <pads = [1, 1, 1, 1]> (x, first)
            m = Loop (trips, go, h)
                <body = forever (int64 at, bool on, float[1,8,8,8] a) => (bool still, float[1,8,8,8] b) {
                    still = Identity (on) b = Relu (a)
                }>
            y = Conv <pads = [1, 1, 1, 1]> (m, last)
        }""",
        _WEIGHTS,
        trips=np.asarray(2**62),
        go=np.asarray(True),
    )


def doubling(times: int = 40) -> ModelProto:
    """Return a model that doubles a text so many times."""
    texts = "\n".join(f"t{at + 1} = StringConcat (t{at}, t{at})" for at in range(times))
    return model(
        f"""(float[1,3,8,8] x, string[1] t0) => (float[1,4,8,8] y, string[1] t{times}) {{
            h = Conv <pads = [1, 1, 1, 1]> (x, first)
            m = Relu (h)
            y = Conv <pads = [1, 1, 1, 1]> (m, last)
            {texts}
        }}""",
        _WEIGHTS,
        opset=20,
        ir=9,
    )
