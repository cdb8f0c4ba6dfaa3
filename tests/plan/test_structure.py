# SPDX-License-Identifier: Apache-2.0
"""The structure digest: equal for checkpoints and spellings of one network, another one where anything else differs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tiny_models import model

from graphprune import api
from graphprune.analysis.analysis import Analysis
from graphprune.errors import PlanError
from graphprune.model.load import load
from graphprune.plan.structure import structure_digest

BRANCHES = """(float[N,4] x) => (float[N,4] y) {
    total = ReduceSum <keepdims = 0> (x)
    large = Less (total, limit)
    y = If (large) <
        then_branch = yes () => (float[n,k] a) { a1 = MatMul (x, up) a = MatMul (a1, down) },
        else_branch = no () => (float[n,k] b) { b = Neg (x) }
    >
}"""


def branches(seed: int = 0) -> ModelProto:
    """Return a network with weights inside a branch."""
    proto = model(BRANCHES, {}, limit=np.float32(1e3))
    body = proto.graph.node[2].attribute[0].g
    random = np.random.default_rng(seed)
    for name, shape in (("up", (4, 8)), ("down", (8, 4))):
        body.initializer.append(numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name))
    return proto


def hidden(width: int = 8, op: str = "Relu") -> ModelProto:
    """Return a network with a hidden layer and a reshape whose target is stored."""
    text = f"""(float[2,4] x) => (float[2,4] y) {{
        h = MatMul (x, up) r = {op} (h) s = Reshape (r, to) y = MatMul (s, down)
    }}"""
    return model(text, {"up": (4, width), "down": (width, 4)}, to=[2, width])


def copied() -> ModelProto:
    """Return the network with a reshape that takes zeros as they are."""
    proto = hidden()
    proto.graph.node[2].attribute.append(helper.make_attribute("allowzero", 1))
    return proto


def test_weights_in_bodies_do_not_count() -> None:
    assert structure_digest(branches(0)) == structure_digest(branches(1))
    plan = api.solve(Analysis(load(branches(0))), api.BudgetRequest("flops", 0.6))
    other = load(branches(1))
    pruned = api.apply(other, plan, rebind=True)
    assert api.verify(other, pruned, plan, rebind=True).status == "verified"


def test_spelling_does_not_count() -> None:
    one, other = hidden(), hidden()
    other.graph.node[1].doc_string = "documented"
    other.graph.node[2].attribute.append(helper.make_attribute("allowzero", 0, doc_string="as it was"))
    one.graph.node[2].attribute.append(helper.make_attribute("allowzero", 0))
    tensors = list(other.graph.initializer)[::-1]
    del other.graph.initializer[:]
    for tensor in tensors:
        if tensor.data_type == TensorProto.INT64:  # stored typed instead of raw
            tensor = helper.make_tensor(tensor.name, TensorProto.INT64, list(tensor.dims), [2, 8])
        other.graph.initializer.append(tensor)
    assert structure_digest(one) == structure_digest(other)


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (hidden(op="Sigmoid"), "it has Sigmoid node 'r', or what it reads"),
        (hidden(width=4), r"weight 'up' has shape \[4, 4\], so axis 1 is too short"),
        (hidden(width=12), r"it has tensor 'down' of shape \[12, 4\]"),
        (copied(), "it has attribute 'allowzero' of Reshape node 's'"),
        (branches(), "there is no node 'h'"),
    ],
    ids=["another operator", "a narrower layer", "a wider layer", "another attribute", "another network"],
)
def test_the_first_difference_is_named(other: ModelProto, difference: str) -> None:
    plan = api.solve(Analysis(load(hidden())), api.BudgetRequest("flops", 0.6))
    with pytest.raises(PlanError, match=difference):
        api.apply(load(other), plan, rebind=True)


def test_plans_that_tell_no_more_than_whether_it_differs_say_so() -> None:
    plan = api.solve(Analysis(load(hidden())), api.BudgetRequest("flops", 0.6))
    options = {name: value for name, value in plan.solver.options.items() if name != "outline"}
    plan = replace(plan, solver=replace(plan.solver, options=options))
    with pytest.raises(PlanError, match="some attribute, shape or connection is otherwise"):
        api.apply(load(hidden(op="Sigmoid")), plan, rebind=True)
