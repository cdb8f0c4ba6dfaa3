# SPDX-License-Identifier: Apache-2.0
"""Where samples lie on a value is found by trying, and gates act on each of them alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pruning_cases import KINDS
from tiny_models import model
from training_cases import images, loaded

import graphprune
from graphprune.training.bridge import Trainable, to_torch
from graphprune.training.gates import Gate, attach_gates, gateable, tell_samples
from graphprune.training.sample_axes import SampleAxis, find_sample_axes

LAYOUTS = """(float[n,4,6] x) => (float[n,4] y) {
    first = Transpose <perm = [1, 0, 2]> (x)
    rows = Reshape (first, flat)
    tokens = Reshape (x, flat)
    wide = Concat <axis = 2> (x, x)
    split = Reshape (wide, halves)
    low = Transpose <perm = [1, 0, 2]> (split)
    mixed = ReduceSum <keepdims = 1> (x, zero)
    sums = MatMul (x, weight)
    flatter = Flatten (sums)
    a = Add (flatter, mixed_sum)
    r = ReduceSum <keepdims = 0> (rows)
    t = ReduceSum <keepdims = 0> (tokens)
    l = ReduceSum <keepdims = 0> (low)
    m = ReduceSum <keepdims = 0> (mixed)
    rt = Add (r, t)
    lm = Add (l, m)
    all = Add (rt, lm)
    y = Add (a, all)
}"""


def layouts() -> Trainable:
    one = np.zeros(4, dtype=np.float32)
    halves, zero, flat = [-1, 2, 6], np.array([0]), [-1, 6]
    return to_torch(loaded(model(LAYOUTS, {"weight": (6, 1)}, flat=flat, halves=halves, zero=zero, mixed_sum=one)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x", SampleAxis(0)),
        ("first", SampleAxis(1)),
        ("rows", SampleAxis(0, outer=4)),
        ("tokens", SampleAxis(0, inner=4)),
        ("low", SampleAxis(1, inner=4)),
        ("mixed", None),
    ],
)
def test_where_samples_lie(name: str, expected: SampleAxis | None) -> None:
    net = layouts()
    node = net.values[name]
    for count in (1, 2, 5):
        feeds = {"x": torch.randn(count, 4, 6, generator=torch.Generator().manual_seed(count))}
        assert find_sample_axes(net, [node], feeds).get(node) == expected
        assert not net.module.training


def test_the_owner_of_every_position() -> None:
    assert SampleAxis(0, outer=2).owners(3).tolist() == [0, 1, 2, 0, 1, 2]
    assert SampleAxis(0, inner=2).owners(3).tolist() == [0, 0, 1, 1, 2, 2]
    assert SampleAxis(0, 2, 2).owners(2).tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert SampleAxis(0, outer=2).count(torch.zeros(6, 3)) == 3
    assert SampleAxis(0, outer=2).count(torch.zeros(5, 3)) == 0


def gated(kind: str) -> tuple[Trainable, dict[str, Gate]]:
    found = loaded(KINDS[kind]())
    analysis, net = graphprune.analyze(found), to_torch(found)
    return net, attach_gates(net, analysis, gateable(net, analysis))


@pytest.mark.parametrize("kind", KINDS)
def test_a_gate_acts_on_its_sample_alone(kind: str) -> None:
    net, gates = gated(kind)
    # four samples, as many as the transformers have tokens: shapes alone cannot tell them apart
    x = torch.from_numpy(images(4))
    assert set(tell_samples(net, gates, {"image": x})) == set(gates)
    random = torch.Generator().manual_seed(0)
    values = {name: torch.rand((4, gate.size), generator=random) for name, gate in gates.items()}
    with torch.no_grad():
        for name, gate in gates.items():
            gate.value = values[name]
        together = net.module(x)
        for row in range(4):
            for name, gate in gates.items():
                gate.value = values[name][row]
            assert torch.allclose(net.module(x[row : row + 1])[0], together[row], atol=1e-5)


def test_samples_that_are_mixed_cannot_be_told_apart() -> None:
    text = """(float[n,6] x) => (float[n,2] y) {
        h = MatMul (x, first)
        mean = ReduceMean <axes = [0], keepdims = 1> (h)
        m = Sub (h, mean)
        a = MatMul (m, middle)
        b = Relu (a)
        y = MatMul (b, last)
    }"""
    found = loaded(model(text, {"first": (6, 8), "middle": (8, 5), "last": (5, 2)}))
    analysis, net = graphprune.analyze(found), to_torch(found)
    gates = attach_gates(net, analysis)
    assert tell_samples(net, gates, {"x": torch.randn(5, 6)}) == {}
