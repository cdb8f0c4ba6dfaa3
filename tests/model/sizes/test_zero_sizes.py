# SPDX-License-Identifier: Apache-2.0
"""A size of 0 is a size: onnxruntime takes no other, and what is empty stays empty."""

from __future__ import annotations

import pytest
from oracle_check import check
from tiny_models import model

from graphprune import api
from graphprune.errors import ModelFileError, RequestError, UsageError
from graphprune.model.load import load
from graphprune.model.sizes.batch_axes import Declared
from graphprune.plan.budget import BudgetRequest

WEIGHTS = {"first": (8, 3, 3, 3), "last": (4, 8, 3, 3)}
BODY = """h = Conv <pads = [1, 1, 1, 1]> (x, first)
    m = Relu (h)
    y = Conv <pads = [1, 1, 1, 1]> (m, last)"""


@pytest.mark.parametrize(
    ("inputs", "output", "rest"),
    [
        (", float[1,0,4] past", ", float[1,n,4] o", "o = Identity (past)"),
        (", float[b,0,4] past, float[b,2,4] new", ", float[b,n,4] o", "o = Concat <axis = 1> (past, new)"),
        (", float[0] boxes", ", float[n] o", "o = Identity (boxes)"),
    ],
    ids=["empty-cache", "empty-cache-of-an-open-batch", "no-boxes"],
)
def test_an_empty_input_stays_empty_and_the_rest_is_pruned(inputs: str, output: str, rest: str) -> None:
    proto = model(f"(float[1,3,8,8] x{inputs}) => (float[1,4,8,8] y{output}) {{ {BODY}\n {rest} }}", WEIGHTS)
    analysis = api.analyze(load(proto))
    assert 0 in analysis.input_shapes[proto.graph.input[1].name]
    plan = api.solve(analysis, flops=0.5)
    assert plan.budget.after < plan.budget.before
    assert api.verify(analysis, api.apply(analysis, plan), plan).status == "verified"
    check(proto)


def test_a_batch_of_nothing_costs_nothing() -> None:
    proto = model(f"(float[0,3,8,8] x) => (float[n,4,8,8] y) {{ {BODY} }}", WEIGHTS)
    with pytest.raises(RequestError, match="no flops to save"):
        api.solve(load(proto), BudgetRequest("flops", 0.5))


def test_images_without_height_are_said_to_be_the_fault_of_the_file() -> None:
    proto = model(f"(float[1,3,8,8] x) => (float[1,4,8,8] y) {{ {BODY} }}", WEIGHTS)
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 0
    with pytest.raises(ModelFileError, match="its kernel reaches over 3 on axis 2, 2 are there"):
        api.analyze(load(proto))


def test_zero_is_fixed_and_what_is_negative_or_unset_is_open() -> None:
    proto = model(f"(float[1,3,8,8] x) => (float[1,4,8,8] y) {{ {BODY} }}", WEIGHTS)
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    dims[0].dim_value, dims[2].dim_value = 0, -1
    dims[3].Clear()
    declared = Declared.of(proto.graph.input[0].type)
    assert declared is not None
    assert declared.sizes == (0, 3, None, None)
    assert declared.open == (2, 3)


def test_no_other_size_than_zero_can_be_given() -> None:
    proto = model(f"(float[0,3,8,8] x) => (float[n,4,8,8] y) {{ {BODY} }}", WEIGHTS)
    with pytest.raises(UsageError, match="has the shape 0x3x8x8, got 1x3x8x8"):
        api.analyze(load(proto), api.AnalyzeOptions({"x": (1, 3, 8, 8)}))


BRANCHES = """(float[1,1,length] x, bool[1] low) => (float[1,4,n] y) {
    m = If (low) <
        then_branch = narrow () => (float[1,4,n] a) { a = Conv <strides = [64]> (x, short) },
        else_branch = wide () => (float[1,4,n] b) { b = Conv <strides = [128]> (x, long) }
    >
    r = Relu (m)
    y = Conv (r, last)
}"""


def test_an_open_length_suits_every_branch() -> None:
    """Inference of onnx gives a kernel of 256 one position on 100 samples, and a run takes only one branch."""
    proto = model(BRANCHES, {"short": (4, 1, 100), "long": (4, 1, 256), "last": (4, 4, 1)})
    assert api.analyze(load(proto)).input_shapes["x"] == (1, 1, 256)


@pytest.mark.parametrize(("attributes", "size"), [("", 4), ("<dilations = [2]>", 8), ("<pads = [1, 0]>", 3)])
def test_a_kernel_has_to_fit_into_what_it_slides_over(attributes: str, size: int) -> None:
    text = f"(float[1,1,{{}}] x) => (float[1,4,n] y) {{{{ y = Conv {attributes} (x, kernel) }}}}"
    fitting, small = (model(text.format(length), {"kernel": (4, 1, 5)}) for length in (size + 1, size))
    assert api.analyze(load(fitting)).input_shapes["x"] == (1, 1, size + 1)
    with pytest.raises(ModelFileError, match=r"its kernel reaches over \d on axis 2, \d are there"):
        api.analyze(load(small))


def test_automatic_padding_makes_any_kernel_fit() -> None:
    text = '(float[1,1,3] x) => (float[1,4,n] y) { y = Conv <auto_pad = "SAME_UPPER"> (x, kernel) }'
    assert api.analyze(load(model(text, {"kernel": (4, 1, 5)}))).shapes.dims["y"] == (1, 4, 3)
