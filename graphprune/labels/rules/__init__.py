# SPDX-License-Identifier: Apache-2.0
"""Label rules, one file per operator family. Importing this package registers them all.

A rule states which slices of a node's inputs, outputs and weights hang together, and what
forbids removing them. Where an operator also spells out sizes, its adapter stands beside it.
"""

from graphprune.labels.rules import (
    control,
    convolution,
    einsum,
    elementwise,
    integer,
    joining,
    linear,
    normalization,
    pooling,
    recurrent,
    reduction,
    regrouping,
    resampling,
    scaling,
    selection,
)

__all__ = [
    "control",
    "convolution",
    "einsum",
    "elementwise",
    "integer",
    "joining",
    "linear",
    "normalization",
    "pooling",
    "recurrent",
    "reduction",
    "regrouping",
    "resampling",
    "scaling",
    "selection",
]
