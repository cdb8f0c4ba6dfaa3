# SPDX-License-Identifier: Apache-2.0
"""Records: what a plan says of its model, and of the choices that its groups rest on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.plan.schema import PlanModel

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis

__all__ = ["describe_model", "recorded_choices"]


def recorded_choices(analysis: Analysis) -> list[dict[str, str | None]]:
    """Say which axes carry the channels wherever there was a choice."""
    return [
        {"node": choice.node.label, "carried": None if taken is None else taken.name}
        for choice, taken in analysis.resolution.committed
        if len(choice.alternatives) > 1
    ]


def describe_model(analysis: Analysis) -> PlanModel:
    """Return what a plan records of its model."""
    model = analysis.model
    opset = max((entry.version for entry in model.proto.opset_import if entry.domain in ("", "ai.onnx")), default=1)
    inputs = {name: tuple(int(size) for size in shape) for name, shape in analysis.input_shapes.items()}
    return PlanModel(model.name, model.sha256, int(model.proto.ir_version), int(opset), inputs)
