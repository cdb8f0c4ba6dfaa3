# SPDX-License-Identifier: Apache-2.0
"""Rules of operators that move elements but compute nothing, and how their sizes follow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper
from oracle_check import Outcome, analyze, check, run
from rule_cases import BOTH, Case, Stays, rule_tests
from tiny_models import chain, model

from graphprune.errors import ModelFileError

SHUFFLE = "r = Reshape (h, apart)\n t = Transpose <perm = [0, 2, 1, 3, 4]> (r)\n m = Reshape (t, together)"


def _classifier(text: str, features: int, **constants: Any) -> ModelProto:
    return model(
        f"""(float[2,3,2,3] x) => (float[] y) {{
            h = Conv (x, first)
            {text}
            y = MatMul (m, last)
        }}""",
        {"first": (8, 3, 1, 1), "last": (features, 2)},
        **constants,
    )


HEAD = {"h": (8, "first.0 out, last.0 in")}

ONE_CHANNEL = "o = Conv (x, one)\n e = Expand (o, to)\n m = Add (h, e)"

CASES = [
    # The copies of one channel have no weights of their own: they go with what they are added to.
    Case("one-channel-is-spread", chain(ONE_CHANNEL, {"one": (1, 3, 1, 1)}, to=[2, 8, 6, 6]), {"h": (8, BOTH)}),
    Case(
        "stored-data-is-spread-to-the-size-of-an-activation",
        chain("n = Shape (h)\n e = Expand (scale, n)\n m = Mul (h, e)", {"scale": (1, 8, 1, 1)}),
        {"h": (8, f"{BOTH}, scale.1 per_channel")},
    ),
    Case("a-target-names-the-last-axes-only", chain("m = Expand (h, to)", to=[8, 1, 1]), {"h": (8, BOTH)}),
    Case("flatten", _classifier("m = Flatten (h)", 48), HEAD),
    Case("flatten-by-reshape", _classifier("m = Reshape (h, to)", 48, to=[2, -1]), HEAD),
    Case("flatten-channels-last", _classifier("t = Transpose <perm = [0, 2, 3, 1]> (h)\n m = Flatten (t)", 48), HEAD),
    Case(
        "tokens",
        chain(
            "r = Reshape (h, to)\n t = Transpose <perm = [0, 2, 1]> (r)\n g = MatMul (t, w)\n"
            " u = Transpose <perm = [0, 2, 1]> (g)\n m = Reshape (u, back)",
            {"w": (8, 4)},
            after=4,
            to=[2, 8, 36],
            back=[2, 4, 6, 6],
        ),
        {"h": (8, "first.0 out, w.0 in"), "g": (4, "w.1 out, last.1 in")},
    ),
    Case("shuffle", chain(SHUFFLE, apart=[2, 2, 4, 6, 6], together=[2, 8, 6, 6]), {"h": (4, BOTH)}),
    Case(
        "transpose",
        chain("t = Transpose <perm = [0, 2, 3, 1]> (h)\n r = Relu (t)\n m = Transpose <perm = [0, 3, 1, 2]> (r)"),
    ),
    Case("unsqueeze-squeeze", chain("u = Unsqueeze (h, at)\n r = Relu (u)\n m = Squeeze (r, at)", at=[1])),
    Case("squeeze-everything", _classifier("p = GlobalAveragePool (h)\n m = Squeeze (p)", 8), HEAD),
    Case("expand-space", chain("p = GlobalAveragePool (h)\n m = Expand (p, to)", to=[2, 8, 6, 6])),
    Case("expand-with-ones", chain("p = GlobalAveragePool (h)\n m = Expand (p, to)", to=[1, 1, 6, 6])),
    Case(
        "expand-rank",
        chain("e = Expand (h, to)\n m = ReduceMean <keepdims = 0> (e, at)", opset=18, to=[3, 2, 8, 6, 6], at=[0]),
    ),
    Case("tile-space", chain("m = Tile (h, by)", by=[1, 1, 2, 1])),
    Case("tile-channels", chain("m = Tile (h, by)", after=16, by=[1, 2, 1, 1])),
    Case("depth-to-space", chain("m = DepthToSpace <blocksize = 2> (h)", after=2), {"h": (2, BOTH)}),
    Case("depth-to-space-crd", chain('m = DepthToSpace <blocksize = 2, mode = "CRD"> (h)', after=2), {"h": (2, BOTH)}),
    Case("space-to-depth", chain("m = SpaceToDepth <blocksize = 2> (h)", after=32)),
    Case(
        "pixels-there-and-back",
        chain("d = DepthToSpace <blocksize = 2> (h)\n m = SpaceToDepth <blocksize = 2> (d)"),
        {"h": (2, BOTH)},
    ),
    Case(
        "reshape-adds-ones",
        chain("r = Reshape (h, to)\n s = Relu (r)\n m = Reshape (s, back)", to=[2, 1, 8, 1, 36], back=[0, 8, 6, 6]),
    ),
]


def _frozen(name: str, text: str, reason: tuple[str, str], **constants: Any) -> Stays:
    proto = model(
        f"""(float[2,3,6,6] x) => (float[a,b,c,d] y) {{
            h = Conv (x, first)
            {text}
            n = Conv (m, middle)
            y = Conv (n, last)
        }}""",
        {"first": (8, 3, 1, 1), "middle": (4, 8, 1, 1), "last": (2, 4, 1, 1)},
        **constants,
    )
    return Stays(name, proto, reason, groups={"n": (4, "middle.0 out, last.1 in")})


STAYS = [
    _frozen(
        "depth-to-space-of-space",
        "t = Transpose <perm = [0, 2, 1, 3]> (h)\n d = SpaceToDepth <blocksize = 2> (t)\n"
        " e = DepthToSpace <blocksize = 2> (d)\n m = Transpose <perm = [0, 2, 1, 3]> (e)",
        ("SpaceToDepth", "d"),
    ),
    _frozen(
        "into-one-channel-of-many",
        "r = Reshape (h, to)\n s = Softmax <axis = 1> (r)\n m = Reshape (s, back)",
        ("Softmax", "s"),
        to=[2, 288],
        back=[2, 8, 6, 6],
    ),
]

test_keeps, test_numbers, test_freezes = rule_tests(CASES, STAYS)


@pytest.mark.parametrize(
    ("text", "after", "opset", "constants"),
    [
        pytest.param("u = Unsqueeze <axes = [1]> (h)\n m = Squeeze <axes = [1]> (u)", 8, 11, {}, id="axes-attribute"),
        pytest.param("u = Unsqueeze (h, at)\n m = Squeeze (u, at)", 8, 13, {"at": [-4]}, id="axes-input"),
        pytest.param("m = DepthToSpace <blocksize = 2> (h)", 2, 9, {}, id="depth-to-space-9"),
        pytest.param("m = Reshape (h, to)", 8, 7, {"to": [0, -1, 6, 6]}, id="reshape-7"),
        pytest.param("m = Tile (h, by)", 16, 7, {"by": [1, 2, 1, 1]}, id="tile-7"),
        pytest.param("m = Expand (h, to)", 8, 8, {"to": [2, 8, 6, 6]}, id="expand-8"),
    ],
)
def test_forms_of_operator_sets(text: str, after: int, opset: int, constants: dict[str, Any]) -> None:
    assert check(chain(text, after=after, opset=opset, **constants)).effect > 1e-3


@pytest.mark.parametrize("opset", [7, 9, 11, 13])
def test_flatten_in_all_operator_sets(opset: int) -> None:
    text = "(float[2,3,2,3] x) => (float[] y) { h = Conv (x, first)\n m = Flatten (h)\n y = MatMul (m, last) }"
    assert check(model(text, {"first": (8, 3, 1, 1), "last": (48, 2)}, opset=opset)).effect > 1e-3


# reshape targets ------------------------------------------------------------------------------


def _target(outcome: Outcome, op: str = "Reshape", at: int = 0) -> list[int] | None:
    """Return the stored target of a reshape, None where it is computed."""
    node = [node for node in outcome.pruned.graph.node if node.op_type == op][at]
    stored = {t.name: numpy_helper.to_array(t).tolist() for t in outcome.pruned.graph.initializer}
    return stored.get(node.input[1])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param([2, 8, 36], [2, 4, 36], id="literal"),
        pytest.param([0, 8, 36], [0, 4, 36], id="zero-copies"),
        pytest.param([0, 0, -1], [0, 0, -1], id="says-the-right-thing"),
        pytest.param([2, -1, 36], [2, -1, 36], id="minus-one-is-the-channels"),
        pytest.param([-1, 8, 36], [-1, 4, 36], id="minus-one-is-the-batch"),
        pytest.param([2, 8, -1], [2, 4, -1], id="minus-one-is-space"),
    ],
)
def test_literal_targets(before: list[int], after: list[int]) -> None:
    text = "r = Reshape (h, to)\n s = Relu (r)\n m = Reshape (s, back)"
    assert _target(check(chain(text, to=before, back=[0, -1, 6, 6]))) == after


def _open(text: str, weights: dict[str, tuple[int, ...]] | None = None, **constants: Any) -> ModelProto:
    """Make a model with open batch and image sizes."""
    return model(
        f"(float[N,3,H,W] x) => (float[N,k,a,b] y) {{ h = Conv (x, first)\n {text}\n y = Conv (m, last) }}",
        {"first": (8, 3, 1, 1), "last": (2, 8, 1, 1), **(weights or {})},
        **constants,
    )


def _check_open(proto: ModelProto) -> Outcome:
    """Prune with one size of the inputs and compare with another one, too."""
    outcome = check(analyze(proto, x=(1, 3, 6, 4)))
    other = analyze(proto, x=(3, 3, 5, 8))
    wanted = check(other, outcome.keep).values  # of the model that was pruned for the other size
    feeds = {"x": np.random.default_rng(0).standard_normal((3, 3, 5, 8)).astype(np.float32)}
    for name, value in run(outcome.pruned, feeds, list(wanted)).items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-4, atol=1e-5, err_msg=name)
    return outcome


SIZES = """size = Shape (h)
    n = Gather (size, i0)
    c = Gather (size, i1)
    high = Gather (size, i2)
    wide = Gather (size, i3)
    area = Mul (high, wide)"""
INDICES: dict[str, Any] = {"i0": [0], "i1": [1], "i2": [2], "i3": [3]}


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("to = Concat <axis = 0> (n, c, area)", id="all-computed"),
        pytest.param("to = Concat <axis = 0> (n, c, rest)", id="rest-for-space"),
        pytest.param("to = Concat <axis = 0> (n, eight, rest)", id="literal-channels"),
        pytest.param("to = Concat <axis = 0> (n, rest, area)", id="rest-for-channels"),
        pytest.param("to = Concat <axis = 0> (n, eight, area)", id="two-open-sizes-and-literal-channels"),
    ],
)
def test_computed_targets_stay_dynamic(target: str) -> None:
    text = f"""{SIZES}
        {target}
        r = Reshape (h, to)
        s = Relu (r)
        m = Reshape (s, size)"""
    outcome = _check_open(_open(text, eight=[8], rest=[-1], **INDICES))
    assert outcome.analysis.grouping.sizes.tolist() == [8]


def test_target_with_open_axes_of_its_own() -> None:
    """Open sizes on axes that are no axes of the input, beside a literal number of channels."""
    text = f"""{SIZES}
        a = Add (high, zero)
        to = Concat <axis = 0> (wide, eight, n, a)
        t = Transpose <perm = [3, 1, 0, 2]> (h)
        f = Reshape (t, flat)
        r = Reshape (f, to)
        m = Transpose <perm = [2, 1, 3, 0]> (r)"""
    outcome = _check_open(_open(text, eight=[8], zero=[0], flat=[0, 0, -1], **INDICES))
    assert [group.size for group in outcome.analysis.groups] == [8]


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("to = Concat <axis = 0> (n, c, high, wide)", id="all-computed"),
        pytest.param("to = Concat <axis = 0> (n, one, high, wide)", id="one-for-channels"),
    ],
)
def test_expand_stays_dynamic(target: str) -> None:
    text = f"{SIZES}\n {target}\n p = GlobalAveragePool (h)\n m = Expand (p, to)"
    _check_open(_open(text, eight=[8], one=[1], **INDICES))


def test_expand_to_literal_channels_and_open_sizes() -> None:
    text = f"{SIZES}\n to = Concat <axis = 0> (n, eight, high, wide)\n p = GlobalAveragePool (h)\n m = Expand (p, to)"
    _check_open(_open(text, eight=[8], **INDICES))


def test_scale_from_the_number_of_channels_is_held() -> None:
    """1 / sqrt(d) must stay what it was although d shrinks."""
    text = f"{SIZES}\n f = Cast <to = 1> (c)\n q = Sqrt (f)\n m = Div (h, q)"
    _check_open(_open(text, **INDICES))


def test_zeros_in_the_shape_of_the_channels_follow() -> None:
    text = "size = Shape (h)\n z = ConstantOfShape <value = float[1] {0.5}> (size)\n m = Add (h, z)"
    _check_open(_open(text))


# axes of length 1 -----------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [11, 13])
def test_squeeze_without_axes_keeps_an_axis_that_shrinks_to_one(opset: int) -> None:
    proto = _classifier("p = GlobalAveragePool (h)\n m = Squeeze (p)", 8, opset=opset)
    outcome = check(proto, np.arange(8) == 3)
    assert outcome.values["m"].shape == (2, 1)


def test_expand_to_a_literal_width_keeps_an_axis_that_shrinks_to_one() -> None:
    proto = chain("p = GlobalAveragePool (h)\n m = Expand (p, to)", to=[2, 8, 6, 6])
    assert check(proto, np.arange(8) == 3).values["m"].shape == (2, 1, 6, 6)


def test_number_of_tiles_from_the_number_of_channels_is_held() -> None:
    text = "c = Shape <start = 1, end = 2> (h)\n by = Concat <axis = 0> (one, one, c, one)\n m = Tile (h, by)"
    assert check(chain(text, one=[1])).values["m"].shape == (2, 4, 48, 6)


def test_a_reshape_to_another_number_of_elements_is_refused() -> None:
    # No runtime can run such a model.
    with pytest.raises(ModelFileError, match=r"Reshape\('m'\): input 0 'h' .* cannot become \[2, 8, 6, 5\]"):
        analyze(chain("m = Reshape (h, to)", to=[2, 8, 6, 5]))
