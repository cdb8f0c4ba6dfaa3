# SPDX-License-Identifier: Apache-2.0
"""Strategies of random valid models and of random choices of what to keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
from onnx import ModelProto, OperatorSetIdProto, TensorProto, helper
from random_drafts import Draft, Draw, Value
from random_layers import LARGEST, LAYERS, conv, head
from random_shapes import SHAPES

from graphprune.analysis.analysis import Analysis

__all__ = ["Case", "Choice", "choices", "finish", "models"]

OPSETS = (13, 17, 18, 21, 24, 12, 11, 10, 9, 8, 7)


@dataclass(frozen=True)
class Case:
    """A random model.

    Attributes
    ----------
    proto : ModelProto
    dynamic : bool
        Whether its batch size is open.
    """

    proto: ModelProto
    dynamic: bool

    def __repr__(self) -> str:
        """Show the nodes, for the report of a failing example."""
        lines = [
            f"{node.op_type}({', '.join(node.input)}) -> {', '.join(node.output)} "
            f"{[f'{a.name}={helper.get_attribute_value(a)}' for a in node.attribute if a.name != 'value']}"
            for node in self.proto.graph.node
        ]
        sizes = {tensor.name: list(tensor.dims) for tensor in self.proto.graph.initializer}
        opset = self.proto.opset_import[0].version
        return "\n".join([f"<opset {opset}, dynamic={self.dynamic}, initializers {sizes}>", *lines])


@st.composite
def models(draw: Draw) -> Case:
    """Draw a convolutional model: first convolutions, some steps, heads."""
    dynamic = draw(st.booleans())
    draft = Draft(draw, draw(st.sampled_from(OPSETS)), draw(st.integers(0, 2**16)), dynamic=dynamic)
    batch = 1 if dynamic else draft.choose((1, 2))
    for _ in range(draft.choose((1, 1, 2))):
        spatial = draft.choose(((4, 4), (6,), (4, 6), (5, 4), (2, 2, 4)))
        image = draft.input((batch, draft.number(1, 4), *spatial))
        draft.pool.append(conv(draft, image, draft.number(2, 8)))
    for _ in range(draft.choose((4, 2, 0, 6, 8, 12))):
        step = draft.choose((*LAYERS, *SHAPES))
        found = step(draft, draft.choose(draft.pool[-5:][::-1]))
        draft.pool.extend(value for value in found or () if value.size <= LARGEST)
    return Case(finish(draft, _ends(draft)), dynamic)


def _ends(draft: Draft) -> list[Value]:
    """Choose outputs: heads on some values that nobody reads (the others are dead ends), and intermediate values."""
    read = {name for node in draft.nodes for name in node.input}
    open_ends = [value for value in draft.pool if value.name not in read]
    kept = [value for value in open_ends if not draft.rarely(5)] or open_ends[-1:]
    ends = [head(draft, value) for value in kept]
    if draft.rarely(6):
        ends.append(draft.choose(draft.pool))
    return list({value.name: value for value in ends}.values())


def finish(draft: Draft, ends: list[Value]) -> ModelProto:
    """Put the model together; now and then in the old form in which initializers are also graph inputs."""
    outputs = [
        helper.make_tensor_value_info(
            value.name,
            TensorProto.FLOAT,
            [None if draft.dynamic and not at else size for at, size in enumerate(value.shape)],
        )
        for value in ends
    ]
    inputs = list(draft.inputs)
    old = draft.opset < 9 and draft.rarely(2)
    if old:
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in draft.initializers]
    graph = helper.make_graph(draft.nodes, "random", inputs, outputs, draft.initializers)
    model = helper.make_model(graph, opset_imports=_operator_sets(draft), producer_name="tests")
    model.ir_version = 3 if old else 10
    return model


def _operator_sets(draft: Draft) -> list[OperatorSetIdProto]:
    """Return the operator sets that the nodes need."""
    others = sorted({node.domain for node in draft.nodes if node.domain})
    return [helper.make_opsetid("", draft.opset), *(helper.make_opsetid(domain, 1) for domain in others)]


@dataclass(frozen=True)
class Choice:
    """What to keep: "random" atoms, "one" per group, "most" (all but one per group), or "all"."""

    kind: str
    seed: int

    def keep(self, analysis: Analysis, *, least: int = 1) -> npt.NDArray[np.bool_]:
        """Return which atoms stay, at least `least` per group (or all of a smaller one)."""
        keep: list[Any] = []
        random = np.random.default_rng(self.seed)
        for size in analysis.grouping.sizes.tolist():
            low = min(least, size)
            count = {"one": low, "most": max(size - 1, low), "all": size}.get(self.kind) or random.integers(
                low, size + 1
            )
            mask = np.zeros(size, dtype=np.bool_)
            mask[random.permutation(size)[:count]] = True
            keep.append(mask)
        return np.concatenate([np.zeros(0, dtype=np.bool_), *keep])


choices: st.SearchStrategy[Choice] = st.builds(
    Choice, st.sampled_from(("random", "one", "most")), st.integers(0, 2**16)
)
