# SPDX-License-Identifier: Apache-2.0
"""What must hold for every model and every choice of what to keep, on random models."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import onnx
from fast_oracle import Arrays, compare, counted_flops, feeds, run, worst
from hypothesis import assume, given
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from random_models import Case, Choice, choices, models
from random_properties import activations, again_analysed, analysed, assert_same_groups, atoms_along, examples

from graphprune.analysis.accounting import Accounts
from graphprune.analysis.analysis import Analysis
from graphprune.array_types import Ints, Mask
from graphprune.model.load import load
from graphprune.surgery.prune import prune
from graphprune.surgery.slices import Kept
from graphprune.verification.verify import verify_pruned

ROUNDING = 2e-4


def widths(analysis: Analysis, keep: Mask) -> Ints:
    """Return how many atoms of each group stay."""
    return np.bincount(analysis.grouping.group_of[keep], minlength=len(analysis.groups)).astype(np.int64)


def stored(proto: ModelProto) -> dict[str, TensorProto]:
    """Return all stored tensors of a model."""
    found = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant":
            found[node.output[0]] = node.attribute[0].t
    return found


@examples(250)
@given(models(), choices)
def test_pruned_equals_masked_original_and_costs_what_was_predicted(case: Case, choice: Choice) -> None:
    analysis = analysed(case)
    keep = choice.keep(analysis)
    pruned = prune(analysis, keep)
    onnx.checker.check_model(pruned, full_check=True)
    tensors = compare(analysis, keep, pruned)
    again = Analysis(load(pruned))
    flops = analysis.cost.flops(widths(analysis, keep))
    assert flops == again.cost.flops(again.grouping.sizes) == counted_flops(pruned, {**tensors, **feeds(analysis)})
    # Counted on the file: an analysis counts a copy for each of several readers that could part ways again.
    params, counted = analysis.cost.params(widths(analysis, keep)), counted_params(pruned)
    assert params >= counted
    # Readers of one tensor that may need different slices can happen to keep the same ones: one copy serves both then.
    assert params == counted or Accounts(analysis.scope, analysis.grouping).shared


def counted_params(pruned: ModelProto) -> int:
    """Count the floats of a file, but for those that are no weights.

    These are held results of shape arithmetic, integers of old operator sets, and what nobody reads
    any more but IR version 3 must declare.
    """
    read = {name for node in pruned.graph.node for name in node.input}
    return sum(
        prod(tensor.dims)
        for name, tensor in stored(pruned).items()
        if tensor.data_type in (TensorProto.FLOAT, TensorProto.DOUBLE)
        and len(tensor.dims) > 0
        and not name.endswith((".held", ".double"))
        and (name in read or pruned.ir_version >= 4)
    )


@examples(60)
@given(models())
def test_keeping_everything_changes_no_byte(case: Case) -> None:
    analysis = analysed(case)
    pruned = prune(analysis, np.ones(len(analysis.grouping.group_of), dtype=np.bool_))
    assert pruned.SerializeToString(deterministic=True) == case.proto.SerializeToString(deterministic=True)


@examples(100)
@given(models(), choices)
def test_a_pruned_model_has_the_same_groups(case: Case, choice: Choice) -> None:
    analysis, keep, _, again = again_analysed(case, choice)
    names = activations(analysis)
    assert_same_groups(analysis, again, names, names, keep)


@examples(100)
@given(models(), choices, st.integers(0, 2**16))
def test_two_steps_are_one(case: Case, choice: Choice, seed: int) -> None:
    analysis, keep, _, again = again_analysed(case, choice)
    names = activations(analysis)
    then = Choice("random", seed).keep(again)
    both = keep.copy()
    old, new = atoms_along(analysis, names, keep), atoms_along(again, names)
    assert_same_groups(analysis, again, names, names, keep)
    both[old[old >= 0]] = then[new[old >= 0]]
    inputs = feeds(analysis)
    one, two = run(prune(analysis, both), inputs), run(prune(again, then), inputs)
    assert worst(one, two) <= ROUNDING


@examples(60)
@given(models())
def test_names_of_values_do_not_matter(case: Case) -> None:
    analysis = analysed(case)
    inputs = {value.name for value in case.proto.graph.input}
    names = {name: f"other {name}" for node in case.proto.graph.node for name in node.output if name not in inputs}
    other = ModelProto()
    other.CopyFrom(case.proto)
    for node in other.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            if attribute.HasField("t"):
                attribute.t.name = node.output[0]
    for value in other.graph.output:
        value.name = names.get(value.name, value.name)
    before = activations(analysis)
    assert_same_groups(analysis, Analysis(load(other)), before, [names[name] for name in before])


@examples(60)
@given(models(), st.integers(0, 2**16))
def test_the_order_of_independent_nodes_does_not_matter(case: Case, seed: int) -> None:
    analysis = analysed(case)
    assume(not analysis.scope.space.choices)  # their ties are broken by graph order
    other = ModelProto()
    other.CopyFrom(case.proto)
    del other.graph.node[:]
    other.graph.node.extend(_shuffled(case.proto, np.random.default_rng(seed)))
    names = activations(analysis)
    assert_same_groups(analysis, Analysis(load(other)), names, names)


def _shuffled(proto: ModelProto, random: np.random.Generator) -> list[NodeProto]:
    """Return the nodes in another topological order."""
    left, order = list(proto.graph.node), []
    known = {value.name for value in proto.graph.input} | {tensor.name for tensor in proto.graph.initializer} | {""}
    while left:
        ready = [at for at, node in enumerate(left) if known.issuperset(node.input)]
        order.append(left.pop(int(random.choice(ready))))
        known.update(order[-1].output)
    return order


def without_slices(analysis: Analysis, keep: Mask, proto: ModelProto, *roles: str) -> ModelProto:
    """Return a model in which the removed slices of members that mask are zero."""
    result = ModelProto()
    result.CopyFrom(proto)
    tensors = stored(result)
    for number, group in enumerate(analysis.groups):
        gone = ~keep[analysis.grouping.group_of == number]
        for member in group.members:
            removed = member.positions[gone[member.atoms]]
            if not member.masked or (roles and member.role not in roles) or not len(removed):
                continue
            assume(member.initializer in tensors)  # a computed weight has no slices in the original file
            array = np.array(numpy_helper.to_array(tensors[member.initializer]))
            array[(slice(None),) * member.axis + (removed,)] = 0
            tensors[member.initializer].CopyFrom(numpy_helper.from_array(array, member.initializer))
    return result


def assume_weights_consume(analysis: Analysis, keep: Mask) -> None:
    """Reject models in which something else than a weight of its own sums over pruned channels.

    A product of two activations or a sum has no slices that could be set to zero, and a function with f(0) != 0 may
    stand before it; and slices of a tensor that its readers cut differently cannot be zero for one of them only.
    """
    kept = Kept(analysis, keep)
    weighted = {use.node.index for use in analysis.scope.space.uses if "in" in use.roles or use.node.op_type == "Conv"}
    for contraction in analysis.scope.space.contractions:
        assume(contraction.node.index in weighted or kept.mask(contraction.labels).all())
    members = [member for group in analysis.groups for member in group.members]
    assume(all(member.masked or member.role == "per_channel" for member in members))


@examples(100)
@given(models(), choices)
def test_masked_slices_set_to_zero_in_the_original_file_prune_it(case: Case, choice: Choice) -> None:
    analysis = analysed(case)
    keep = choice.keep(analysis)
    assume_weights_consume(analysis, keep)
    zeroed = run(without_slices(analysis, keep, case.proto), feeds(analysis))
    assert _deviates(zeroed, run(prune(analysis, keep), feeds(analysis)), analysis, keep) <= 1


@examples(100)
@given(models(), choices)
def test_channels_that_nobody_weighs_can_go(case: Case, choice: Choice) -> None:
    analysis = analysed(case)
    keep = choice.keep(analysis)
    assume_weights_consume(analysis, keep)
    roles: dict[tuple[str, int], set[str | None]] = {}
    for use in analysis.scope.space.uses:
        for axis, role in enumerate(use.roles):
            roles.setdefault((use.tensor, axis), set()).add(role)
    assume(
        all(len(of_axis) == 1 for of_axis in roles.values())
    )  # one tensor may make channels here and read them there
    unread = without_slices(analysis, keep, case.proto, "in")
    again = analysis.of(load(unread))
    assert _deviates(run(unread, feeds(analysis)), run(prune(again, keep), feeds(analysis)), analysis, keep) <= 1


def _deviates(expected: Arrays, found: Arrays, analysis: Analysis, keep: Mask) -> float:
    """Return the deviation of outputs in units of what rounding explains; infinite values show nothing."""
    assume(all(np.isfinite(value).all() for value in expected.values()))
    return worst(expected, found) / ROUNDING


@examples(80)
@given(models(), choices)
def test_another_batch_size(case: Case, choice: Choice) -> None:
    assume(case.dynamic)
    analysis = analysed(case)
    keep = choice.keep(analysis)
    larger = Analysis(load(case.proto), {name: (3, *shape[1:]) for name, shape in analysis.input_shapes.items()})
    atoms = [_slices(each) for each in (analysis, larger)]
    assume(set(atoms[0]) == set(atoms[1]))
    other = np.zeros_like(keep)
    other[[atoms[1][slices] for slices in atoms[0]]] = keep[list(atoms[0].values())]
    compare(larger, other, prune(analysis, keep))


def _slices(analysis: Analysis) -> dict[frozenset[tuple[str, int, int]], int]:
    """Return the number of each atom by the slices of stored tensors that it is made of."""
    found: dict[int, set[tuple[str, int, int]]] = {}
    for number, group in enumerate(analysis.groups):
        start = int(analysis.grouping.starts[number])
        for member in group.members:
            for position, atom in zip(member.positions.tolist(), member.atoms.tolist(), strict=True):
                found.setdefault(start + atom, set()).add((member.initializer, member.axis, position))
    return {frozenset(slices): atom for atom, slices in found.items()}


@examples(3)
@given(models(), choices)
def test_the_child_process_agrees(case: Case, choice: Choice) -> None:
    analysis = analysed(case)
    keep = choice.keep(analysis)
    result: Any = verify_pruned(analysis, load(prune(analysis, keep)), keep)
    assert result.ok, result
