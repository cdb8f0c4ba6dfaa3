# SPDX-License-Identifier: Apache-2.0
"""`QuantizeLinear` and `DequantizeLinear` of activations: every slice passes, scales per channel follow."""

from __future__ import annotations

from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.scales import parameter_labels
from graphprune.model.values.scaling import PARAMETERS


@rule("QuantizeLinear", "DequantizeLinear")
@rule("QuantizeLinear", "DequantizeLinear", domain="com.microsoft")
def scaling(op: Operator) -> None:
    """Scale each element: a scale per channel keeps the channels of x.

    Zero becomes the zero point and comes back as zero, so a channel that is masked before stays masked behind.
    """
    x = op.labels(0)
    for slot in PARAMETERS:
        if op.has(slot):
            labels = parameter_labels(op.scope, op.node, slot, x)
            if labels is not None:
                op.tie(slot, labels, maskable=False)
    op.set(0, x)


@rule("DynamicQuantizeLinear")
def dynamic_quantize(op: Operator) -> None:
    """The range of x decides over scale and zero point, and always includes zero.

    A masked slice is zero and leaves the range as it is without the slice, so it must be masked here.
    """
    x = op.labels(0)
    for axis in range(len(x)):
        op.contract(0, axis)
    op.set(0, x)
