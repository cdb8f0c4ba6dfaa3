# SPDX-License-Identifier: Apache-2.0
"""Recovery on small networks: what can be brought back exactly is; nothing but weights changes; nothing gets worse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, numpy_helper
from recovery_models import block, samples
from tiny_models import model

from graphprune.accuracy import recover
from graphprune.analysis.analysis import Analysis
from graphprune.api import apply, load, reconcile, solve
from graphprune.data.agreement import Agreement
from graphprune.data.arrays import from_arrays
from graphprune.data.capture import capture
from graphprune.data.evaluation import compare
from graphprune.data.signature import input_specs
from graphprune.data.walk import Walk
from graphprune.errors import PlanError, UsageError, VerificationError
from graphprune.evidence.sensitivity import SensitivityOptions, measure_sensitivity, read_consumers
from graphprune.model.graph import Graph
from graphprune.plan.budget import BudgetRequest
from graphprune.plan.schema import Plan
from graphprune.planning.make_plan import SolveOptions
from graphprune.recovery.check_recovered import check_recovered
from graphprune.recovery.editable_model import EditableModel
from graphprune.recovery.methods import BY_NAME
from graphprune.recovery.recover_options import METHODS, RecoverOptions, Recovery


def keep(analysis: Analysis, kept: dict[str, list[int]]) -> Plan:
    """Return the plan that keeps these atoms of the groups with these names, and all others."""
    plan = solve(analysis, BudgetRequest("flops", 1.0))
    groups = tuple(replace(group, kept=tuple(kept.get(group.name, group.kept))) for group in plan.groups)
    return reconcile(analysis, replace(plan, groups=groups)).plan


def run(proto: ModelProto, share: float, **options: object) -> tuple[Analysis, Plan, Recovery]:
    analysis = Analysis(load(proto))
    plan = solve(analysis, BudgetRequest("flops", share), SolveOptions(criterion="l1", round_to=1))
    found = recover(analysis, apply(analysis, plan), plan, samples(proto), RecoverOptions(**options))  # type: ignore[arg-type]
    return analysis, plan, found


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_lowers_the_error_on_unseen_samples(method: str, norm: bool) -> None:
    proto = block(norm=norm)
    analysis, plan, found = run(proto, 0.6, method=method)
    assert found.improved
    assert found.after < found.before
    unseen = samples(proto, seed=9)
    before = compare(analysis.model, apply(analysis, plan), unseen).relative_error
    after = compare(analysis.model, found.model, unseen).relative_error
    assert after < before
    onnx.checker.check_model(found.model.proto, full_check=True)


def test_scores_are_judged_at_their_best_scale_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs of the right size and roughly the right direction have a larger error than collapsed ones."""
    random = np.random.default_rng(0)
    wanted, noise = random.standard_normal((2, 64, 10))
    collapsed, alive = 0.05 * noise, 0.7 * wanted + noise  # errors 1.0 and 1.1
    made = {}
    for name, own in (("before", collapsed), ("after", alive)):
        made[name] = Agreement(["scores"])
        made[name].add([own], [wanted], samples=64)
    assert made["before"].relative_error < made["after"].relative_error
    found = iter(made.values())
    monkeypatch.setattr("graphprune.recovery.recover.compare", lambda *_: next(found))
    _, _, recovery = run(block(norm=True), 0.5, method="bn")
    assert recovery.improved
    assert recovery.agreement == pytest.approx((made["before"].agreement, made["after"].agreement), rel=1e-3)
    errors = tuple(item.relative_error for item in made.values())
    assert (recovery.before, recovery.after) == pytest.approx(errors, rel=1e-3)


def test_another_file_than_the_plan_makes_is_refused() -> None:
    proto = block(norm=True)
    analysis = Analysis(load(proto))
    plan = solve(analysis, BudgetRequest("flops", 0.5), SolveOptions(criterion="l1", round_to=1))
    with pytest.raises(PlanError, match="is not what the plan makes of"):
        recover(analysis, analysis.model, plan, samples(proto))


def test_every_method_that_is_offered_is_there() -> None:
    assert set(BY_NAME) == set(METHODS)


def test_least_squares_is_the_best_of_those_without_gradients_and_blocks_are_no_worse() -> None:
    errors = {method: run(block(norm=True), 0.5, method=method)[2].after for method in METHODS}
    assert errors["least-squares"] == min(errors["least-squares"], errors["bn"], errors["bias"])
    assert errors["blocks"] <= errors["least-squares"]


@pytest.mark.parametrize("norm", [True, False])
def test_outputs_get_the_variance_of_their_targets(norm: bool) -> None:
    proto = block(norm=norm)
    changed = {}
    for rescale in (False, True):
        _, _, found = run(proto, 0.5, rescale=rescale)
        changed[rescale] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in found.model.proto.graph.initializer
        }
    assert "first" in changed[True]
    assert not np.allclose(changed[True]["first"], changed[False]["first"])
    _, _, plain = run(proto, 0.5, rescale=True, rounds=0)
    again = {tensor.name: numpy_helper.to_array(tensor) for tensor in plain.model.proto.graph.initializer}
    assert all(np.array_equal(value, again[name]) for name, value in changed[True].items())


INVERTED = """(float[n, 3, 8, 8] image) => (float[n, 4] scores) {
    stem = Conv (image, stem_w)
    a = Conv (stem, expand)
    b = BatchNormalization (a, scale_1, shift_1, mean_1, var_1)
    c = Clip (b, low, high)
    d = Conv <group = 16, pads = [1, 1, 1, 1]> (c, depthwise)
    e = BatchNormalization (d, scale_2, shift_2, mean_2, var_2)
    f = Clip (e, low, high)
    g = Conv (f, project)
    h = BatchNormalization (g, scale_3, shift_3, mean_3, var_3)
    i = Add (h, stem)
    j = GlobalAveragePool (i)
    k = Flatten (j)
    scores = Gemm (k, head)
}"""


def inverted() -> ModelProto:
    """Return an inverted residual block whose normalisations scale channels very differently."""
    vectors = {f"{name}_{at}": (16,) for at in (1, 2) for name in ("scale", "shift", "mean", "var")}
    vectors |= {f"{name}_3": (6,) for name in ("scale", "shift", "mean", "var")}
    layers = {"stem_w": (6, 3, 1, 1), "expand": (16, 6, 1, 1), "depthwise": (16, 1, 3, 3), "project": (6, 16, 1, 1)}
    proto = model(INVERTED, {**layers, "head": (6, 4), **vectors}, low=np.float32(0), high=np.float32(6))
    random = np.random.default_rng(0)
    for tensor in proto.graph.initializer:
        if tensor.name.startswith("var"):
            value = 10 ** random.uniform(-2, 1, tensor.dims)
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), tensor.name))
    return proto


def folded(proto: ModelProto, path: Path) -> ModelProto:
    """Return a model with BatchNormalization folded by onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(path)


@pytest.mark.parametrize("rounds", [0, 4])
def test_the_folded_network_comes_back_as_far_as_the_one_it_was_folded_from(rounds: int, tmp_path: Path) -> None:
    one = inverted()
    two = folded(one, tmp_path / "folded.onnx")
    assert not any(node.op_type == "BatchNormalization" for node in two.graph.node)
    errors = []
    for proto in (one, two):
        analysis = Analysis(load(proto))
        names = [group.name for group in solve(analysis, BudgetRequest("flops", 1.0)).groups if group.size == 16]
        plan = keep(analysis, {names[0]: list(range(0, 16, 2))})
        assert not plan.is_identity
        found = recover(analysis, apply(analysis, plan), plan, samples(proto), RecoverOptions(rounds=rounds))
        errors.append((found.before, found.after))
    np.testing.assert_allclose(errors[0], errors[1], rtol=1e-2)
    assert errors[0][1] < 0.5 * errors[0][0]


def test_samples_tell_the_same_of_the_folded_network(tmp_path: Path) -> None:
    one = inverted()
    found = []
    for proto in (one, folded(one, tmp_path / "folded.onnx")):
        analysis = Analysis(load(proto))
        orders = read_consumers(analysis, samples(proto)).orders
        found.append([each for each, group in zip(orders, analysis.groups, strict=True) if group.size == 16])
    assert found[0]
    for before, after in zip(*found, strict=True):
        assert before is not None and after is not None
        assert before.order.tolist() == after.order.tolist()
        np.testing.assert_allclose(before.costs.cumsum(), after.costs.cumsum(), rtol=1e-2)


def test_with_few_samples_weights_are_not_fitted_to_them() -> None:
    """The head has more columns than there are samples, and what it reads has changed."""
    proto = model(
        """(float[n, 3, 6, 6] image) => (float[n, 8] scores) {
            a = Conv (image, first)
            b = Relu (a)
            c = Conv (b, second)
            d = Relu (c)
            e = Flatten (d)
            scores = Gemm (e, head)
        }""",
        {"first": (16, 3, 3, 3), "second": (8, 16, 1, 1), "head": (128, 8)},
    )
    analysis = Analysis(load(proto))
    plan = keep(analysis, {"a": list(range(0, 16, 2))})
    pruned, unseen = apply(analysis, plan), samples(proto, 256, seed=9)
    before, after = (
        compare(analysis.model, each, unseen).relative_error
        for each in (pruned, recover(analysis, pruned, plan, samples(proto, 64)).model)
    )
    assert after < 0.6 * before  # with the weakest ridge everywhere it is larger than before


def test_copies_of_few_images_stand_for_more_of_them() -> None:
    proto = block(norm=True)
    analysis = Analysis(load(proto))
    plan = solve(analysis, BudgetRequest("flops", 0.5), SolveOptions(criterion="l1", round_to=1))
    pruned, unseen = apply(analysis, plan), samples(proto, 256, seed=9)
    found = [recover(analysis, pruned, plan, samples(proto, 24), RecoverOptions(copies=copies)) for copies in (0, 1)]
    alone, copied = (compare(analysis.model, own.model, unseen).relative_error for own in found)
    assert copied < 0.97 * alone  # the mirror image of noise is other noise
    assert {(own.samples, own.held_out) for own in found} == {(21, 3)}
    assert found[0].before == found[1].before  # what is held out has no copies


def test_what_follows_from_kept_channels_comes_back_exactly() -> None:
    proto = block(norm=False)
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    first = numpy_helper.to_array(weights["first"]).copy()
    first[8:] = first[:8] * 2  # behind a ReLU, these channels are twice the others
    weights["first"].CopyFrom(numpy_helper.from_array(first, "first"))
    analysis = Analysis(load(proto))
    plan = keep(analysis, {"c": list(range(8))})
    assert not plan.is_identity
    found = recover(analysis, apply(analysis, plan), plan, samples(proto), RecoverOptions(ridge=1e-9))
    assert found.before > 1e-2
    assert found.after < 1e-6


def test_a_constant_channel_moves_into_the_bias() -> None:
    proto = model(
        """(float[n, 3, 6, 6] x) => (float[n, 4, 6, 6] y) {
            a = Conv (x, first, bias)
            b = Relu (a)
            y = Conv (b, last)
        }""",
        {"first": (6, 3, 1, 1), "last": (4, 6, 1, 1), "bias": (6,)},
    )
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    for name in ("first", "bias"):
        value = numpy_helper.to_array(weights[name]).copy()
        value[2] = 0 if name == "first" else 3
        weights[name].CopyFrom(numpy_helper.from_array(value, name))
    analysis = Analysis(load(proto))
    plan = keep(analysis, {"a": [0, 1, 3, 4, 5]})
    for method in ("bias", "least-squares"):
        found = recover(analysis, apply(analysis, plan), plan, samples(proto), RecoverOptions(method=method))
        assert found.after < 1e-8
        assert len(found.model.proto.graph.node[-1].input) == 3  # a bias where there was none


OTHERS = {
    "depthwise": (
        """(float[n, 3, 8, 8] x) => (float[n, 4] y) {
            a = Conv (x, first)
            b = Clip (a, low, high)
            c = Conv <pads = [1, 1, 1, 1], group = 12> (b, middle, extra)
            d = Clip (c, low, high)
            e = Conv (d, last)
            f = GlobalAveragePool (e)
            y = Flatten (f)
        }""",
        {"first": (12, 3, 1, 1), "middle": (12, 1, 3, 3), "extra": (12,), "last": (4, 12, 1, 1)},
    ),
    "tokens": (
        """(float[n, 7, 6] x) => (float[n, 7, 5] y) {
            a = MatMul (x, first)
            b = Add (a, bias)
            c = Relu (b)
            d = MatMul (c, second)
            e = Add (end, d)
            f = Relu (e)
            y = MatMul (f, third)
        }""",
        {"first": (6, 16), "bias": (16,), "second": (16, 8), "end": (8,), "third": (8, 5)},
    ),
    "bias by a node": (
        """(float[n, 3, 6, 6] x) => (float[n, 4, 6, 6] y) {
            a = Conv (x, first)
            size = Constant <value_ints = [1, 12, 1, 1]> ()
            offset = Reshape (bias, size)
            b = Add (a, offset)
            c = Relu (b)
            d = Conv (c, second)
            end = Constant <value_ints = [1, 4, 1, 1]> ()
            more = Reshape (shift, end)
            y = Add (d, more)
        }""",
        {"first": (12, 3, 1, 1), "bias": (12,), "second": (4, 12, 1, 1), "shift": (4,)},
    ),
    "gemm": (
        """(float[n, 2, 4, 4] x) => (float[n, 3] y) {
            a = Conv <auto_pad = "SAME_UPPER"> (x, first)
            b = Relu (a)
            c = Flatten (b)
            y = Gemm <alpha = 0.5, beta = 2.0, transB = 1> (c, last, bias)
        }""",
        {"first": (10, 2, 3, 3), "last": (3, 160), "bias": (3,)},
    ),
}


@pytest.mark.parametrize("case", OTHERS)
@pytest.mark.parametrize("method", METHODS)
def test_other_layers(case: str, method: str) -> None:
    text, weights = OTHERS[case]
    constants = {"low": np.float32(0), "high": np.float32(6)} if case == "depthwise" else {}
    found = run(model(text, weights, **constants), 0.6, method=method)[2]
    assert found.improved
    assert found.after < found.before
    if method == "least-squares":
        assert found.after < 0.7 * found.before


def test_a_fixed_batch_size_and_half_precision() -> None:
    proto = model(
        """(float16[4, 3, 6, 6] x) => (float16[4, 4, 6, 6] y) {
            a = Conv (x, first)
            b = Relu (a)
            y = Conv (b, last)
        }""",
        first=np.random.default_rng(0).standard_normal((12, 3, 1, 1)).astype(np.float16),
        last=np.random.default_rng(1).standard_normal((4, 12, 1, 1)).astype(np.float16),
    )
    specs = input_specs(load(proto))
    data = np.random.default_rng(2).standard_normal((64, 3, 6, 6)).astype(np.float16)
    analysis = Analysis(load(proto))
    plan = solve(analysis, BudgetRequest("flops", 0.6), SolveOptions(criterion="l1", round_to=1))
    found = recover(analysis, apply(analysis, plan), plan, from_arrays("it", specs, {"x": data}))
    assert found.improved
    assert found.model.proto.graph.initializer[-1].data_type == onnx.TensorProto.FLOAT16


def test_what_gets_worse_is_not_kept() -> None:
    proto = block(norm=True)
    analysis = Analysis(load(proto))
    plan = solve(analysis, BudgetRequest("flops", 0.6), SolveOptions(criterion="l1", round_to=1))
    pruned = apply(analysis, plan)
    # Two samples, of which one is held out: no statistics to speak of.
    values = np.zeros((2, 3, 10, 10), np.float32)
    values[0, :] = 1000
    few = from_arrays("few", input_specs(load(proto)), {"image": values})
    found = recover(analysis, pruned, plan, few, RecoverOptions(method="bn"))
    assert found.improved == (found.after < found.before)
    assert (found.model is pruned) == (not found.improved)


def test_the_pruned_model_is_not_changed_and_the_result_repeats() -> None:
    proto = block(norm=True)
    analysis = Analysis(load(proto))
    plan = solve(analysis, BudgetRequest("flops", 0.6), SolveOptions(criterion="l1", round_to=1))
    pruned = apply(analysis, plan)
    before = pruned.proto.SerializeToString(deterministic=True)
    first, second = (recover(analysis, pruned, plan, samples(proto)) for _ in range(2))
    assert pruned.proto.SerializeToString(deterministic=True) == before
    assert first.model.sha256 == second.model.sha256


@pytest.mark.parametrize("what", ["weight", "attribute", "node", "name", "input"])
def test_fidelity_sees_every_other_change(what: str) -> None:
    pruned = load(block(norm=True))
    editable = EditableModel(pruned)
    editable.write("first", editable.read("first") + 1)
    editable.set_bias(editable.graph.nodes[0], np.zeros(12), np.dtype(np.float32))
    good = editable.finished()
    check_recovered(pruned, good, editable)
    graph = good.proto.graph
    if what == "weight":
        graph.initializer[0].raw_data = bytes(len(graph.initializer[0].raw_data))
    elif what == "attribute":
        graph.node[0].attribute[0].ints[0] = 2
    elif what == "node":
        del graph.node[1]
    elif what == "name":
        graph.name = "other"
    else:
        graph.node[2].input[1] = "second"
    with pytest.raises(VerificationError):
        check_recovered(pruned, good, editable)


def test_options_without_meaning() -> None:
    for options in ({"method": "magic"}, {"ridge": 0.0}, {"held_out": 1.0}, {"samples": 1}, {"copies": -1}):
        with pytest.raises(UsageError):
            RecoverOptions(**options)  # type: ignore[arg-type]


def test_a_walk_gives_what_a_capture_gives() -> None:
    loaded = load(block(norm=True))
    source = samples(loaded.proto, 12)
    feeds = [source.read(np.arange(at, at + 4)).feeds for at in (0, 4, 8)]
    names = ["b", "f", "image", "h"]
    whole = list(capture(loaded, names, feeds))
    with Walk(loaded, Graph(loaded.proto), [("b",), ("f", "b", "image"), ("h",)], feeds.__getitem__, 3) as walk:
        for wanted in (("b",), ("f", "b", "image"), ("h",)):
            steps = list(walk.step())
            for step, values in zip(steps, whole, strict=True):
                assert set(step) == set(wanted)
                for name in wanted:
                    np.testing.assert_allclose(step[name], values[name], atol=1e-5)
    with pytest.raises(UsageError, match="no value"):
        list(capture(loaded, ["nothing"], feeds))


def test_a_walk_keeps_large_values_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphprune.data.walk._IN_MEMORY", 1000)
    test_a_walk_gives_what_a_capture_gives()


def test_sensitivity_is_what_pruning_and_refitting_one_group_does() -> None:
    proto = block(norm=True)
    analysis = Analysis(load(proto))
    source = samples(proto, 256)
    tables = measure_sensitivity(analysis, source, SensitivityOptions(steps=4))
    assert [table.group for table in tables] == [group.id for group in analysis.groups]
    for table in tables:
        assert table.elimination is not None
        assert (np.diff(table.errors) <= 0).all()
        assert table.errors[-1] == 0
        assert table.errors[0] > 0
    inner = next(at for at, group in enumerate(analysis.groups) if group.name == "c")
    table = tables[inner]
    assert table.elimination is not None
    plan = keep(analysis, {"c": table.elimination.kept(8).tolist()})
    pruned = apply(analysis, plan)
    found = recover(analysis, pruned, plan, source)
    (measured,) = table.errors[table.widths == 8]
    assert 0.3 * measured < found.after < 3 * measured
    assert found.after < found.before
