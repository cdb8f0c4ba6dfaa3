# SPDX-License-Identifier: Apache-2.0
"""The networkx view of groups, tensors and nodes."""

from __future__ import annotations

import networkx as nx
import pytest
from explain_cases import RESIDUAL, WEIGHTS, analysis_of

from graphprune import Analysis, group_graph
from graphprune.analysis.network import savings


@pytest.fixture(scope="module")
def residual() -> Analysis:
    return analysis_of(RESIDUAL, WEIGHTS)


def test_groups_have_their_facts(residual: Analysis) -> None:
    graph = group_graph(residual)
    groups = {key[1]: data for key, data in graph.nodes(data=True) if data["kind"] == "group"}
    assert {name: data["size"] for name, data in groups.items()} == {"g000": 6, "g001": 8}
    assert [data["flops"] for data in groups.values()] == savings(residual)
    assert all(data["exact"] and data["channels"] == 1 for data in groups.values())


def test_every_member_is_an_edge(residual: Analysis) -> None:
    graph = group_graph(residual)
    for group in residual.groups:
        found = {
            (tensor, data["axis"], data["role"], data["channels"])
            for _, (kind, tensor), data in graph.edges(("group", group.id), data=True)
            if kind == "tensor"
        }
        assert found == {(m.initializer, m.axis, m.role, len(m.positions)) for m in group.members}


def test_activations_carry_and_nodes_couple(residual: Analysis) -> None:
    graph = group_graph(residual)
    edges = graph.get_edge_data(("group", "g000"), ("value", "f"))
    assert [(data["role"], data["axis"], data["channels"]) for data in edges.values()] == [("carries", 1, 6)]
    assert ("value", "image") not in graph
    nodes = {key: data["name"] for key, data in graph.nodes(data=True) if data["kind"] == "node"}
    coupling = {
        nodes[other] for _, other, data in graph.edges(("group", "g000"), data=True) if data["role"] == "couples"
    }
    assert "Add_f" in coupling
    assert "Relu_b" not in coupling
    reads = {
        (name[1], data["slot"])
        for key, label in nodes.items()
        if label == "Conv_e"
        for _, name, data in graph.edges(key, data=True)
        if data["role"] == "reads"
    }
    assert reads == {("d", 0), ("second", 1), ("shift", 2)}


def test_it_is_connected_and_every_vertex_and_edge_says_what_it_is(residual: Analysis) -> None:
    graph = group_graph(residual)
    assert isinstance(graph, nx.MultiGraph)
    assert nx.is_connected(graph)
    assert {data["kind"] for _, data in graph.nodes(data=True)} == {"group", "tensor", "value", "node"}
    assert all(kind == data["kind"] for (kind, _), data in graph.nodes(data=True))
    assert {data["role"] for *_, data in graph.edges(data=True)} == {
        "out", "in", "per_channel", "carries", "couples", "reads", "makes"
    }  # fmt: skip


def test_a_model_without_groups_has_an_empty_graph() -> None:
    text = "(float[2,8] x) => (float[] y) { y = Relu (x) }"
    assert len(group_graph(analysis_of(text, {}))) == 0
