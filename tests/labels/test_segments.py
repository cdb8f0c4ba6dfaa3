# SPDX-License-Identifier: Apache-2.0
"""Regrouping: what a reshape offers is what brute force over the flat index finds."""

from __future__ import annotations

from math import prod

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from onnx import helper

from graphprune.labels.segments import regroup
from graphprune.labels.space import Axes, LabelSpace
from graphprune.labels.vector import Labels, stay
from graphprune.model.graph import Node

NODE = Node(0, helper.make_node("Reshape", ["x", "to"], ["y"]))


def _axes(space: LabelSpace, sizes: list[int], live: list[bool]) -> Axes:
    return tuple(space.fresh(size) if alive else stay(size) for size, alive in zip(sizes, live, strict=True))


@st.composite
def shapes(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Draw two factorisations of one number."""
    primes = draw(st.lists(st.sampled_from((2, 2, 3, 5)), min_size=1, max_size=5))

    def grouped(items: list[int]) -> list[int]:
        cuts = draw(st.lists(st.booleans(), min_size=len(items), max_size=len(items)))
        sizes = [1]
        for item, cut in zip(items, cuts, strict=True):
            if cut:
                sizes.append(item)
            else:
                sizes[-1] *= item
        return sizes

    return grouped(primes), grouped(draw(st.permutations(primes)))


def _coordinates(sizes: list[int]) -> list[np.ndarray]:
    return [axis.ravel() for axis in np.indices(sizes)]


def _components(pairs: set[tuple[int, int]]) -> list[set[int]]:
    parts: list[set[int]] = []
    for left, right in pairs:
        touched = [part for part in parts if left in part or right in part]
        merged = {left, right}.union(*touched)
        parts = [part for part in parts if part not in touched] + [merged]
    return parts


@given(shapes(), st.data())
def test_alternatives_are_the_pairs_that_occur(given_shapes: tuple[list[int], list[int]], data: st.DataObject) -> None:
    before, after = given_shapes
    space = LabelSpace()
    live = data.draw(st.lists(st.booleans(), min_size=len(before), max_size=len(before)))
    inputs = _axes(space, before, live)
    outputs = regroup(space, NODE, inputs, after)
    assert [len(vector) for vector in outputs] == after
    ins, outs = _coordinates(before), _coordinates(after)
    for choice in space.choices:
        for alternative in choice.alternatives:
            found = set(zip(alternative.left.tolist(), alternative.right.tolist(), strict=True))
            options = [
                set(zip(inputs[i].expand()[ins[i]].tolist(), outputs[j].expand()[outs[j]].tolist(), strict=True))
                for i in range(len(before))
                for j in range(len(after))
                if inputs[i].live and outputs[j].live
            ]
            assert found in options


@given(shapes())
def test_a_single_live_axis_to_any_axis_cuts_rectangles(given_shapes: tuple[list[int], list[int]]) -> None:
    """Under an alternative, removing a component takes whole slices of both tensors: the same elements."""
    before, after = given_shapes
    axis = int(np.argmax(before))
    space = LabelSpace()
    inputs = _axes(space, before, [at == axis for at in range(len(before))])
    outputs = regroup(space, NODE, inputs, after)
    ins, outs = _coordinates(before), _coordinates(after)
    seen_in = inputs[axis].expand()[ins[axis]]
    options = [(c.left, c.right) for choice in space.choices for c in choice.alternatives]
    options += [(left, right) for left, right, _ in space.couplings]
    for left, right in options:
        for part in _components(set(zip(left.tolist(), right.tolist(), strict=True))):
            gone_in = np.isin(seen_in, list(part))
            gone_out = np.zeros(prod(after), dtype=np.bool_)
            for at, vector in enumerate(outputs):
                if np.isin(vector.base, right).any():
                    gone_out |= np.isin(vector.expand()[outs[at]], list(part))
            assert np.array_equal(gone_in, gone_out)


@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        pytest.param([2, 8, 9], [2, 8, 3, 3], [], id="channels-pass"),
        pytest.param([2, 8, 9], [2, 72], ["axis 0 of 2 -> axis 0 of 1"], id="flatten"),
        pytest.param([8], [2, 4], ["axis 0 of 1 -> axis 0 of 2", "axis 0 of 1 -> axis 1 of 2"], id="heads"),
        pytest.param([1, 8], [8, 1, 1], [], id="ones-are-left-out"),
    ],
)
def test_names_say_which_axes_carry_the_channels(before: list[int], after: list[int], names: list[str]) -> None:
    space = LabelSpace()
    axis = before.index(8)
    regroup(space, NODE, _axes(space, before, [at == axis for at in range(len(before))]), after)
    found = [alternative.name for choice in space.choices for alternative in choice.alternatives]
    assert found == (names if len(names) > 1 else [])
    assert len(space.couplings) == (1 if len(names) == 1 else 0)


def test_merged_axes_are_not_written_out_per_position() -> None:
    space = LabelSpace()
    channels = space.fresh(256)
    (flat,) = regroup(space, NODE, (channels, stay(10_000)), [2_560_000])
    assert len(flat) == 2_560_000
    assert flat.repeat == 10_000
    assert len(flat.base) == 256


def test_compressed_input_keeps_its_pattern() -> None:
    space = LabelSpace()
    anchors = space.fresh(9)
    flat = Labels(anchors.base, 1, 400)
    _, last = regroup(space, NODE, (flat,), [400, 9])
    (choice,) = space.choices
    kept = choice.alternatives[-1]  # the channels go to the last axis, one by one
    assert (len(last.base), len(kept.left)) == (9, 9)


def test_an_empty_axis_has_nothing_to_remove() -> None:
    space = LabelSpace()
    outputs = regroup(space, NODE, (space.fresh(8), stay(0)), [0, 4])
    assert [len(vector) for vector in outputs] == [0, 4]
    assert not space.choices
