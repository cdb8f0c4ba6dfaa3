# SPDX-License-Identifier: Apache-2.0
"""Rules of operators that sort, cut or number elements along an axis."""

from __future__ import annotations

import numpy as np
from rule_cases import Case, Stays, rule_tests
from tiny_models import chain

TOP = "m, i = TopK <axis = {axis}> (h, four)"
LENGTHS = np.asarray([3, 6, 1, 2, 5, 4])

CASES = [
    Case("trilu", chain("m = Trilu (h)")),
    Case("trilu-lower", chain("m = Trilu <upper = 0> (h, k)", k=np.asarray(-1))),
    Case("top-k", chain(TOP.format(axis=-1), four=[4])),
    Case("top-k-10", chain(TOP.format(axis=2), four=[4], opset=10)),
    Case(
        "reverse",
        chain(
            "t = Transpose <perm=[3,2,0,1]> (h) r = ReverseSequence (t, n) m = Transpose <perm=[2,3,1,0]> (r)",
            n=LENGTHS,
        ),
    ),
    Case(
        "reverse-channels-each",
        chain(
            "t = Transpose <perm=[2,1,0,3]> (h) r = ReverseSequence (t, n) m = Transpose <perm=[2,1,0,3]> (r)",
            n=np.asarray([3, 6, 1, 2, 5, 4, 1, 6]),
        ),
        {"h": (8, "first.0 out, n.0 per_channel, last.1 in")},
    ),
    Case("crop", chain("m = CenterCropPad <axes = [2, 3]> (h, size)", size=[4, 9], opset=18)),
    Case(
        "one-hot",
        chain(
            "a = ArgMax <axis = 2> (h) o = OneHot <axis = 2> (a, depth, two) s = Squeeze (o, at) m = Identity (s)",
            depth=[6],
            two=np.asarray([0, 1], dtype=np.float32),
            at=[3],
        ),
    ),
]

STAYS = [
    Stays("top-k-channels", chain(TOP.format(axis=1), four=[4], after=4), ("TopK", "m")),
    Stays(
        "trilu-channels",
        chain("t = Transpose <perm=[0,2,3,1]> (h) u = Trilu (t) m = Transpose <perm=[0,3,1,2]> (u)"),
        ("Trilu", "u"),
    ),
    Stays(
        "crop-channels",
        chain("m = CenterCropPad <axes = [1]> (h, size)", size=[4], after=4, opset=18),
        ("CenterCropPad", "m"),
    ),
    Stays(
        "reverse-channels",
        chain(
            "t = Transpose <perm=[1,0,2,3]> (h) r = ReverseSequence (t, n) m = Transpose <perm=[1,0,2,3]> (r)",
            n=[4, 8],
        ),
        ("ReverseSequence", "r"),
    ),
    Stays("product", chain("m = CumProd (h, at)", at=np.asarray(1), opset=26), ("CumProd", "m")),
]

test_keeps, test_numbers, test_freezes = rule_tests(CASES, STAYS)
