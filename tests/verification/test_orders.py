# SPDX-License-Identifier: Apache-2.0
"""Orders of slices are told to the child once each, whatever number of tensors has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from tiny_models import model

import graphprune
from graphprune.surgery.slices import Kept
from graphprune.verification.layout import lay_out
from graphprune.verification.oracle import build_oracle
from graphprune.verification.orders import Orders
from graphprune.verification.question import Question

if TYPE_CHECKING:
    from pathlib import Path


def test_what_was_left_is_read(tmp_path: Path) -> None:
    orders = Orders()
    orders.put("odd", np.array([1, 3]))
    orders.put("last", np.array([7]))
    for tensor, axis, key in ((0, 1, "odd"), (4, 0, "last"), (5, 1, "odd")):
        orders.use(tensor, axis, key)
    orders.write(tmp_path)
    told = Orders.read(tmp_path)
    assert [told.of(*place) for place in ((0, 0), (1, 1), (4, 1))] == [None] * 3
    for place, slices in (((0, 1), [1, 3]), ((4, 0), [7]), ((5, 1), [1, 3])):
        order = told.of(*place)
        assert order is not None and order.tolist() == slices


def test_tensors_with_the_same_labels_share_one(tmp_path: Path) -> None:
    inner = " ".join(f"h{at + 1} = Sigmoid (h{at})" for at in range(40))
    text = f"(float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y) {{ h0 = Conv (x, a) {inner} y = Conv (h40, b) }}"
    analysis = graphprune.analyze(graphprune.load(model(text, {"a": (8, 3, 1, 1), "b": (2, 8, 1, 1)})))
    plan = graphprune.solve(analysis, [graphprune.BudgetRequest("flops", 0.5)])
    kept = Kept(analysis, np.arange(8) < 4)
    lay_out(Question(analysis, graphprune.apply(analysis, plan), kept, build_oracle(analysis, kept.mask)), tmp_path)
    told = Orders.read(tmp_path)
    assert [order.tolist() for at in range(41) if (order := told.of(at, 1)) is not None] == [[0, 1, 2, 3]] * 41
    with np.load(tmp_path / "keep.npz") as written:
        assert len(written.files) == 2  # where they are taken, and the one that there is
