# SPDX-License-Identifier: Apache-2.0
"""Rows I: what would take all time or memory."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from attacks.bench import Bench, Row, Trial, check, from_tests, prunes, refuses, with_edit
from attacks.processes import Limits

__all__ = ["ROWS"]

bad = from_tests("support/bad_files")
tiny = from_tests("support/tiny_models")


def _bomb(bench: Bench) -> None:
    bench.write(bad.function_bomb(30))
    bench.refused(bench.solve(), "nodes once its functions are expanded")
    check(bench.runs[-1].ending.processor_seconds < 3, "not at once")


def exploding(*nodes: onnx.NodeProto, **constants: object) -> Trial:
    """Return the trial of nodes whose result is beyond any memory, beside the network: an error of ours, or kept."""

    def trial(bench: Bench) -> None:
        model = bad.small_model()
        for name, value in constants.items():
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        model.graph.node.extend(nodes)
        bench.write(model)
        done = bench.solve()
        check(done.code in (0, 1, 2, 101), f"exit code {done.code}: {done.err[-300:]}")
        check("report it" not in done.err, done.err[-300:])
        check(done.ending.processor_seconds < 30, f"{done.ending.processor_seconds:.0f} s")

    return trial


def _endless() -> onnx.NodeProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["state"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [1]),
        ],
    )
    return helper.make_node("Loop", ["", "yes", "start"], ["never"], body=body)


def _endless_output(bench: Bench) -> None:
    """Let the network's own output wait for a loop that does not end: verification ends, and nothing is left."""
    model = bad.small_model()
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "start"))
    model.graph.node.append(_endless())
    model.graph.node.append(helper.make_node("Add", ["y", "never"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 4, 8, 8]))
    bench.write(model)
    limits = Limits(processor_seconds=700, seconds=900)
    done = bench.solve(limits=limits)
    check(done.code in (2, 101), f"exit code {done.code}: {done.err[-300:]}")


def _many_weights(model: ModelProto) -> None:
    for number in range(100_000):
        model.graph.initializer.add(name=f"unread{number}", data_type=TensorProto.FLOAT, dims=[1], float_data=[1.0])


def _long_split() -> ModelProto:
    names = [f"s{number}" for number in range(4096)]
    return tiny.model(
        f"(float[1,4096] x) => (float[a,b] y) {{ {', '.join(names)} = Split <axis = 1> (x, parts)\n"
        f" c = Concat <axis = 1> ({', '.join(names)})\n h = Gemm (c, first)\n r = Relu (h)\n y = Gemm (r, last) }}",
        {"first": (4096, 16), "last": (16, 4)},
        parts=[1] * 4096,
    )


def _star(consumers: int) -> ModelProto:
    lines = "\n".join(f"v{at} = Relu (h)" for at in range(consumers))
    names = ", ".join(f"v{at}" for at in range(consumers))
    return tiny.chain(f"{lines}\n m = Sum ({names})")


def _many_groups(count: int) -> ModelProto:
    """Return so many branches that are added, each with channels of its own and equal weights.

    Behind a chain of as many products nothing would be left of what a channel does, so that no comparison proves much.
    """
    lines = [f"h{at} = MatMul (x, w{at})\n r{at} = Relu (h{at})\n o{at} = MatMul (r{at}, v{at})" for at in range(count)]
    names = ", ".join(f"o{at}" for at in range(count))
    weights = {name + str(at): (4, 4) for at in range(count) for name in "wv"}
    body = "\n".join(lines)
    return tiny.model(f"(float[1,4] x) => (float[a,b] y) {{ {body}\n y = Sum ({names}) }}", weights)


def _memory(bench: Bench) -> None:
    """From loading to writing the command holds at most so much more than it holds for a small model."""
    bench.write(bad.small_model(), "small.onnx")
    bench.pruned("small.onnx")
    least = max(run.ending.peak for run in bench.runs)
    width = 2048
    model = tiny.model(
        "(float[1,2048] x) => (float[a,b] y) { h = MatMul (x, first)\n r = Relu (h)\n s = MatMul (r, second)\n"
        " t = Relu (s)\n y = MatMul (t, last) }",
        {"first": (width, 4 * width), "second": (4 * width, 4 * width), "last": (4 * width, 64)},
    )
    size = bench.write(model).stat().st_size
    bench.pruned("m.onnx", "--params", "0.5")
    peak = max(run.ending.peak for run in bench.runs)
    check(peak - least < 6 * size, f"{(peak - least) / size:.1f} times the model, both processes together")


_BIG = [2**20, 2**20]
_FILL = helper.make_node("ConstantOfShape", ["big"], ["out"])
_HUGE_TENSOR = with_edit(lambda m: m.graph.initializer.add(name="huge", data_type=1, dims=[10**6, 25 * 10**5]))
ROWS = (
    Row("I1", "functions that unfold to a billion nodes", "refused at once", {"bomb": _bomb}),
    Row("I2", "constants beyond any memory, loops without end", "ended by limits, or left as they are", {
        "ConstantOfShape": exploding(_FILL, big=_BIG),
        "Expand": exploding(helper.make_node("Expand", ["b1", "big"], ["out"]), big=[2**20, 2**17, 8]),
        "Tile": exploding(helper.make_node("Tile", ["b1", "big"], ["out"]), big=[2**40]),
        "Range": exploding(helper.make_node("Range", ["zero", "end", "one"], ["out"]), zero=np.int64(0),
                           end=np.int64(2**50), one=np.int64(1)),
        "Loop": exploding(_endless(), yes=np.array(True), start=np.ones(1, np.float32)),
        "Loop before an output": _endless_output}),
    Row("I3", "a hundred thousand weights, lists of thousands", "in linear time", {
        "weights": prunes(with_edit(_many_weights), "--flops", "0.9"), "split": prunes(_long_split)}),
    Row("I4", "a weight of 10 TB without data", "refused before anything is allocated", {
        "declared": refuses(_HUGE_TENSOR, "'huge'.*needs 2500000000000 values")}),
    Row("I5", "very many readers of one value, very many equal groups", "in bounded time", {
        "readers": prunes(lambda: _star(10_000)), "groups": prunes(lambda: _many_groups(500))}),
    Row("I6", "memory of the whole way", "at most three times the model in each process", {"480 MB": _memory}),
)  # fmt: skip
