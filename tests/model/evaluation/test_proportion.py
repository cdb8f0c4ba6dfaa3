# SPDX-License-Identifier: Apache-2.0
"""Proportion: what depends on no data is held to what a file stores and is fed, before anything runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper, parser
from tiny_models import chain, model

from graphprune.analysis.analysis import Analysis
from graphprune.errors import UnsafeModelError
from graphprune.model.load import load


def _beside(text: str, weights: dict[str, tuple[int, ...]] | None = None, **constants: Any) -> ModelProto:
    """Return a network that reads how many elements `q` has, which depends on no data."""
    proto = chain("m = Relu (h)", weights or {}, opset=20, **constants)
    proto.graph.node.extend(parser.parse_graph(f"g (float[1] h) => (float[a] q) {{ {text} }}").node)
    proto.graph.output.append(helper.make_tensor_value_info("q", 1, None))
    return proto


IMAGE = "i = ConstantOfShape (size)\n"
TOO_MUCH = {
    "windows": (IMAGE + "q = LpPool <kernel_shape = [300, 300]> (i)", {"size": [1, 1, 900, 900]}, "steps.*LpPool"),
    "maxima": (IMAGE + "q = MaxPool <kernel_shape = [300, 300]> (i)", {"size": [1, 1, 900, 900]}, "steps.*MaxPool"),
    "products": ("c = ConstantOfShape (size)\n" + "\n".join(f"c{at} = MatMul (c, c)" for at in range(9))
                 + "\n q = MatMul (c0, c8)", {"size": [1000, 1000]}, "steps.*MatMul"),
    "determinant": (IMAGE + "q = Det (i)", {"size": [2000, 2000]}, "steps.*Det"),
    "outer product": ("i = ConstantOfShape (size)\n q = Einsum <equation = \"a,b,c->\"> (i, i, i)",
                      {"size": [10000]}, None),
    "large values": (IMAGE + "\n".join(f"c{at} = Exp (i)" for at in range(5)) + "\n q = Neg (c4)",
                     {"size": [1, 64, 650, 650]}, "elements"),
    "many values": (IMAGE + "\n".join(f"c{at} = Exp (i)" for at in range(20)) + "\n q = Neg (c9)",
                    {"size": [3000, 3000]}, "elements"),
    "random values": ("\n".join(f"c{at} = RandomNormal <shape = [3000, 3000]> ()" for at in range(20))
                      + "\n q = Neg (c9)", {}, "elements"),
    "of a size": ("s = Shape (h)\n k = Mul (s, by)\n i = ConstantOfShape (k)\n"
                  + "\n".join(f"c{at} = Exp (i)" for at in range(6)) + "\n q = Neg (c5)",
                  {"by": [1, 10, 60, 60]}, "elements"),
}  # fmt: skip


@pytest.mark.parametrize("case", TOO_MUCH)
def test_what_depends_on_no_data_is_bounded(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, constants, said = TOO_MUCH[case]
    proto = _beside(text, **constants)
    monkeypatch.setattr("graphprune.model.children.sandbox.subprocess.Popen", None)  # nothing is run for that
    if said is None:
        assert Analysis(load(proto)).groups
        return
    with pytest.raises(UnsafeModelError, match=f"values that depend on no data .*{said}"):
        Analysis(load(proto))


def test_what_stored_weights_are_made_into_may_be_large() -> None:
    text = "t = Transpose (w)\n e = Exp (t)\n s = ReduceSum (e)\n q = Div (e, s)"
    assert Analysis(load(_beside(text, {"w": (3000, 3000)}))).groups


def test_what_a_network_does_with_its_inputs_is_no_less_than_that() -> None:
    """A mask that is as large as the maps that it is for."""
    proto = model(
        """(float[1,3,1500,1500] x) => (float[a,b,c,d] y) {
            h = Conv (x, first)
            s = Shape (h)
            n = ConstantOfShape <value = float[1] {0.5}> (s)
            m = Mul (h, n)
            r = Relu (m)
            y = Conv (r, last)
        }""",
        {"first": (8, 3, 1, 1), "last": (2, 8, 1, 1)},
    )
    assert [group.size for group in Analysis(load(proto)).groups] == [8]


def test_sizes_of_constants_are_no_work() -> None:
    proto = _beside("s = Shape (w)\n q = Cast <to = 1> (s)", {"w": (8, 8)}, unused=np.int64(1))
    assert Analysis(load(proto)).groups


def test_maps_that_nothing_stored_or_fed_accounts_for_are_refused_together() -> None:
    sigmoids = "\n".join(f"c{at + 1} = Sigmoid (c{at})" for at in range(10))
    text = f"""(float[1,3,8,8] x) => (float[a,b,c,d] y) {{
        h = Conv (x, first)
        c0 = Resize <mode = "nearest"> (h, , , sizes)
        {sigmoids}
        p = GlobalAveragePool (c10)
        y = Conv (p, last)
    }}"""
    proto = model(text, {"first": (8, 3, 1, 1), "last": (2, 8, 1, 1)}, sizes=[1, 8, 2048, 2048])
    with pytest.raises(UnsafeModelError, match=r"all values together, and what is kept to make them, have 3\.7e"):
        Analysis(load(proto))


def test_a_causal_mask_is_no_excess() -> None:
    text = "i = ConstantOfShape (size)\n t = Trilu (i)\n b = Cast <to = 9> (t)\n q = Not (b)"
    assert Analysis(load(_beside(text, size=[4096, 4096]))).groups


def test_a_text_takes_as_much_as_many_numbers() -> None:
    """A weight that is written as texts and read again, and what is fed and becomes more texts than memory holds."""
    texts = "t = Cast <to = 8> (w)\n q = Cast <to = 1> (t)"
    assert Analysis(load(_beside(texts, {"w": (30, 30)}))).groups
    spread = "w = Expand (c, size)\n" + "".join(f"t{at} = Cast <to = 8> (w)\n" for at in range(3))
    with pytest.raises(UnsafeModelError, match=r"steps to compute.*'t0'"):
        Analysis(load(_beside(spread + "q = Cast <to = 1> (t0)", {"c": (1, 1000)}, size=[1000, 1000])))
    fed = f"f = ReduceMean (h)\n w = Expand (f, size)\n {texts}"
    with pytest.raises(UnsafeModelError, match=r"value 't' of shape .* of texts, which count as 32 elements each"):
        Analysis(load(_beside(fed, size=[1, 1, 1500, 1500])))
