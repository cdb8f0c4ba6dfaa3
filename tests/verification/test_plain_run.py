# SPDX-License-Identifier: Apache-2.0
"""What is called verified runs as its users run it: the very bytes, with default options, at two sizes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from oracle_check import analyze, halves
from tiny_models import chain, model

import graphprune
from graphprune import BudgetRequest
from graphprune.errors import InputError, VerificationError
from graphprune.model.load import load
from graphprune.model.unread import without_unread
from graphprune.surgery.prune import prune
from graphprune.verification import room
from graphprune.verification.check_runs import check_runs
from graphprune.verification.plain_run import PlainRun
from graphprune.verification.sizes import second_sizes
from graphprune.verification.verify import verify_pruned

if TYPE_CHECKING:
    from pathlib import Path

HEADS, WIDTH = 4, 2
STAGE = """
    q{n} = Conv ({x}, wq{n})
    r{n} = Reshape (q{n}, folded)
    s{n} = Softmax <axis = -1> (r{n})
    t{n} = Mul (s{n}, r{n})
    b{n} = Reshape (t{n}, back)
    o{n} = Conv (b{n}, wo{n})
"""


def heads_in_batch() -> ModelProto:
    """Two layers whose heads are folded into the batch axis."""
    width = HEADS * WIDTH
    stages = STAGE.format(n=1, x="x") + STAGE.format(n=2, x="o1")
    shapes = {f"wq{n}": (width, 3, 1, 1) for n in (1, 2)} | {f"wo{n}": (3, width, 1, 1) for n in (1, 2)}
    text = f"(float[N,3,4,4] x) => (float[N,3,4,4] y) {{ {stages} y = Relu (o2) }}"
    return model(text, shapes, folded=[-1, WIDTH, 4, 4], back=[-1, width, 4, 4])


def uneven(analysis: graphprune.Analysis) -> Any:
    """Let the layers keep different numbers of heads."""
    keep = np.ones(int(analysis.grouping.sizes.sum()), dtype=np.bool_)
    first, second = (
        int(start)
        for start, group in zip(analysis.grouping.starts, analysis.groups, strict=False)
        if group.size == HEADS
    )
    keep[[first, first + 1, second]] = False
    return keep


def declare(proto: ModelProto, size: str) -> None:
    """Declare what lies between the two reshapes by a symbolic product."""
    for name in (f"{letter}{n}" for letter in "rst" for n in (1, 2)):
        proto.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [size, WIDTH, 4, 4]))


def test_a_file_with_stale_declared_shapes_is_refused() -> None:
    """A comparison of all tensors without optimisation does not see it: added outputs are never re-used."""
    analysis = analyze(heads_in_batch())
    keep = uneven(analysis)
    pruned = prune(analysis, keep)
    found = verify_pruned(analysis, load(pruned), keep)
    assert (found.status, found.sizes) == ("verified", 2)
    declare(pruned, f"{HEADS}*N")
    with pytest.raises(VerificationError, match=r"inputs 'x' \d+x3x4x4.*Shape mismatch"):
        verify_pruned(analysis, load(pruned), keep)


def test_a_batch_that_is_built_in_is_refused() -> None:
    """It equals the masked original for the sizes of the comparison, and for no other."""
    proto = model(
        """(float[N,3,4,4] x) => (float[N,2] y) {
            h = Conv (x, first)
            r = Relu (h)
            f = Flatten (r)
            y = MatMul (f, w)
        }""",
        {"first": (8, 3, 1, 1), "w": (128, 2)},
    )
    analysis = analyze(proto)
    keep = halves(analysis)
    pruned = prune(analysis, keep)
    assert verify_pruned(analysis, load(pruned), keep).sizes == 2
    (flat,) = (node for node in pruned.graph.node if node.op_type == "Flatten")
    flat.CopyFrom(helper.make_node("Reshape", [flat.input[0], "target"], list(flat.output)))
    pruned.graph.initializer.append(numpy_helper.from_array(np.array([1, -1]), "target"))
    with pytest.raises(VerificationError, match="inputs 'x' 2x3x4x4"):
        verify_pruned(analysis, load(pruned), keep)


def test_a_size_that_the_original_refuses_is_not_asked_for() -> None:
    proto = model(
        "(float[N,3,H,H] x) => (float[N,2] y) { h = Conv (x, first)\n f = Flatten (h)\n y = MatMul (f, w) }",
        {"first": (8, 3, 1, 1), "w": (128, 2)},
    )
    analysis = analyze(proto, x=(1, 3, 4, 4))
    keep = halves(analysis)
    found = verify_pruned(analysis, load(prune(analysis, keep)), keep)
    assert (found.status, found.sizes) == ("verified", 2)  # another batch, but not another height


def test_second_sizes_change_all_open_dimensions_and_then_one_by_one() -> None:
    proto = model(
        "(float[N,3,H,64] x, float[N,L] t) => (float[N,3,H,64] y, float[N,L] u) { y = Relu (x)\n u = Relu (t) }"
    )
    analysis = analyze(proto)
    sizes = second_sizes(analysis.graph, {"x": (1, 3, 224, 64), "t": (1, 16)})
    assert sizes == [
        {"x": [2, 3, 256, 64], "t": [2, 48]},
        {"x": [2, 3, 256, 64], "t": [2, 32]},
        {"x": [2, 3, 224, 64], "t": [2, 16]},
        {"x": [1, 3, 256, 64], "t": [1, 16]},
        {"x": [1, 3, 224, 64], "t": [1, 32]},
    ]
    assert second_sizes(analyze(chain("m = Relu (h)")).graph, {"x": (2, 3, 6, 6)}) == []


# values that are not finite -------------------------------------------------------------------


@pytest.mark.parametrize("operator", ["Acos", "Log", "Sqrt", "Atanh", "Reciprocal"])
def test_what_is_no_number_in_a_removed_channel_is_no_fault(operator: str) -> None:
    proto = model(
        f"(float[1,3,8,8] x) => (float[1,4,8,8] y) {{ a = Conv (x, first)\n b = {operator} (a)\n y = Conv (b, last) }}",
        {"first": (8, 3, 1, 1), "last": (4, 8, 1, 1)},
    )
    analysis = analyze(proto)
    keep = halves(analysis)
    pruned = prune(analysis, keep)
    found = verify_pruned(analysis, load(pruned), keep)
    assert found.status == "verified", found
    assert ("not finite" in found.note) == (operator != "Reciprocal")
    assert found.effect < 1e3
    (conv,) = (tensor for tensor in pruned.graph.initializer if tensor.name == "last")
    conv.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(conv)[:, ::-1].copy(), "last"))
    assert verify_pruned(analysis, load(pruned), keep).status == "failed"


# operators that give something else each time ---------------------------------------------------


def test_dropout_in_training_mode_is_compared_without_dropping() -> None:
    proto = model(
        """(float[2,3,6,6] x) => (float[2,2,6,6] y) {
            h = Conv (x, first)
            d = Dropout (h, ratio, training)
            y = Conv (d, last)
        }""",
        {"first": (8, 3, 1, 1), "last": (2, 8, 1, 1)},
        ratio=np.float32(0.5),
        training=np.asarray(True),
    )
    analysis = analyze(proto)
    keep = halves(analysis)
    pruned = prune(analysis, keep)
    assert verify_pruned(analysis, load(pruned), keep).status == "verified"
    (last,) = (tensor for tensor in pruned.graph.initializer if tensor.name == "last")
    last.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(last)[:, ::-1].copy(), "last"))
    assert verify_pruned(analysis, load(pruned), keep).status == "failed"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("w = Dropout (last, ratio, training)\n y = Conv (h, w)", id="a weight"),
        pytest.param("b = Dropout (bias, ratio, training)\n y = Conv (h, last, b)", id="a bias"),
        pytest.param("w, mask = Dropout (last, ratio, training)\n y = Conv (h, w)", id="with a mask"),
        pytest.param(
            "on = Not (off)\n b = Dropout (scale, ratio, on)\n m = Mul (h, b)\n y = Conv (m, last)",
            id="mode computed",
        ),
    ],
)
def test_dropout_of_a_constant_in_training_mode_is_no_constant(text: str) -> None:
    """What is drawn each time cannot be folded into what is compared, and neither into what is written."""
    proto = model(
        f"(float[2,3,6,6] x) => (float[2,2,6,6] y) {{ h = Conv (x, first)\n {text} }}",
        {"first": (8, 3, 1, 1), "last": (2, 8, 1, 1), "bias": (2,), "scale": (1, 8, 1, 1)},
        ratio=np.float32(0.5),
        training=np.asarray(True),
        off=np.asarray(False),
    )
    analysis = analyze(proto)
    drawn = {name for node in proto.graph.node if node.op_type == "Dropout" for name in node.output}
    assert drawn.isdisjoint(analysis.shapes.constant)
    keep = halves(analysis)
    pruned = prune(analysis, keep)
    assert [node.op_type for node in pruned.graph.node] == [node.op_type for node in proto.graph.node]
    assert verify_pruned(analysis, load(pruned), keep).status in ("verified", "unproven")


def test_noise_that_a_model_adds_is_no_fault() -> None:
    proto = model(
        """(float[2,3,6,6] x) => (float[2,2,6,6] y, float[2,2,6,6] z) {
            h = Conv (x, first)
            r = Relu (h)
            y = Conv (r, last)
            n = RandomNormalLike (y)
            z = Add (y, n)
        }""",
        {"first": (8, 3, 1, 1), "last": (2, 8, 1, 1)},
    )
    analysis = analyze(proto)
    keep = halves(analysis)
    assert verify_pruned(analysis, load(prune(analysis, keep)), keep).status == "verified"


# the original is run first ----------------------------------------------------------------------

INVALID = {
    "bias of another length": ("(float[1,3,6,6] x) => (float[1,2,6,6] y)", {"b": (5,)}),
    "weight of other channels": ("(float[1,4,6,6] x) => (float[1,2,6,6] y)", {"b": (8,)}),
}


@pytest.mark.parametrize("case", INVALID)
def test_a_file_that_onnxruntime_refuses_is_the_fault_of_the_file(case: str) -> None:
    ends, more = INVALID[case]
    body = "{ h = Conv (x, first, b)\n r = Relu (h)\n y = Conv (r, last) }"
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> net {ends} {body}')
    random = np.random.default_rng(0)
    for name, shape in {"first": (8, 3, 1, 1), "last": (2, 8, 1, 1), **more}.items():
        proto.graph.initializer.append(numpy_helper.from_array(random.random(shape, np.float32), name))
    with pytest.raises(InputError, match="onnxruntime") as caught:
        _pruned(proto)
    assert caught.value.exit_code == 2


def _pruned(proto: ModelProto) -> None:
    analysis = graphprune.analyze(graphprune.load(proto))
    plan = graphprune.solve(analysis, BudgetRequest("flops", 0.6))
    graphprune.verify(analysis, graphprune.apply(analysis, plan), plan)


# files that were not compared -------------------------------------------------------------------


def test_one_check_for_everything_that_is_written(tmp_path: Path) -> None:
    good = heads_in_batch()
    assert check_runs(load(good)) == 2
    stale = ModelProto()
    stale.CopyFrom(prune(analyze(good), uneven(analyze(good))))
    declare(stale, f"{HEADS}*N")
    with pytest.raises(VerificationError, match="cannot be used as the original can") as caught:
        check_runs(load(stale), load(good))
    assert "Shape mismatch" in caught.value.message
    onnx.save(good, tmp_path / "good.onnx")
    assert check_runs(load(tmp_path / "good.onnx"), load(good), {"x": (3, 3, 4, 4)}, equal=True) == 2


def test_what_memory_does_not_hold_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    net = load(chain("m = Relu (h)"))
    monkeypatch.setattr(room, "main_memory", lambda: 4 * room.room_needed(net) - 1)
    assert (check_runs(net), check_runs(net, net)) == (1, 0)


def test_a_file_that_is_to_equal_the_original_is_held_to_its_outputs() -> None:
    good = chain("m = Relu (h)")
    other = ModelProto()
    other.CopyFrom(good)
    tensor = other.graph.initializer[0]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.01), tensor.name))
    assert check_runs(load(other), load(good)) == 1
    with pytest.raises(VerificationError, match="deviates"):
        check_runs(load(other), load(good), equal=True)


def test_where_the_original_does_not_run_nothing_is_asked_of_the_file() -> None:
    proto = model(
        "(float[2,3] x) => (float[2,3] y) { h = Relu (x)\n y = com.example.Own (h) }", domains=', "com.example": 1'
    )
    assert check_runs(load(proto), load(proto)) == 0
    with pytest.raises(VerificationError, match="does not run"):
        check_runs(load(proto))


def test_a_body_that_declares_another_rank_than_it_gives_is_compared_all_the_same() -> None:
    """It runs in onnxruntime where that optimises it; the masked original is not optimised, and says nothing false."""
    body = (
        "step (float[2,8] s, float[2,8] e) => (float[2,8] t, float[2,8] o) { t = Add (s, e)\n u = Mul (t, e)"
        "\n v = Unsqueeze (u, last)\n o = Squeeze (v, last) }"
    )
    proto = model(
        "(float[2,5,3] x) => (float[a,b,c] y) { h = MatMul (x, first)\n"
        f" end, all = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1], body = {body}>"
        " (zero, h)"
        "\n y = MatMul (all, down) }",
        {"first": (3, 8), "down": (8, 4)},
        zero=np.zeros((2, 8), np.float32),
        last=[2],
    )
    scan = next(node for node in proto.graph.node if node.op_type == "Scan")
    given = next(attribute.g for attribute in scan.attribute if attribute.name == "body").output[1]
    given.type.tensor_type.shape.dim.add().dim_value = 3
    analysis = graphprune.analyze(graphprune.load(proto))
    plan = graphprune.solve(analysis, [BudgetRequest("params", 0.7)])
    assert graphprune.verify(analysis, graphprune.apply(analysis, plan), plan).status == "verified"


def test_weights_that_are_inputs_and_that_nobody_reads_stay_with_what_runs() -> None:
    """Before IR version 4 every weight is an input, and one without a value would have to be fed."""
    proto = chain("m = Relu (h)", {"idle": (8,)})
    proto.ir_version = 3
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, tensor.dims))
    light = without_unread(proto)
    assert [tensor.name for tensor in light.graph.initializer] == [t.name for t in proto.graph.initializer]
    analysis = analyze(proto)
    keep = halves(analysis)
    assert verify_pruned(analysis, load(prune(analysis, keep)), keep).status == "verified"


@pytest.mark.parametrize("held", [0, 1, 2])
def test_further_sizes_that_memory_does_not_hold_are_not_counted(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the size of the comparison itself it is said."""
    shapes = [{"x": [2, 6]}, {"x": [2, 3]}, {"x": [1, 6]}]
    run = PlainRun.__new__(PlainRun)
    tried: list[object] = []

    def check(self: PlainRun, ledger: object, sizes: object, expected: object = None) -> bool:
        del self, ledger, expected
        tried.append(sizes)
        if len(tried) > held:
            raise MemoryError
        return True

    monkeypatch.setattr(PlainRun, "_check", check)
    monkeypatch.setattr(run, "_spec", SimpleNamespace(plain=True, sizes=shapes), raising=False)
    ledger = cast("Any", None)
    if not held:
        with pytest.raises(MemoryError):
            run.check_all(ledger)
    else:
        assert run.check_all(ledger) == {"sizes": held}
    assert tried[:1] == [None]


def _optimised(proto: ModelProto, level: ort.GraphOptimizationLevel) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.random.default_rng(0).standard_normal((1, 2, 4, 3), np.float32)})[0]


@pytest.mark.parametrize("samples", ["1", "N"])
def test_what_onnxruntime_optimises_wrongly_is_compared_without_that(samples: str) -> None:
    """Of a product of a transposed tensor and a vector it makes, in version 1.31, one of the tensor as it was."""
    proto = model(
        f"""(float[{samples},2,4,3] x) => (float[a,b,c] y) {{
            t = Transpose <perm = [0, 1, 3, 2]> (x)
            p = MatMul (t, first)
            u = Transpose <perm = [0, 1, 3, 2]> (p)
            c = MatMul (u, vector)
            y = MatMul (c, last)
        }}""",
        {"first": (4, 8), "vector": (3,), "last": (8, 2)},
    )
    levels = ort.GraphOptimizationLevel
    as_it_is, optimised = (_optimised(proto, each) for each in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_ALL))
    wrong = not np.allclose(as_it_is, optimised, rtol=1e-3, atol=1e-3)
    analysis = analyze(proto)
    plan = graphprune.solve(analysis, flops=0.5)
    verdict = graphprune.verify(analysis, graphprune.apply(analysis, plan), plan)
    assert verdict.status == "verified"
    assert wrong == ("once it has optimised the graph" in verdict.note)
