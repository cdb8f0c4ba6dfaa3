# SPDX-License-Identifier: Apache-2.0
"""Small models in which every kind of change that surgery makes is needed, and half of their channels removed."""

from __future__ import annotations

from functools import cache

import numpy as np
from onnx import ModelProto, helper, numpy_helper, parser

from graphprune import api
from graphprune.analysis.analysis import Analysis
from graphprune.plan.keep_mask import keep_mask
from graphprune.plan.schema import Plan
from graphprune.surgery.marks import marks, put_marks
from graphprune.surgery.prune import prune

__all__ = ["GRAPHS", "analysed", "pruned"]

# Each graph with the shapes of its float initializers and the values of its integer ones.
GRAPHS: dict[str, tuple[int, str, dict[str, tuple[int, ...]], dict[str, list[int]]]] = {
    "plain": (
        17,
        """(float[n, 3, 6, 6] x) => (float[n, 2, 6, 6] y) <float[n, 16, 6, 6] a, float[n, 16, 6, 6] b> {
            a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
            b = Relu (a)
            y = Conv (b, w2)
        }""",
        {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (2, 16, 1, 1)},
        {},
    ),
    "shared bias": (
        17,
        """(float[1, 3, 6, 6] x) => (float[1, 2, 6, 6] y) {
            a = Conv (x, w1, shared)
            b = Relu (a)
            c = Conv (b, w2, shared)
            d = Sigmoid (c)
            y = Conv (d, w3)
        }""",
        {"w1": (16, 3, 1, 1), "shared": (16,), "w2": (16, 16, 1, 1), "w3": (2, 16, 1, 1)},
        {},
    ),
    "grouped": (
        17,
        """(float[1, 3, 6, 6] x) => (float[1, 2, 6, 6] y) {
            a = Conv (x, w1)
            b = Conv <group = 4, pads = [1, 1, 1, 1]> (a, w2)
            c = Conv <group = 16> (b, w3)
            y = Conv (c, w4)
        }""",
        {"w1": (16, 3, 1, 1), "w2": (16, 4, 3, 3), "w3": (16, 1, 1, 1), "w4": (2, 16, 1, 1)},
        {},
    ),
    "hidden weights": (
        17,
        """(float[1, 8] x) => (float[1, 2] y) {
            w1t = Transpose <perm = [1, 0]> (w1)
            a = MatMul (x, w1t)
            b = Relu (a)
            half = Cast <to = 10> (w2)
            w2c = Cast <to = 1> (half)
            c = MatMul (b, w2c)
            d = Sigmoid (c)
            norm = ReduceMean <axes = [0], keepdims = 1> (w3)
            w3n = Sub (w3, norm)
            e = MatMul (d, w3n)
            f = Relu (e)
            y = MatMul (f, w4)
        }""",
        {"w1": (16, 8), "w2": (16, 16), "w3": (16, 16), "w4": (16, 2)},
        {},
    ),
    "sizes": (
        17,
        """(float[1, 3, 4, 4] x) => (float[1, 2] y) {
            a = Conv (x, w1)
            b, c = Split <axis = 1> (a, parts)
            d = Relu (b)
            e = Concat <axis = 1> (c, d)
            f = Slice (e, starts, ends, one)
            g = Pad (f, pads)
            h = Add (g, e)
            i = Reshape (h, flat)
            y = MatMul (i, w2)
        }""",
        {"w1": (16, 3, 1, 1), "w2": (256, 2)},
        {
            "parts": [8, 8],
            "starts": [0],
            "ends": [8],
            "one": [1],
            "pads": [0, 4, 0, 0, 0, 4, 0, 0],
            "flat": [1, 256],
        },
    ),
    "older sizes": (
        9,
        """(float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y) {
            a = Conv (x, w1)
            b, c = Split <axis = 1, split = [8, 8]> (a)
            d = Mul (b, c)
            e = Slice <axes = [1], starts = [0], ends = [8]> (a)
            f = Add (d, e)
            y = Conv (f, w2)
        }""",
        {"w1": (16, 3, 1, 1), "w2": (2, 8, 1, 1)},
        {},
    ),
    "mean": (
        17,
        """(float[1, 3, 6, 6] x) => (float[1, 1, 6, 6] y) {
            a = Conv (x, w1)
            b = Sigmoid (a)
            c = ReduceMean <axes = [1], keepdims = 1> (b)
            y = Relu (c)
        }""",
        {"w1": (16, 3, 1, 1)},
        {},
    ),
    "branches": (
        17,
        """(float[n, 3, 4, 4] x, bool which) => (float[n, 2, 4, 4] y) {
            y = If (which) <
                then_branch = g1 () => (float[n, 2, 4, 4] p) {
                    target = Constant <value = int64[4] {-1, 16, 4, 4}> ()
                    a = Conv (x, w1)
                    r = Reshape (a, target)
                    p = Conv (r, w3)
                },
                else_branch = g2 () => (float[n, 2, 4, 4] q) {
                    target = Constant <value = int64[4] {-1, 3, 4, 4}> ()
                    r = Reshape (x, target)
                    q = Conv (r, w2)
                }
            >
        }""",
        {"w1": (16, 3, 1, 1), "w2": (2, 3, 1, 1), "w3": (2, 16, 1, 1)},
        {},
    ),
    "function": (
        17,
        """(float[1, 3, 6, 6] x) => (float[1, 2, 6, 6] y) {
            a = Conv (x, w1)
            b = local.twice (a)
            y = Conv (b, w2)
        }
        <domain: "local", opset_import: ["": 17]>
        twice (p) => (q) { q = Add (p, p) }""",
        {"w1": (16, 3, 1, 1), "w2": (2, 16, 1, 1)},
        {},
    ),
}


def _build(name: str) -> ModelProto:
    opset, text, floats, integers = GRAPHS[name]
    local = ', "local": 1' if "local." in text else ""
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}{local}]> net {text}')
    random = np.random.default_rng(0)
    for tensor, shape in floats.items():
        value = random.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, tensor))
    for tensor, values in integers.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(values, dtype=np.int64), tensor))
    return _decorate(model)


def _decorate(model: ModelProto) -> ModelProto:
    """Fill fields that a careless copy would lose; hide one weight in a `Constant` node."""
    model.producer_name, model.producer_version, model.doc_string = "tests", "7", "a model"
    model.metadata_props.add(key="task", value="nothing")
    for index, node in enumerate(model.graph.node):
        node.name, node.doc_string = f"node_{index}", f"step {index}"
        node.metadata_props.add(key="line", value=str(index))
    model.graph.doc_string = "a graph"
    model.graph.initializer[0].doc_string = "a weight"
    model.graph.quantization_annotation.add(tensor_name="x")
    for message in (model, model.graph, model.graph.node[0], model.graph.initializer[0]):
        message.MergeFromString(b"\xfa\x3f\x03new")  # field 1023, from some later ONNX
    hidden = model.graph.initializer.pop(1) if len(model.graph.initializer) > 1 else None
    if hidden is not None:
        constant = helper.make_node("Constant", [], [hidden.name], name="hidden", value=hidden)
        nodes = [constant, *model.graph.node]
        copies = [type(constant).FromString(node.SerializeToString()) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(copies)
    return model


@cache
def analysed(name: str) -> tuple[Analysis, Plan]:
    """Return the analysis of a model, and a plan that halves it."""
    analysis = api.analyze(api.load(_build(name)))
    options = api.SolveOptions(criterion="l1", solver="uniform", round_to=1)
    return analysis, api.solve(analysis, api.BudgetRequest("params", 0.6), options)


def pruned(name: str) -> ModelProto:
    """Return a fresh pruned model, marked as `apply` does."""
    analysis, plan = analysed(name)
    proto = prune(analysis, keep_mask(analysis, plan))
    put_marks(proto, marks(analysis, plan))
    return ModelProto.FromString(proto.SerializeToString())
