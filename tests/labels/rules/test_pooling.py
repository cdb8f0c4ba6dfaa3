# SPDX-License-Identifier: Apache-2.0
"""Rules of pools."""

from __future__ import annotations

import pytest
from oracle_check import analyze, check
from rule_cases import Case, Stays, rule_tests
from tiny_models import chain, model

CASES = [
    Case("max", chain("m = MaxPool <kernel_shape = [2, 2]> (h)")),
    Case("max-padded", chain("m = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (h)")),
    Case("max-dilated-ceil", chain("m = MaxPool <kernel_shape = [2, 2], dilations = [2, 2], ceil_mode = 1> (h)")),
    Case("average", chain("m = AveragePool <kernel_shape = [2, 2], count_include_pad = 1> (h)")),
    Case("average-one-dimension", chain("m = AveragePool <kernel_shape = [2]> (h)", spatial=(9,))),
    Case("lp", chain("m = LpPool <kernel_shape = [2, 2], p = 2> (h)")),
    Case("global-average", chain("m = GlobalAveragePool (h)")),
    Case("global-max-three-dimensions", chain("m = GlobalMaxPool (h)", spatial=(2, 3, 3))),
    Case("global-lp", chain("m = GlobalLpPool (h)")),
]


def _turned(op: str) -> str:
    """Pool along the channels, which a transpose has made a spatial axis."""
    return f"""(float[2,3,6] x) => (float[] y) {{
        h = Conv (x, first)
        t = Transpose <perm = [0, 2, 1]> (h)
        m = {op} (t)
        n = Conv (m, middle)
        y = Conv (n, last)
    }}"""


WEIGHTS = {"first": (8, 3, 1), "middle": (4, 6, 1), "last": (2, 4, 1)}
FREE = {"n": (4, "middle.0 out, last.1 in")}

STAYS = [
    Stays("window", model(_turned("MaxPool <kernel_shape = [2]>"), WEIGHTS), ("sliding window", "m"), groups=FREE),
    Stays(
        "stride",
        model(_turned("AveragePool <kernel_shape = [1], strides = [2]>"), WEIGHTS),
        ("sliding window", "m"),
        groups=FREE,
    ),
    Stays(
        "point-window-passes-to-the-output",
        model(_turned("MaxPool <kernel_shape = [1], pads = [0, 0]>"), WEIGHTS),
        ("graph output", ""),
        groups=FREE,
    ),
    Stays("global", model(_turned("GlobalAveragePool"), WEIGHTS), ("GlobalAveragePool", "m"), groups=FREE),
    Stays(
        "indices",
        model(
            """(float[2,3,6,6] x) => (float[] y, int64[] i) {
                g = Conv (x, zero)
                h = Conv (g, first)
                m, i = MaxPool <kernel_shape = [2, 2]> (h)
                y = Conv (m, last)
            }""",
            {"zero": (4, 3, 1, 1), "first": (8, 4, 1, 1), "last": (2, 8, 1, 1)},
        ),
        ("MaxPool indices", "m"),
        groups={"g": (4, "zero.0 out, first.1 in")},
    ),
]

test_keeps, test_numbers, test_freezes = rule_tests(CASES, STAYS)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize("opset", [7, 10, 12, 18, 22])
def test_all_opsets(op: str, opset: int) -> None:
    assert check(chain(f"m = {op} <kernel_shape = [2, 2]> (h)", opset=opset)).effect > 1e-3


def test_unread_indices_do_not_freeze() -> None:
    assert [group.size for group in analyze(chain("m, = MaxPool <kernel_shape = [2, 2]> (h)")).groups] == [8]
