# SPDX-License-Identifier: Apache-2.0
"""What surgery leaves is read by onnx-graphsurgeon, which knows nothing of graphprune, and is wired as it was.

The oracle says that the numbers are right. That every layer is as wide as what it reads, that nothing is stored or
computed for nobody, and that no node has moved can be seen without running anything.
"""

from __future__ import annotations

from typing import Any

import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import ModelProto
from oracle_check import analyze, halves
from source_tree import ROOT
from tiny_models import chain

from graphprune.surgery.prune import prune

MODELS = {
    "residual network": onnx.load(ROOT / "examples" / "digits.onnx"),
    "concatenation": chain(
        "a = Conv (h, one)\n b = Conv (h, two)\n r = Relu (b)\n m = Concat <axis = 1> (a, r)",
        {"one": (4, 8, 1, 1), "two": (8, 8, 1, 1)},
        after=12,
    ),
    "depthwise": chain(
        "d = Conv <group = 8> (h, deep)\n m = Conv (d, wide)", {"deep": (8, 1, 1, 1), "wide": (8, 8, 1, 1)}
    ),
    "grouped": chain("m = Conv <group = 4> (h, four)", {"four": (8, 4, 1, 1)}, width=16, after=8),
}


def width(tensor: gs.Tensor) -> int:
    """Return the number of channels of a tensor by the layers that it comes from."""
    if not tensor.inputs:
        return int(tensor.shape[1])
    node = tensor.inputs[0]
    if node.op == "Conv":
        return int(node.inputs[1].shape[0])
    if node.op == "Concat":
        return sum(width(part) for part in node.inputs)
    widths = {width(part) for part in node.inputs if not isinstance(part, gs.Constant)}
    assert len(widths) == 1, f"{node.op} {node.name} reads widths {widths}"
    return widths.pop()


def wiring(graph: gs.Graph) -> list[tuple[str, str, list[str], list[str]]]:
    """Return what every node reads and makes, the nodes in their order."""
    return [(node.op, node.name, [t.name for t in node.inputs], [t.name for t in node.outputs]) for node in graph.nodes]


@pytest.fixture(params=MODELS)
def graphs(request: pytest.FixtureRequest) -> tuple[gs.Graph, gs.Graph]:
    """Return a network as it is analysed, and with half of its channels."""
    analysis = analyze(MODELS[request.param])
    pruned: ModelProto = prune(analysis, halves(analysis))
    return gs.import_onnx(analysis.graph.proto), gs.import_onnx(pruned)


def test_every_layer_is_as_wide_as_what_it_reads(graphs: tuple[gs.Graph, gs.Graph]) -> None:
    layers: dict[str, list[Any]] = {"before": [], "after": []}
    for graph, rows in zip(graphs, layers.values(), strict=True):
        for node in graph.nodes:
            if node.op == "Conv":
                made, read = node.inputs[1].shape[:2]
                assert read * node.attrs.get("group", 1) == width(node.inputs[0]), node.name
                rows.append(made)
            if node.op == "BatchNormalization":
                assert {tuple(tensor.shape) for tensor in node.inputs[1:]} == {(width(node.inputs[0]),)}, node.name
    assert sum(layers["after"]) < sum(layers["before"])


def test_nothing_is_left_that_nobody_reads(graphs: tuple[gs.Graph, gs.Graph]) -> None:
    _, pruned = graphs
    nodes, tensors = wiring(pruned), set(pruned.tensors())
    pruned.cleanup()
    assert (wiring(pruned), set(pruned.tensors())) == (nodes, tensors)


def test_nodes_stay_in_their_places(graphs: tuple[gs.Graph, gs.Graph]) -> None:
    before, after = graphs
    assert wiring(after) == wiring(before)
