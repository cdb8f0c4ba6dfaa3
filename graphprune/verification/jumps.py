# SPDX-License-Identifier: Apache-2.0
"""Jumps: operators whose result is not settled by what they read up to rounding; nothing behind them is compared."""

from __future__ import annotations

from collections.abc import Callable

from onnx import ModelProto

from graphprune.analysis.analysis import Analysis
from graphprune.model.graph import Node, subgraphs
from graphprune.model.values.random_draws import RANDOM, TRAINING, draws

__all__ = ["DISCRETE", "discrete_names", "random_names", "stand_still"]

DISCRETE = frozenset({"ArgMax", "ArgMin", "Compress", "NonMaxSuppression", "NonZero", "TopK", "Unique"})
"""Operators whose result jumps when rounding reorders near-ties; nothing behind them is compared."""


def discrete_names(analysis: Analysis) -> set[str]:
    """Return all values that depend on the result of a discrete operator, or of one that draws random numbers.

    A `Dropout` that drops values is not among these: copies that do not drop any are compared (`stand_still`).
    """
    constant = analysis.shapes.constant
    return _behind(
        analysis,
        lambda node: node.op_type in DISCRETE | RANDOM and not (node.outputs and node.outputs[0] in constant),
    )


def random_names(analysis: Analysis) -> set[str]:
    """Return all values that are others each time the file itself runs."""
    return _behind(analysis, lambda node: draws(node, analysis.shapes.values))


def _behind(analysis: Analysis, starts: Callable[[Node], bool]) -> set[str]:
    """Return the results of some nodes, and all that depends on them."""
    behind: set[str] = set()
    for node in analysis.graph.nodes:
        if any(name in behind for name in (*node.inputs, *node.captured)) or starts(node):
            behind.update(name for name in node.outputs if name)
    return behind


def stand_still(model: ModelProto) -> None:
    """Let no `Dropout` of a copy drop anything, in place: two models cannot drop the same values."""
    pending = [model.graph]
    while pending:
        for node in pending.pop().node:
            if node.op_type == "Dropout" and node.domain in ("", "ai.onnx"):
                del node.input[TRAINING:]
            pending.extend(subgraphs(node))
