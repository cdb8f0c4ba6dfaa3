# SPDX-License-Identifier: Apache-2.0
"""A rewritten graph is opened, run and compared before anybody hears that it is done."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser
from tiny_models import chain

from graphprune import api
from graphprune.errors import VerificationError
from graphprune.model.load import load
from graphprune.surgery.folding import fold
from graphprune.verification.same_outputs import check_same_outputs


def _model() -> ModelProto:
    return chain("k = Mul (scale, scale)\n m = Mul (h, k)", {"scale": (1, 8, 1, 1)})


def _double_a_weight(proto: ModelProto) -> None:
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == "last")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.01), "last"))


def _square_an_output(proto: ModelProto) -> None:
    proto.graph.node[-1].output[0] = "before"
    proto.graph.node.append(helper.make_node("Cast", ["before"], ["y"], to=TensorProto.DOUBLE))
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        pytest.param(_double_a_weight, "output 'y' differs by .* of its largest value", id="values"),
        pytest.param(_square_an_output, "output 'y' is float64 of shape", id="type"),
        pytest.param(lambda proto: proto.graph.node.__delitem__(0), "it does not open", id="node-missing"),
    ],
)
def test_a_fault_of_the_rewriting_is_found(edit: Callable[[ModelProto], None], match: str) -> None:
    analysis = api.analyze(load(_model()))
    folded = fold(analysis)
    check_same_outputs(analysis, analysis.model.replaced(folded))
    edit(folded)
    with pytest.raises(VerificationError, match=match):
        check_same_outputs(analysis, analysis.model.replaced(folded))


OPTIONAL = """<ir_version: 8, opset_import: ["" : 16]>
g (float[2] x, bool c) => (seq(float[2]) all, float[2] y) {
    k = Constant <value = float[2] {1.0, 2.0}> ()
    t = Add (k, k)
    all = SequenceConstruct (x, t)
    y = If (c) <
        then_branch = a () => (float[2] p) { o = Optional (x)\n p = OptionalGetElement (o) },
        else_branch = b () => (float[2] q) { q = Neg (t) }
    >
}"""


def test_sequences_and_optionals_stay_what_they_are() -> None:
    proto = parser.parse_model(OPTIONAL)
    normalized = api.normalize(load(proto))
    assert normalized.proto.graph.output[0].type.WhichOneof("value") == "sequence_type"


def test_inputs_that_are_sequences_are_not_made_up() -> None:
    text = "g (seq(float[2]) s) => (float[n] y) { y = ConcatFromSequence <axis = 0> (s) }"
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 16]> {text}')
    assert api.normalize(load(proto)).proto.graph.node


def test_operators_that_onnxruntime_lacks_are_not_compared() -> None:
    proto = chain("m = Relu (h)")
    proto.opset_import.append(helper.make_opsetid("com.example", 1))
    proto.graph.node[1].domain = "com.example"
    assert api.normalize(load(proto)).proto.graph.node[1].domain == "com.example"


DROPPING = "d = Dropout (scale, ratio, on)\n m = Mul (h, d)"
NOISY = "n = RandomUniformLike (h)\n m = Add (h, n)"


@pytest.mark.parametrize("text", [DROPPING, NOISY], ids=["dropout", "noise"])
def test_what_is_drawn_at_random_is_no_fault_of_the_rewriting(text: str) -> None:
    proto = chain(text, {"scale": (1, 8, 1, 1)}, ratio=np.float32(0.5), on=np.asarray(True))
    analysis = api.analyze(load(proto))
    check_same_outputs(analysis, load(fold(analysis)))


def test_a_fault_beside_a_dropout_that_drops_is_found() -> None:
    proto = chain(DROPPING, {"scale": (1, 8, 1, 1)}, ratio=np.float32(0.5), on=np.asarray(True))
    changed = ModelProto()
    changed.CopyFrom(proto)
    _double_a_weight(changed)
    with pytest.raises(VerificationError, match="output 'y' differs by"):
        check_same_outputs(api.analyze(load(proto)), load(changed))
