# SPDX-License-Identifier: Apache-2.0
"""Rows D: element types and values of weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from attacks.bench import Bench, Row, Trial, check, either, from_tests, prunes, refuses, with_edit

__all__ = ["ROWS"]

tiny = from_tests("support/tiny_models")
bad = from_tests("support/bad_files")
low = from_tests("test_low_precision")
chain = tiny.chain
_MIDDLE = ("c = Conv <pads = [1, 1, 1, 1]> (h, middle, b)\n m = Relu (c)", {"middle": (8, 8, 3, 3), "b": (8,)})


def _middle() -> ModelProto:
    return chain(*_MIDDLE)


def in_type(dtype: Any) -> Trial:
    """Return the trial of a network all of whose floats have a type; the written one has it too."""

    def trial(bench: Bench) -> None:
        proto = _middle()
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        for tensor in proto.graph.initializer:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
        for value in (*proto.graph.input, *proto.graph.output):
            value.type.tensor_type.elem_type = kind
        bench.write(proto)
        written = onnx.load(bench.pruned())
        check({tensor.data_type for tensor in written.graph.initializer} == {kind}, "another type was written")

    return trial


def stored(kind: int) -> Trial:
    """Return the trial of a weight that is stored in a small type and cast."""

    def make() -> ModelProto:
        proto = chain("w = Cast <to = 1> (small)\n m = Conv (h, w)")
        values = np.random.default_rng(0).integers(-2, 2, (8, 8, 1, 1)).astype(np.float32)
        if kind in (TensorProto.UINT4, TensorProto.UINT2, TensorProto.FLOAT8E8M0):
            values = np.abs(values) + 1
        tensor = helper.make_tensor("small", kind, values.shape, values.ravel())
        proto.graph.initializer.append(tensor)
        proto.opset_import[0].version, proto.ir_version = 25, 13
        return proto

    return either(make)


def value(change: Callable[[np.ndarray], object], says: str = "", name: str = "middle") -> Trial:
    """Return the trial of a weight with certain values: refused with these words, or pruned if there are none."""

    def make() -> ModelProto:
        proto = _middle()
        tensor = bad.weight(proto, name)
        array = numpy_helper.to_array(tensor).copy()
        change(array)
        tensor.CopyFrom(numpy_helper.from_array(array, name))
        return proto

    return refuses(make, says) if says else prunes(make)


def put(values: object, *place: int | slice) -> Callable[[np.ndarray], object]:
    """Return a change that puts values in a place."""
    return lambda array: array.__setitem__(place or ..., values)


def _scaled(factor: float) -> Trial:
    return value(lambda array: array.__imul__(np.float32(factor)))


def _overflow(bench: Bench) -> None:
    """Score float16 weights whose sums of squares are infinite in float16."""
    proto = chain("c = Cast <to = 1> (half)\n m = Conv (h, c)")
    half = np.random.default_rng(0).uniform(-6e4, 6e4, (8, 8, 1, 1)).astype(np.float16)
    proto.graph.initializer.append(numpy_helper.from_array(half, "half"))
    bench.write(proto)
    bench.pruned("m.onnx", "--params", "0.9", "--criterion", "l2")


def _ties(bench: Bench) -> None:
    """Channels that are alike are taken in order, every time, and with any hash seed."""
    proto = _middle()
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(np.ones(tuple(tensor.dims), np.float32), tensor.name))
    bench.write(proto)
    digests = set()
    for seed in ("0", "1", "77"):
        bench.done(bench.solve("m.onnx", "--params", "0.7", "--force", environment={"PYTHONHASHSEED": seed}))
        digests.add(hashlib.sha256((bench.folder / "m.plan.json").read_bytes()).hexdigest())
    check(len(digests) == 1, "the plan changes from run to run")


def _other_tensors(values: np.ndarray) -> Trial:
    """Return the trial of such a tensor beside the network; it is kept."""

    def change(model: ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(values, "other"))
        model.graph.node.append(helper.make_node("Identity", ["other"], ["same"]))

    def trial(bench: Bench) -> None:
        bench.write(with_edit(change, _middle)())
        done = bench.solve()
        check(done.code in (0, 2), f"exit code {done.code}: {done.err[-300:]}")
        if done.code == 0:
            written = onnx.load(bench.folder / "m.pruned.onnx")
            same = numpy_helper.to_array(bad.weight(written, "other"))
            check(np.array_equal(same, values), "it was changed")

    return trial


_FROM_PYTHON = """
import sys
import numpy as np
import onnx
from onnx import numpy_helper
import graphprune
model = onnx.load("m.onnx")
tensor = next(each for each in model.graph.initializer if each.name == "middle")
array = numpy_helper.to_array(tensor)
{change}
tensor.CopyFrom(numpy_helper.from_array(array, "middle"))
analysis = graphprune.analyze(graphprune.load(model))
plan = graphprune.solve(analysis, params=0.8)
pruned = graphprune.apply(analysis, plan)
assert graphprune.verify(analysis, pruned, plan).ok
graphprune.save(pruned, "made.onnx")
sys.exit(0)
"""


def from_python(change: str) -> Trial:
    """Return the trial of an array of odd layout that comes through the Python interface."""

    def trial(bench: Bench) -> None:
        bench.write(_middle())
        bench.done(bench.graphprune(before=_FROM_PYTHON.format(change=change)))
        check((bench.folder / "made.onnx").exists(), "nothing was written")

    return trial


def constant(attribute: str, values: Any, text: str) -> Trial:
    """Return the trial of a constant that stands in a node."""

    def make() -> ModelProto:
        proto = chain(f"k = Identity (h)\n {text}")
        node = helper.make_node("Constant", [], ["k"], **{attribute: values})
        at = next(number for number, each in enumerate(proto.graph.node) if each.output[0] == "k")
        proto.graph.node[at].CopyFrom(node)
        return proto

    return prunes(make)


def _sparse(values: np.ndarray) -> onnx.SparseTensorProto:
    where = np.flatnonzero(values)
    made = onnx.SparseTensorProto(dims=values.shape)
    made.values.CopyFrom(numpy_helper.from_array(values.ravel()[where], ""))
    made.indices.CopyFrom(numpy_helper.from_array(where.astype(np.int64), "i"))
    return made


def _huge() -> ModelProto:
    """Return a network of more than 2**63 multiply-adds, most of them in an axis that one value fills."""
    return tiny.model(
        "(float[1,4096,2147483648] x) => (float[a,b,c] y) { h = Conv (x, first)\n m = Relu (h)\n y = Conv (m, last) }",
        {"first": (512, 4096, 1), "last": (4096, 512, 1)},
    )


def _free() -> ModelProto:
    return tiny.model("(float[1,4] x) => (float[a,b] y) { h = Relu (x)\n y = Sigmoid (h) }")


def _normalised(name: str, number: float) -> Trial:
    shapes = {"scale": (8,), "bias": (8,), "mean": (8,), "var": (8,)}

    def make() -> ModelProto:
        epsilon = "epsilon = 0.0" if name == "var" else "epsilon = 0.00001"
        proto = chain(f"n = BatchNormalization <{epsilon}> (h, scale, bias, mean, var)\n m = Relu (n)", shapes)
        tensor = bad.weight(proto, name)
        array = numpy_helper.to_array(tensor).copy()
        array[2] = number
        tensor.CopyFrom(numpy_helper.from_array(array, name))
        return proto

    return either(make)


def _integers() -> ModelProto:
    """Return the quantised network with the smallest integer in every weight."""
    proto = ModelProto.FromString(low.FORMS["QDQ int8 per channel"]().SerializeToString())
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) > 1:
            array = numpy_helper.to_array(tensor).copy()
            array.reshape(-1)[0] = -128
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return proto


_NAN, _INF = float("nan"), float("inf")
_FORMS = {form: prunes(make) for form, make in low.FORMS.items()}
_SMALL = {
    name: stored(getattr(TensorProto, name))
    for name in ("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT8E8M0", "FLOAT4E2M1", "INT4",
                 "UINT4", "INT2", "UINT2")
}  # fmt: skip
_K = "m = Mul (h, k)"
ROWS = (
    Row("D1", "float16, bfloat16, float64", "pruned; the type is kept",
        {"float16": in_type(np.float16), "bfloat16": in_type(ml_dtypes.bfloat16), "float64": in_type(np.float64)}),
    Row("D2", "floats of 4 and 8 bits, integers of 2 and 4", "kept, or cut bit by bit", _SMALL),
    Row("D3", "quantised networks", "pruned with scales and zero points", _FORMS),
    Row("D4", "weights that are no numbers, infinite, zero, tiny", "refused with the channel; zeros are pruned",
        {"NaN": value(put(_NAN, 3, 0, 0, 0), "'middle'.*channel 3|'middle'"),
         "channel of NaN": value(put(_NAN, 3), "'middle'"), "infinite": value(put(_INF, 3, 0, 0, 0), "'middle'"),
         "zero channel": value(put(0, 3)), "subnormal": value(put(1e-42, 3)), "minus zero": value(put(-0.0, 3))}),
    Row("D5", "sums that overflow their type", "scores are exact", {"float16": _overflow, "int8": prunes(_integers)}),
    Row("D6", "channels that are all alike", "the same plan every time", {"ones": _ties}),
    Row("D7", "complex numbers, texts, truth values", "kept",
        {"text": _other_tensors(np.array(["a", "b"], dtype=object)), "bool": _other_tensors(np.array([True, False])),
         "complex": _other_tensors(np.array([1 + 2j], np.complex64))}),
    Row("D8", "arrays that are strided, big-endian or read-only", "pruned",
        {"strided": from_python("array = np.asfortranarray(array)"), "reversed": from_python("array = array[::-1]"),
         "big-endian": from_python("array = array.astype('>f4')"),
         "read-only": from_python("array = array.copy()\narray.flags.writeable = False")}),
    Row("D9", "constants in nodes, of every kind", "as good as stored ones",
        {"value": constant("value", numpy_helper.from_array(np.arange(8, dtype=np.float32).reshape(8, 1, 1)), _K),
         "float": constant("value_float", 2.5, _K),
         "floats": constant("value_floats", [1.0, 2, 3, 4, 5, 6], _K),
         "ints": constant("value_ints", [1, 2, 6, 6], "f = Cast <to = 1> (k)\n p = ReduceSum (f)\n m = Mul (h, p)"),
         "sparse": constant("sparse_value", _sparse(np.eye(6, dtype=np.float32)), _K)}),
    Row("D10", "costs beyond 64 bits, or none", "counted exactly; nothing to prune",
        {"huge": either(_huge), "none": refuses(_free, "prun|zero|no", code=1)}),
    Row("D11", "variances of zero or below, and no epsilon", "refused, or pruned without a storm of warnings",
        {"zero variance": _normalised("var", 0.0), "negative": _normalised("var", -1.0),
         "zero scale": _normalised("scale", 0.0)}),
    Row("D12", "weights of extreme scale", "pruned; the tolerance follows the scale",
        {"tiny": _scaled(1e-20), "huge": _scaled(1e15)}),
)  # fmt: skip
