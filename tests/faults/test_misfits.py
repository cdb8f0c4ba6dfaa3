# SPDX-License-Identifier: Apache-2.0
"""Operands that do not fit: what onnxruntime refuses is refused with the node and the input, what it runs is pruned."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from bad_files import set_attribute, small_model, weight
from onnx import TensorProto, helper, numpy_helper
from tiny_models import chain, model

from graphprune import api
from graphprune.errors import InternalError, ModelFileError, UnsafeModelError, UsageError
from graphprune.model.sizes import fitting

Change = Callable[[onnx.ModelProto], object]


def _resize(name: str, *dims: int, dtype: type[np.generic] = np.float32) -> Change:
    def change(proto: onnx.ModelProto) -> None:
        weight(proto, name).CopyFrom(numpy_helper.from_array(np.ones(dims, dtype), name))

    return change


def _retype_input(kind: int) -> Change:
    return lambda proto: setattr(proto.graph.input[0].type.tensor_type, "elem_type", kind)


def _reshape_input(*dims: int) -> Change:
    return lambda proto: proto.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("x", TensorProto.FLOAT, list(dims))
    )


def _replace_relu(op_type: str, *constants: np.ndarray, **attributes: object) -> Change:
    def change(proto: onnx.ModelProto) -> None:
        names = [f"k{at}" for at in range(len(constants))]
        proto.graph.initializer.extend(numpy_helper.from_array(c, n) for c, n in zip(constants, names, strict=True))
        proto.graph.node[1].CopyFrom(helper.make_node(op_type, ["a", *names], ["r"], name="r", **attributes))

    return change


F = np.float32
CASES = {
    "bias": (_resize("b1", 5), r"Conv\('a'\): input 2 'b1' has the shape \[5\], but axis 0 must be 8"),
    "bias_rank": (_resize("b1"), "input 2 'b1' has the shape"),
    "channels": (_reshape_input(1, 4, 8, 8), r"Conv\('a'\): input 0 'x' .* axis 1 must be 3"),
    "rank": (_reshape_input(1, 3, 8), "Conv"),
    "type": (_retype_input(TensorProto.INT64), "Conv"),
    "type_of_weight": (_resize("w2", 4, 8, 1, 1, dtype=np.float64), "Conv"),
    "type_of_strings": (_retype_input(TensorProto.STRING), "Conv"),
    "group": (lambda proto: set_attribute(proto, 0, group=2), r"input 0 'x' .* must be 6"),
    "batch_normalization": (
        _replace_relu("BatchNormalization", np.ones(8, F), np.ones(8, F), np.ones(7, F), np.ones(8, F)),
        "node name: r.* between 7 and 8",
    ),
    "instance_normalization": (_replace_relu("InstanceNormalization", np.ones(8, F), np.ones(3, F)), "Instance"),
    "addition": (_replace_relu("Add", np.ones((7, 1, 1), F)), "Add"),
    "addition_of_integers": (_replace_relu("Add", np.ones((8, 1, 1), np.int64)), "Add"),
    "axis": (_replace_relu("Softmax", axis=9), "Softmax"),
    "permutation": (_replace_relu("Transpose", perm=[0, 1, 1, 3]), "Transpose"),
    "short_permutation": (_replace_relu("Transpose", perm=[0, 1]), "Conv, node name: y"),
    "reshape": (_replace_relu("Reshape", np.array([1, 8, 7, 9])), r"Reshape\('r'\): input 0 'a' .* cannot become"),
    "reshape_inferred": (_replace_relu("Reshape", np.array([1, 3, -1, 8])), "node name: r.*could not be inferred"),
    "product": (_replace_relu("MatMul", np.ones((5, 8), F)), "MatMul"),
    "concat": (_replace_relu("Concat", np.ones((1, 8, 8, 7), F), axis=1), "Concat"),
    "slots": (lambda proto: proto.graph.node[0].input.extend("x"), "Conv"),
    "no_slot": (lambda proto: proto.graph.node[0].input.__delitem__(1), "Conv"),
    "empty_slot": (lambda proto: proto.graph.node[0].input.__setitem__(1, ""), "Conv"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_refused(case: str) -> None:
    proto = small_model()
    change, match = CASES[case]
    change(proto)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ModelFileError, match=match):
        api.analyze(api.load(proto))
    with pytest.raises(Exception, match=r"ONNXRuntimeError|required|INVALID"):
        _run(proto)


def _run(proto: onnx.ModelProto) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    dtypes = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
    session.run(None, {i.name: np.zeros(i.shape, dtypes.get(i.type, np.float32)) for i in session.get_inputs()})


def test_what_the_checker_says_is_whole_and_has_a_next_step() -> None:
    proto = small_model()
    proto.graph.node[1].input.append("x")
    with pytest.raises(ModelFileError, match=r"has input size 2 not in range \[min=1, max=1\] \(Relu node") as refused:
        api.load(proto)
    assert "export it again" in str(refused.value.hint)


def test_a_gemm_of_the_wrong_size() -> None:
    proto = model(
        "(float[2,4] x) => (float[] y) { a = Gemm (x, w, b)\n y = Gemm (a, v) }", {"w": (4, 6), "b": (6,), "v": (6, 3)}
    )
    api.analyze(api.load(proto))
    _resize("b", 5)(proto)
    with pytest.raises(ModelFileError, match="input 2 'b' has the shape"):
        api.analyze(api.load(proto))


def test_an_lstm_of_the_wrong_size() -> None:
    proto = model(
        "(float[5,2,4] x) => (float[a,b,c,d] y) { y = LSTM <hidden_size = 6> (x, w, r) }",
        {"w": (1, 24, 4), "r": (1, 24, 6)},
    )
    api.analyze(api.load(proto))
    _resize("r", 1, 24, 5)(proto)
    with pytest.raises(ModelFileError, match=r"LSTM\('y'\): input 2 'r' .* axis 2 must be 6"):
        api.analyze(api.load(proto))


def test_a_declared_shape_of_another_rank_is_not_believed() -> None:
    proto = small_model()
    proto.graph.value_info.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 8]))
    _run(proto)
    analysis = api.analyze(api.load(proto))
    assert analysis.shapes.dims["r"] == (1, 8, 8, 8)
    assert [group.size for group in analysis.groups] == [8]


def test_what_inference_refuses_but_onnxruntime_runs_is_pruned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "misfit", lambda *_: "an objection")
    assert api.analyze(api.load(small_model())).groups


def test_what_onnx_and_onnxruntime_cut_otherwise_is_taken_as_it_runs() -> None:
    """Onnx makes three parts of eight channels, the last of two; onnxruntime makes the two that the node has."""
    proto = chain("m, n = Split <axis = 1, num_outputs = 3> (h)", after=4, opset=18)
    _run(proto)
    assert api.analyze(api.load(proto)).layers


def test_given_sizes_that_do_not_fit_are_the_users_fault() -> None:
    proto = chain("m = Relu (h)")
    for axis in (0, 1, 2, 3):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"d{axis}"
    with pytest.raises(UsageError, match=r"does not take the given input shapes.*axis 1 must be 3"):
        api.analyze(api.load(proto), api.AnalyzeOptions({"x": (1, 224, 8, 8)}))


def test_an_unforeseen_failure_is_ours_only_if_the_model_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise KeyError("a rule that trusts")

    monkeypatch.setattr(api, "Analysis", fails)
    with pytest.raises(InternalError, match="internal error: KeyError: "):
        api.analyze(api.load(small_model()))
    broken = small_model()
    _resize("b1", 5)(broken)
    with pytest.raises(ModelFileError, match=r"the model does not run: .*bias"):
        api.analyze(api.load(broken))


def test_too_little_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(api, "Analysis", fails)
    with pytest.raises(UnsafeModelError, match="not enough memory"):
        api.analyze(api.load(small_model()))
