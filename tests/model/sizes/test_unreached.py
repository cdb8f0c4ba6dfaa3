# SPDX-License-Identifier: Apache-2.0
"""Branches that inputs of these sizes do not reach may hold what is impossible for them; no other branch may."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from tiny_models import model

from graphprune import api
from graphprune.errors import ModelFileError


def _with_branches(wanted: int) -> onnx.ModelProto:
    """Return a network that cuts four channels into 3, 3 and -2 if it is wanted to, else into halves.

    A made-up target of zeros does not run, so that no run can tell which branch is taken.
    """
    return model(
        """(float[1,3,4,4] x, int64[5] target) => (float[a,b,c,d] y, float[aa,bb,cc,dd,ee] z) {
            h = Conv (x, first)
            rank = Size (sizes)
            long = Equal (rank, wanted)
            part, rest = If (long) <
                then_branch = longer () => (float[e,f,g,i] l, float[j,k,m,n] s) {
                    l, s, third = Split <axis = 1> (h, thirds) },
                else_branch = shorter () => (float[o,p,q,r] u, float[t,v,w,z] t2) {
                    u, t2 = Split <axis = 1> (h, halves) }
            >
            both = Concat <axis = 1> (rest, part)
            y = Conv (both, last)
            z = Reshape (y, target)
        }""",
        {"first": (4, 3, 1, 1), "last": (2, 4, 1, 1)},
        sizes=[1, 2, 3, 4],
        wanted=np.int64(wanted),
        thirds=[3, 3, -2],
        halves=[2, 2],
    )


def test_an_impossible_size_in_a_branch_that_is_not_reached_refuses_nothing() -> None:
    analysis = api.analyze(api.load(_with_branches(5)))
    assert analysis.shapes.dims["part"] == (1, 2, 4, 4)
    assert analysis.layers


def test_an_impossible_size_in_the_branch_that_is_reached_refuses_the_model() -> None:
    with pytest.raises(ModelFileError, match=r"Split\('l'\): its result 'third' would have the shape \[1, -2, 4, 4\]"):
        api.analyze(api.load(_with_branches(4)))
