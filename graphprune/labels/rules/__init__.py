# SPDX-License-Identifier: Apache-2.0
"""Label rules, one file per operator family. Importing this package registers them all.

A rule states which slices of a node's inputs, outputs and weights hang together, and what
forbids removing them. Where an operator also spells out sizes, its adapter stands beside it.
"""

from graphprune.labels.rules import (
    attention,
    contrib,
    contrib_attention,
    contrib_quantised,
    control,
    convolution,
    einsum,
    elementwise,
    frozen,
    heads,
    integer,
    joining,
    linear,
    normalization,
    ordering,
    pooling,
    recurrent,
    reduction,
    regrouping,
    resampling,
    sampling,
    scaling,
    scattering,
    selection,
    special_convolution,
)

__all__ = [
    "attention",
    "contrib",
    "contrib_attention",
    "contrib_quantised",
    "control",
    "convolution",
    "einsum",
    "elementwise",
    "frozen",
    "heads",
    "integer",
    "joining",
    "linear",
    "normalization",
    "ordering",
    "pooling",
    "recurrent",
    "reduction",
    "regrouping",
    "resampling",
    "sampling",
    "scaling",
    "scattering",
    "selection",
    "special_convolution",
]
