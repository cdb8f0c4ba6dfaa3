# SPDX-License-Identifier: Apache-2.0
"""A network whose layers take times of their own: what latencies are planned and measured with."""

from __future__ import annotations

TEXT = """(float[1,16,16,16] x) => (float[1,8,16,16] y) {
    a = Conv (x, first)
    b = Relu (a)
    c = Conv (b, second)
    d = Relu (c)
    y = Conv (d, third)
}"""
WEIGHTS = {"first": (64, 16, 1, 1), "second": (96, 64, 1, 1), "third": (8, 96, 1, 1)}
