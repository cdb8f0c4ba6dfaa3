# SPDX-License-Identifier: Apache-2.0
"""Activations of onnxruntime's own domain, which its optimiser makes of the operators of ONNX."""

from __future__ import annotations

from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.rules.elementwise import unary
from graphprune.labels.rules.frozen import MICROSOFT

rule("Gelu", "QuickGelu", domain=MICROSOFT)(unary)


@rule("BiasGelu", "FastGelu", domain=MICROSOFT)
def biased(op: Operator) -> None:
    """A bias along the last axis, then the activation."""
    x = op.labels(0)
    if op.has(1):
        op.tie(1, x[-1:])
    op.set(0, x)
