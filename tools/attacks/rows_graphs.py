# SPDX-License-Identifier: Apache-2.0
"""Rows E: graphs that are legal and not simple. Most are the models of the tests' rule cases, through the command."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from attacks.bench import Bench, Row, Trial, check, either, from_tests, prunes, refuses, rule_case, with_edit
from attacks.processes import Limits

__all__ = ["ROWS"]

tiny = from_tests("support/tiny_models")
bad = from_tests("support/bad_files")
validity = from_tests("faults/test_validity")
chain = tiny.chain


def middle(text: str, weights: dict[str, tuple[int, ...]] | None = None, **options: object) -> Trial:
    """Return the trial of nodes between two convolutions."""
    return prunes(lambda: chain(text, weights, **options))


def whole(text: str, weights: dict[str, tuple[int, ...]], **options: object) -> Trial:
    """Return the trial of a graph."""
    return prunes(lambda: tiny.model(text, weights, **options))


def _tied(bench: Bench) -> None:
    bench.write(
        tiny.model(
            "(float[2,8] x) => (float[2,8] y) {\n a = MatMul (x, w)\n t = Transpose (w)\n r = Relu (a)\n"
            " y = MatMul (r, t) }",
            {"w": (8, 16)},
        )
    )
    bench.pruned()


def _weight_is_input(bench: Bench) -> None:
    model = bad.small_model()
    validity.input_for_every_initializer(model)
    bench.write(model)
    done = bench.solve()
    check(done.code in (0, 1), f"exit code {done.code}: {done.err[-300:]}")
    if done.code == 0:
        written = onnx.load(bench.folder / "m.pruned.onnx")
        names = [value.name for value in written.graph.input]
        check(names == [value.name for value in model.graph.input], "the signature changed")


def _weight_is_output(model: ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("w1", TensorProto.FLOAT, [8, 3, 3, 3]))


def _value_is_output(model: ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 8, 8, 8]))


def _long_chain(length: int, reverse: bool = False) -> ModelProto:
    """Return convolution, so many activations, convolution."""
    model = bad.small_model()
    nodes = [model.graph.node[0]]
    nodes += [helper.make_node("Relu", [f"v{at}" if at else "a"], [f"v{at + 1}"]) for at in range(length)]
    nodes.append(helper.make_node("Conv", [f"v{length}", "w2"], ["y"]))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies[::-1] if reverse else copies)
    return model


def _many_nodes(bench: Bench) -> None:
    bench.write(_long_chain(100_000))
    limits = Limits(processor_seconds=200, seconds=500)
    bench.done(bench.graphprune("inspect", "m.onnx", limits=limits))


def _wide_concat(width: int) -> ModelProto:
    """Return a concatenation of so many products of one convolution's channels."""
    names = [f"c{at}" for at in range(width)]
    body = "\n".join(f"{name} = Relu (h)" for name in names)
    return chain(f"{body}\n m = Concat <axis = 1> ({', '.join(names)})", width=2, after=2 * width)


def _twice(bench: Bench) -> None:
    bench.write(bad.small_model())
    bench.pruned()
    plan = bench.folder / "m.plan.json"
    for name in ("m.pruned.onnx", plan.name):
        bench.inputs[bench.folder / name] = __import__("hashlib").sha256((bench.folder / name).read_bytes()).hexdigest()
    bench.refused(bench.graphprune("apply", "m.pruned.onnx", plan.name), "another model|not the model|digest|sha")


def _again(bench: Bench) -> None:
    bench.write(bad.small_model())
    bench.write(bench.pruned().read_bytes(), "n.onnx")
    bench.pruned("n.onnx")


def _training(outputs: int) -> ModelProto:
    shapes = {"scale": (8,), "bias": (8,), "mean": (8,), "var": (8,)}
    more = "".join(f", o{at}" for at in range(outputs - 1))
    mode = "training_mode = 1" if outputs > 1 else "training_mode = 0"
    return chain(f"n{more} = BatchNormalization <{mode}> (h, scale, bias, mean, var)\n m = Relu (n)", shapes)


def _sequence(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("SequenceConstruct", ["r", "r"], ["all"]))
    model.graph.node.append(helper.make_node("ConcatFromSequence", ["all"], ["z"], axis=0))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 8, 8, 8]))


def _sparse_weight(model: ModelProto) -> None:
    """Store the last weight sparsely."""
    tensor = bad.weight(model, "w2")
    values = numpy_helper.to_array(tensor)
    model.graph.initializer.remove(tensor)
    made = model.graph.sparse_initializer.add(dims=values.shape)
    made.values.CopyFrom(numpy_helper.from_array(values.ravel(), "w2"))
    made.indices.CopyFrom(numpy_helper.from_array(np.arange(values.size), "i"))


_SHAPES = {"scale": (8,), "bias": (8,), "mean": (8,), "var": (8,)}
_QUANTISED = """s = Cast <to = 1> (h)
 q = QuantizeLinear <axis = {axis}> (s, step, zero)
 m = DequantizeLinear <axis = {axis}> (q, step, zero)"""
_PER_CHANNEL = {"step": np.linspace(0.1, 0.2, 8).astype(np.float32), "zero": np.zeros(8, np.int8)}
_DEAD = "d = Conv (x, side)\n dead = Relu (d)\n m = Relu (h)"
_APART = """(float[1,4] x, float[1,4] z) => (float[a,b] y, float[c,d] v) {
    h = Gemm (x, w1)\n r = Relu (h)\n y = Gemm (r, w2)
    g = Gemm (z, w3)\n s = Tanh (g)\n v = Gemm (s, w4) }"""
_ALL_COUPLED = """(float[1,3,6,6] x) => (float[1,3,6,6] y) { h = Conv (x, w)\n a = Add (h, x)\n y = Relu (a) }"""
_TIED = {"one": (8, 8, 1, 1)}
ROWS = (
    Row("E1", "one weight that several nodes read", "pruned for all of them",
        {"layer twice": middle("a = Conv (h, one)\n m = Conv (a, one)", _TIED), "tied": _tied,
         **rule_case("linear", "tied-weight"), **rule_case("elementwise", "shared-constant-does-not-couple")}),
    Row("E2", "weights that are also inputs", "the signature stays", {"inputs": _weight_is_input}),
    Row("E3", "a weight or a pruned value that is an output", "it stays whole",
        {"weight": refuses(with_edit(_weight_is_output), "prun", code=1),
         "value": refuses(with_edit(_value_is_output), "prun", code=1), **rule_case("convolution", "graph-output")}),
    Row("E4", "weights that are computed from others", "followed",
        {"transpose": middle("t = Transpose <perm = [1, 0, 2, 3]> (w)\n m = Conv (h, t)", {"w": (8, 8, 1, 1)}),
         "cast": middle("f = Cast <to = 10> (w)\n c = Cast <to = 1> (f)\n m = Conv (h, c)", {"w": (8, 8, 1, 1)}),
         "identity": middle("i = Identity (w)\n m = Conv (h, i)", {"w": (8, 8, 1, 1)}),
         "reshape": middle("r = Reshape (w, to)\n m = Conv (h, r)", {"w": (64,)}, to=[8, 8, 1, 1])}),
    Row("E5", "residual additions, concatenations, shuffles, gates", "pruned together",
        {"residual": middle("a = Conv (h, one)\n m = Add (a, h)", _TIED),
         "gate": middle("p = GlobalAveragePool (h)\n a = Conv (p, one)\n s = Sigmoid (a)\n m = Mul (h, s)", _TIED),
         **rule_case("joining", "concat", "concat-with-itself"), **rule_case("regrouping", "shuffle"),
         **rule_case("elementwise", "gate-per-channel", "Add-two-activations")}),
    Row("E6", "grouped, depthwise and transposed convolutions", "pruned by whole groups or slices",
        rule_case("convolution", "depthwise", "depthwise-multiplier", "whole-groups-reach-further",
                  "grouped-on-the-input", "a-slice-of-each-reaches-further", "transposed", "transposed-depthwise",
                  "transposed-depthwise-multiplier", "transposed-slice-of-each")),
    Row("E7", "concatenations and splits, along channels or not", "offsets and sizes follow",
        rule_case("joining", "concat-negative-axis", "concat-over-space-couples", "concat-with-constant-channels",
                  "split-and-join", "split-halves-that-meet", "split-over-space", "split-into-single-channels")),
    Row("E8", "flattening, reshapes with sizes, shapes that are computed", "followed, sizes follow",
        {**rule_case("regrouping", "flatten", "flatten-by-reshape", "flatten-channels-last", "tokens"),
         "computed": middle("s = Shape (h)\n b = Gather (s, at)\n u = Concat <axis = 0> (b, rest)\n m = Reshape (h, u)",
                            at=[0, 1], rest=[6, 6])}),
    Row("E9", "transposes, squeezes, expansions, tiles, blocks of depth", "followed",
        rule_case("regrouping", "transpose", "unsqueeze-squeeze", "squeeze-everything", "expand-space", "tile-channels",
                  "depth-to-space", "space-to-depth", "pixels-there-and-back")),
    Row("E10", "slices, gathers, pads, sizes, orders along channels", "followed where the meaning is kept, else whole",
        {**rule_case("selection", "slice-front", "gather-repeats", "pad-channels", "pad-channels-with-a-value",
                     "slice-with-steps"),
         **rule_case("resampling", "sizes", "along-channels"), **rule_case("ordering", "top-k-channels"),
         **rule_case("scattering", "elements-along-channels")}),
    Row("E11", "statistics over channels", "whole, or exact",
        {**rule_case("normalization", "softmax", "layer", "lp", "lrn", "instance", "group-with-scales-per-channel",
                     "mean-variance", "group-of-all"),
         **rule_case("reduction", "ReduceMean-keepdims", "ReduceMax"),
         **rule_case("einsum", "bsi,io->bso", "diagonal")}),
    Row("E12", "operands that are broadcast", "the right axis by the rules of shapes",
        rule_case("elementwise", "Add-h-k-8x1x1", "Add-h-k-scalar", "Add-h-k-1x1", "Mul-h-k-1x8x1x6", "Mul-h-k-2x8x6x6",
                  "one-channel-is-spread", "activations-of-different-rank", "constant-makes-channels")),
    Row("E13", "slopes, transposed and scaled products, vectors, stacks", "pruned",
        {**rule_case("elementwise", "PRelu-h-k-8x1x1", "PRelu-two-activations"),
         **rule_case("linear", "gemm-trans-a", "m = Gemm <transB = 1>", "m = Gemm <alpha = 0.5, beta = 2.0>",
                     "weight-on-the-left", "vector-times-matrix", "matrix-times-vector",
                     "stacked-weights-are-per-channel-along-the-stack")}),
    Row("E14", "operands left out, at the end or by an empty name", "pruned",
        {"missing": middle("m = Conv (h, one)", _TIED), "empty": middle('m = Conv (h, one, "")', _TIED),
         "clip": rule_case("elementwise", "Clip-max-only")["elementwise Clip-max-only"]}),
    Row("E15", "recurrent layers, a layer twice, attention", "pruned by units and heads",
        {**rule_case("recurrent", "lstm", "lstm-both-directions", "lstm-states-and-peepholes", "gru", "rnn", "time"),
         "layer twice": middle("a = Conv (h, one)\n b = Relu (a)\n m = Conv (b, one)", _TIED)}),
    Row("E16", "branches and loops that read outer values", "pruned inside, or whole",
        {**rule_case("captures", "loop-captured-weights", "loop-own-weights", "loop-captured-activation",
                     "same-names-in-two-bodies"),
         **rule_case("branches", "loop-in-a-branch"), **rule_case("loops", "scan")}),
    Row("E17", "several inputs and outputs, parts that do not meet, dead ends", "pruned",
        {"apart": whole(_APART, {"w1": (4, 8), "w2": (8, 3), "w3": (4, 8), "w4": (8, 3)}),
         "dead end": middle(_DEAD, {"side": (8, 3, 1, 1)}), "value is output": either(with_edit(_value_is_output))}),
    Row("E18", "channels that are coupled with an input or output; one channel", "whole, with the reason",
        {"all coupled": refuses(lambda: tiny.model(_ALL_COUPLED, {"w": (3, 3, 1, 1)}), "prun", code=1),
         **rule_case("elementwise", "added-to-the-input"), **rule_case("convolution", "single-channel")}),
    Row("E19", "a hundred thousand nodes, long chains, wide concatenations", "in seconds, without recursion",
        {"100000 nodes": _many_nodes, "chain of 3000": prunes(lambda: _long_chain(3000)),
         "reversed": refuses(lambda: _long_chain(3000, reverse=True), "before"),
         "2000 branches": prunes(lambda: _wide_concat(2000))}),
    Row("E20", "normalisation and dropout in training", "whole, or as if not training",
        {"training": either(lambda: _training(3)), "not training": prunes(lambda: _training(1)),
         **rule_case("elementwise", "Dropout", "Dropout-with-mask")}),
    Row("E21", "sequences, optionals, maps", "kept",
        {"output": prunes(with_edit(validity.sequence)), "inside": either(with_edit(_sequence)),
         "optional": prunes(with_edit(validity.type_attribute))}),
    Row("E22", "weights that are stored sparsely", "pruned",
        {"sparse": prunes(with_edit(_sparse_weight))}),
    Row("E23", "axes that count from the end, scales per channel", "pruned",
        {"from the front": middle(_QUANTISED.format(axis=1), **_PER_CHANNEL),
         "from the end": middle(_QUANTISED.format(axis=-3), **_PER_CHANNEL),
         **rule_case("joining", "concat-negative-axis"), **rule_case("normalization", "softmax-negative-axis")}),
    Row("E24", "a pruned model once more; a plan twice", "pruned; refused", {"again": _again, "plan twice": _twice}),
)  # fmt: skip
