# SPDX-License-Identifier: Apache-2.0
"""The bridge: names, parameters, the same function, and nothing but weights changed on the way back."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tiny_models import chain, model
from torch import nn
from training_cases import folded, images, infer, loaded, normalised, samples

from graphprune.errors import UnsupportedModelError, VerificationError
from graphprune.training import bridge
from graphprune.training.check_bridge import check_converted, check_written
from graphprune.training.loader import Samples


def test_weights_are_parameters_under_their_names_and_statistics_are_not() -> None:
    net = bridge.to_torch(loaded(normalised()))
    named = {name for name, _ in net.module.named_parameters()}
    assert named == {
        "stem.weight",
        "block.weight",
        "bn.weight",
        "bn.bias",
        "bn2.weight",
        "bn2.bias",
        "head.weight",
        "head.bias",
    }
    assert {"mean.0", "mean.1", "var.0", "var.1"} <= {name for name, _ in net.module.named_buffers()}
    assert not net.module.training


@pytest.mark.parametrize("make", [normalised, folded])
def test_module_and_file_compute_the_same(make: object) -> None:
    found = loaded(make())  # type: ignore[operator]
    net = bridge.to_torch(found)
    assert check_converted(net, found, samples()) < 1e-5
    assert bridge.to_onnx(net) is found


def test_names_that_torch_cannot_carry_get_another_path() -> None:
    hostile = ['"); import os; ("', "training", "a.b", "a", "", "forward", "x..y"]
    proto = onnx.ModelProto()
    proto.CopyFrom(chain("m = Relu(h)"))
    for tensor, name in zip(proto.graph.initializer, hostile[:2], strict=True):
        for node in proto.graph.node:
            for at, read in enumerate(node.input):
                if read == tensor.name:
                    node.input[at] = name
        tensor.name = name
    found = loaded(proto)
    net = bridge.to_torch(found)
    assert set(net.stored) == set(hostile[:2])
    assert "import" not in net.module.code
    value = Samples({"x": torch.randn(2, 3, 6, 6)}, None, 2)
    assert check_converted(net, found, value) < 1e-5
    from graphprune.training.naming import module_paths

    paths = module_paths(name for name in hostile if name)
    assert len(set(paths.values())) == len(paths)
    assert paths["a.b"] == "a.b"
    assert paths["a"] != "a"  # a module of that name holds b


def test_only_what_changed_is_written() -> None:
    found = loaded(normalised())
    net = bridge.to_torch(found)
    with torch.no_grad():
        net.stored["block.weight"].mul_(0.5)
        net.stored["mean.1"].add_(1.0)
    written = bridge.to_onnx(net)
    assert check_written(net, written, samples()) < 1e-5
    before = {tensor.name: tensor for tensor in found.proto.graph.initializer}
    after = {tensor.name: tensor for tensor in written.proto.graph.initializer}
    assert {name for name in before if before[name] != after[name]} == {"block.weight", "mean.1"}
    restored = onnx.ModelProto()
    restored.CopyFrom(written.proto)
    for tensor in restored.graph.initializer:
        tensor.CopyFrom(before[tensor.name])
    assert restored == found.proto


def test_another_change_than_of_weights_is_noticed() -> None:
    net = bridge.to_torch(loaded(normalised()))
    other = onnx.ModelProto()
    other.CopyFrom(net.model.proto)
    other.graph.node[0].name = "renamed"
    with pytest.raises(VerificationError, match="more than its weights"):
        check_written(net, net.model.replaced(other), samples())
    with torch.no_grad():
        net.stored["head.bias"].add_(1.0)
    with pytest.raises(VerificationError, match="differs from the trained module"):
        check_written(net, net.model, samples())


def test_weights_behind_transposes_and_constant_nodes_keep_their_stored_name() -> None:
    proto = model(
        """(float[n,6] x) => (float[n,4] y) {
            t = Transpose <perm = [1, 0]> (w)
            h = MatMul (x, t)
            k = Add (h, c)
            r = Relu (k)
            y = MatMul (r, v)
        }""",
        {"w": (5, 6), "v": (5, 4)},
    )
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(5, np.float32), "any"))
    proto.graph.node.insert(0, constant)
    found = loaded(proto)
    net = bridge.to_torch(found)
    assert set(net.stored) == {"w", "c", "v"}
    with torch.no_grad():
        for value in net.stored.values():
            value.mul_(2.0)
    written = bridge.to_onnx(net)
    value = Samples({"x": torch.randn(3, 6)}, None, 3)
    assert check_written(net, written, value) < 1e-5
    assert np.array_equal(numpy_helper.to_array(written.proto.graph.node[0].attribute[0].t), np.full(5, 2.0))


def test_what_prepares_inputs_or_decodes_outputs_is_not_trained() -> None:
    proto = model(
        """(float[n,3,8,8] x) => (float[n,4,8,8] y) {
            a = Sub (x, mean)
            b = Div (a, std)
            c = Conv (b, w0)
            d = Mul (c, gamma)
            e = Conv (d, w1)
            f = Mul (e, stride)
            y = Add (f, anchor)
        }""",
        {
            "mean": (1, 3, 1, 1),
            "std": (1, 3, 1, 1),
            "w0": (5, 3, 1, 1),
            "gamma": (5, 1, 1),
            "w1": (4, 5, 1, 1),
            "stride": (4, 1, 1),
            "anchor": (4, 1, 1),
        },
    )
    assert set(bridge.to_torch(loaded(proto)).stored) == {"w0", "gamma", "w1"}


def test_float16_weights_are_trained_in_float32() -> None:
    proto = chain("m = Relu(h)")
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    found = loaded(proto)
    net = bridge.to_torch(found)
    assert {value.dtype for value in net.stored.values()} == {torch.float32}
    assert bridge.to_onnx(net) is found
    with torch.no_grad():
        net.stored["first"].add_(0.25)
    written = bridge.to_onnx(net)
    assert written.proto.graph.initializer[0].data_type == TensorProto.FLOAT16
    assert check_written(net, written, Samples({"x": torch.randn(2, 3, 6, 6).half()}, None, 2)) < 1e-3


def test_weights_that_are_no_numbers_are_not_written() -> None:
    net = bridge.to_torch(loaded(normalised()))
    with torch.no_grad():
        net.stored["head.bias"][0] = float("nan")
    with pytest.raises(UnsupportedModelError, match=r"'head.bias'.*not finite"):
        bridge.to_onnx(net)


def test_an_unknown_operator_is_named_before_training() -> None:
    proto = chain("m = com.example.Odd (h)", domains=', "com.example": 1')
    proto.graph.node[1].name = "odd one"
    with pytest.raises(UnsupportedModelError, match=r"'odd one' \(Odd\)"):
        bridge.to_torch(loaded(proto))


def test_a_quantised_model_is_refused() -> None:
    proto = chain(
        """q = QuantizeLinear (h, s, z)
        m = DequantizeLinear (q, s, z)""",
        s=np.float32(0.1),
        z=np.uint8(128),
    )
    with pytest.raises(UnsupportedModelError, match="quantised"):
        bridge.to_torch(loaded(proto))


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="no weights"):
        bridge.to_torch(loaded(model("(float[2,3] x) => (float[2,3] y) { y = Relu (x) }")))


def test_a_wrong_conversion_names_the_first_node_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphprune.training import builder

    monkeypatch.setattr(builder.BatchNorm, "forward", lambda self, x, *rest: x)
    found = loaded(normalised())
    found.proto.graph.node[1].name = "first norm"
    with pytest.raises(UnsupportedModelError, match=r"'first norm' \(BatchNormalization\) differs"):
        check_converted(bridge.to_torch(found), found, samples())


def test_normalisation_trains_like_that_of_torch() -> None:
    net = bridge.to_torch(loaded(normalised()))
    reference = nn.BatchNorm2d(8)
    stored = net.stored
    with torch.no_grad():
        for name, value in (("weight", "bn.weight"), ("bias", "bn.bias")):
            getattr(reference, name).copy_(stored[value])
        for name, value in (("running_mean", "mean.0"), ("running_var", "var.0")):
            getattr(reference, name).copy_(stored[value])
    x = torch.from_numpy(images(4))
    expected = reference(nn.functional.conv2d(x, stored["stem.weight"], padding=1))
    net.module.train()
    seen = {}
    net.module.norm.register_forward_hook(lambda module, given, result: seen.update(y=result))
    net.module(x)
    assert torch.allclose(seen["y"], expected, atol=1e-5)
    assert torch.allclose(net.stored["mean.0"], reference.running_mean, atol=1e-5)
    assert torch.allclose(net.stored["var.0"], reference.running_var, atol=1e-5)


def test_a_plain_training_loop() -> None:
    found = loaded(normalised())
    net = bridge.to_torch(found)
    x, y = torch.from_numpy(images(32)), torch.arange(32) % 4
    optimizer = torch.optim.SGD(net.module.parameters(), lr=0.05, momentum=0.9)
    net.module.train()
    losses = []
    for _ in range(12):
        loss = nn.functional.cross_entropy(net.module(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    net.module.eval()
    written = bridge.to_onnx(net)
    assert check_written(net, written, samples()) < 1e-4
    assert np.abs(infer(written, images(4)) - net.module(x[:4]).detach().numpy()).max() < 1e-3


def test_layers_in_branches_are_named_as_the_reason() -> None:
    proto = model(
        """(float[n,4] x, bool first) => (float[n,3] y) {
            y = If (first) <
                then_branch = one () => (float[n,3] a) { a = Gemm (x, w0) },
                else_branch = two () => (float[n,3] b) { b = Gemm (x, w1) }
            >
        }""",
        {"w0": (4, 3), "w1": (4, 3)},
    )
    with pytest.raises(UnsupportedModelError, match="no weights that could be trained") as caught:
        bridge.to_torch(loaded(proto))
    assert "bodies of If" in str(caught.value.hint)
    with pytest.raises(UnsupportedModelError) as caught:
        bridge.to_torch(loaded(model("(float[n,4] x) => (float[n,4] y) { y = Relu (x) }")))
    assert "Conv" in str(caught.value.hint)


def _looping(middle: str, **constants: object) -> onnx.ModelProto:
    """Return a model in which a convolution reads what a loop alone gives."""
    text = f"""(float[n,3,6,6] x) => (float[n,4,6,6] y) {{
        a = Conv <pads = [1, 1, 1, 1]> (x, w0)
        {middle}
        y = Conv (b, w1)
    }}"""
    return model(text, {"w0": (8, 3, 3, 3), "w1": (4, 8, 1, 1)}, half=np.float32(0.5), **constants)


_BODY = """<body = turn (int64 i, bool go, float[n,8,6,6] s) => (bool go_on, float[n,8,6,6] t) {{
    go_on = Identity (go)
    r = Relu ({state})
    t = Mul (r, half)
}}> (trip, , {start})"""
_LOOP = "b = Loop " + _BODY.format(state="s", start="a")
_SCAN = """b = Scan <num_scan_inputs = 1, scan_input_axes = [2], scan_output_axes = [2], body = row (float[n,8,6] s)
    => (float[n,8,6] t) {
        r = Relu (s)
        t = Mul (r, half)
    }> (a)"""
_BRANCH = f"""size = Size (a)
    many = Greater (size, none)
    b = If <then_branch = yes () => (float[n,8,6,6] u) {{ u = Loop {_BODY.format(state="s", start="a")} }},
            else_branch = no () => (float[n,8,6,6] v) {{ v = Identity (a) }}> (many)"""


_PART = "b = Split <axis = 1> (a, whole)"
_PART_IN_A_LOOP = _LOOP.replace("r = Relu (s)", "p = Split <axis = 1> (s, whole)\n r = Relu (p)")
_PART_IN_A_BRANCH = """size = Size (a)
    many = Greater (size, none)
    b = If <then_branch = yes () => (float[n,8,6,6] u) { u = Split <axis = 1> (a, whole) },
            else_branch = no () => (float[n,8,6,6] v) { v = Identity (a) }> (many)"""
_ONLY = {
    "loop": _LOOP,
    "scan": _SCAN,
    "loop-in-a-branch": _BRANCH,
    "split": _PART,
    "split-in-a-loop": _PART_IN_A_LOOP,
    "split-in-a-branch": _PART_IN_A_BRANCH,
}


@pytest.mark.parametrize("middle", _ONLY.values(), ids=_ONLY)
def test_what_has_one_output_gives_a_tensor(middle: str) -> None:
    constants = {"trip": np.int64(2), "none": np.int64(0), "whole": [8]}
    found = loaded(_looping(middle, **{name: value for name, value in constants.items() if name in middle}))
    net = bridge.to_torch(found)
    value = Samples({"x": torch.randn(2, 3, 6, 6)}, None, 2)
    assert check_converted(net, found, value) < 1e-5
    net.run(value.feeds)["y"].sum().backward()  # type: ignore[no-untyped-call]
    assert all(value.grad is not None for value in net.stored.values())
