# SPDX-License-Identifier: Apache-2.0
"""Operators that draw random numbers: what they give is another each time, and no constant, whatever they read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from graphprune.array_types import Array

if TYPE_CHECKING:
    from graphprune.model.graph import Node

__all__ = ["RANDOM", "TRAINING", "draws", "drops"]

RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
TRAINING = 2
"""Input of `Dropout` that says whether it drops anything."""


def draws(node: Node, values: Mapping[str, Array]) -> bool:
    """Whether a node gives something else each time it runs.

    Parameters
    ----------
    values : mapping of str to ndarray
        Values that are known.
    """
    return node.op_type in RANDOM or drops(node, values)


def drops(node: Node, values: Mapping[str, Array]) -> bool:
    """Whether a node drops values at random: a `Dropout` that may be in training mode."""
    if node.op_type != "Dropout" or node.domain or len(node.inputs) <= TRAINING or not node.inputs[TRAINING]:
        return False
    mode = values.get(node.inputs[TRAINING])
    return mode is None or bool(mode.any())
