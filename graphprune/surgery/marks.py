# SPDX-License-Identifier: Apache-2.0
"""Marks: what a pruned model says of how it was made, in its ``metadata_props``.

``graphprune.plan.schema`` is the digest of the plan, ``graphprune.kept`` the original positions of
the channels that remain, by the initializer that makes them and its axis, so that every one
can be traced back without the plan file. ``graphprune.verified`` is ``true``, or says why not.
``graphprune.recovered``, ``graphprune.finetuned`` and ``graphprune.quantized`` say how weights were changed afterwards.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from graphprune.plan.schema import digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import ModelProto

    from graphprune.analysis.analysis import Analysis
    from graphprune.plan.schema import Plan

__all__ = [
    "FINETUNED",
    "KEPT",
    "MARKS",
    "PLAN",
    "QUANTIZED",
    "RECOVERED",
    "VERIFIED",
    "drop_marks",
    "kept_positions",
    "marks",
    "put_marks",
    "quantized",
    "weights_changed",
]

PLAN = "graphprune.plan"
KEPT = "graphprune.kept"
VERIFIED = "graphprune.verified"
RECOVERED = "graphprune.recovered"
FINETUNED = "graphprune.finetuned"
QUANTIZED = "graphprune.quantized"
MARKS = frozenset((PLAN, KEPT, VERIFIED, RECOVERED, FINETUNED, QUANTIZED))


def marks(analysis: Analysis, plan: Plan) -> dict[str, str]:
    """Return the marks of a model that is pruned by a plan."""
    kept = json.dumps(kept_positions(analysis, plan), separators=(",", ":"))
    return {PLAN: digest(plan), KEPT: kept}


def kept_positions(analysis: Analysis, plan: Plan) -> dict[str, dict[str, list[int]]]:
    """Return the remaining positions along each axis that makes pruned channels, by initializer and axis."""
    stays: dict[tuple[str, int], np.ndarray[tuple[int], np.dtype[np.bool_]]] = {}
    for group in plan.groups:
        makers = [member for member in group.members if member.role == "out"] or group.members
        for member in makers:
            key = member.initializer, member.axis
            if key not in stays:
                stays[key] = np.ones(analysis.shapes.dims[member.initializer][member.axis], dtype=np.bool_)
            stays[key][list(member.removed)] = False
    kept: dict[str, dict[str, list[int]]] = {}
    for (name, axis), mask in stays.items():
        if not mask.all():
            kept.setdefault(name, {})[str(axis)] = np.flatnonzero(mask).tolist()
    return kept


def weights_changed(proto: ModelProto) -> str:
    """Return how a model says that its weights were changed after pruning; empty if it does not."""
    entries = {entry.key: entry.value for entry in proto.metadata_props}
    said = [
        f"{word}: {entries[key]}"
        for key, word in ((RECOVERED, "recovered"), (FINETUNED, "finetuned"), (QUANTIZED, "quantized"))
        if key in entries
    ]
    return ", ".join(said)


def quantized(proto: ModelProto) -> str:
    """Return in which lower precision a model says that it is; empty if it does not."""
    return next((entry.value for entry in proto.metadata_props if entry.key == QUANTIZED), "")


def drop_marks(proto: ModelProto) -> None:
    """Take all marks out of a model that no plan describes any more; other metadata stays as it is."""
    for at in range(len(proto.metadata_props) - 1, -1, -1):
        if proto.metadata_props[at].key in MARKS:
            del proto.metadata_props[at]


def put_marks(proto: ModelProto, values: Mapping[str, str]) -> None:
    """Write marks into a model, in place of earlier ones; other metadata stays as it is."""
    for at in range(len(proto.metadata_props) - 1, -1, -1):
        if proto.metadata_props[at].key in values:
            del proto.metadata_props[at]
    for key, value in values.items():
        proto.metadata_props.add(key=key, value=value)
