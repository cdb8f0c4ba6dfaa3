# SPDX-License-Identifier: Apache-2.0
"""Sizes of open input dimensions: those with one name agree, those without a name do not have to."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import ModelProto, TensorProto, helper
from tiny_models import model

from graphprune.analysis.analysis import Analysis
from graphprune.cli import main
from graphprune.errors import UsageError
from graphprune.model.graph import Graph
from graphprune.model.load import load
from graphprune.model.sizes.inputs import input_shapes


def graph(*shapes: list[int | str]) -> Graph:
    inputs = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, shape) for i, shape in enumerate(shapes)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    nodes = [helper.make_node("Relu", ["x0"], ["y"])]
    return Graph(helper.make_model(helper.make_graph(nodes, "g", inputs, outputs)))


@pytest.mark.parametrize("open_", ["?", "-1", "", "*"])
def test_what_is_no_name_may_have_any_sizes(open_: str) -> None:
    given = {"x0": (1, 3, 48, 192)}
    assert input_shapes(graph([open_, 3, open_, open_]), given) == given


def test_a_name_has_one_size() -> None:
    two = graph(["n", 3, "side", "side"], ["n", 7])
    assert input_shapes(two, {"x0": (4, 3, 8, 8)})["x1"] == (4, 7)
    with pytest.raises(UsageError, match="the dimension 'side' is given as 8 and as 9"):
        input_shapes(two, {"x0": (4, 3, 8, 9)})


def test_the_second_size_differs_wherever_a_dimension_is_open() -> None:
    first, second = (input_shapes(graph(["?", 3, "?", "w"]), {}, other=other)["x0"] for other in (False, True))
    assert [a == b for a, b in zip(first, second, strict=True)] == [False, True, False, False]


def _text_recogniser() -> ModelProto:
    # The height must have become 1 where it is squeezed: 48 does, 32 and 224 do not.
    return model(
        """(float[n,c,h,w] x) => (float[a,b,d] y) {
            f = Conv <strides = [8, 1], kernel_shape = [8, 1]> (x, first)
            g = Conv <kernel_shape = [6, 1]> (f, middle)
            s = Squeeze (g, at)
            t = Transpose <perm = [0, 2, 1]> (s)
            y = MatMul (t, last)
        }""",
        {"first": (8, 3, 8, 1), "middle": (6, 8, 6, 1), "last": (6, 5)},
        at=[2],
    )


def test_a_size_that_fits_is_looked_for() -> None:
    analysis = Analysis(load(_text_recogniser()))
    assert analysis.input_shapes == {"x": (1, 3, 48, 48)}
    assert [group.size for group in analysis.groups] == [8, 6]
    assert analysis.assumed == {"x": frozenset({2, 3})}


def test_what_was_chosen_is_said_with_how_to_say_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "text.onnx"
    path.write_bytes(_text_recogniser().SerializeToString())
    assert main(["inspect", str(path)]) == 0
    assert "--input-shape x=1x3x48x48" in capsys.readouterr().out
    assert main(["inspect", str(path), "--input-shape", "x=1x3x48x320"]) == 0
    assert "chosen" not in capsys.readouterr().out


def test_a_run_decides_where_inference_cannot_tell() -> None:
    proto = model(
        """(float[n,t] x) => (float[a,b] y) {
            s = Shape (x)
            half = Div (s, two)
            wide = Slice (half, one, two)
            same = Equal (wide, wanted)
            holds = Squeeze (same)
            y = If (holds) <
                then_branch = good () => (float[a,b] p) { p = MatMul (x, w) },
                else_branch = bad () => (float[a,b] q) { e = MatMul (x, w)\n q = Reshape (e, never) }
            >
        }""",
        {"w": (512, 4)},
        one=[1],
        two=[2],
        wanted=[256],
        never=[7, 11],
    )
    # The matrix stands inside the branches, where no demand is seen from outside.
    assert Analysis(load(proto)).input_shapes == {"x": (1, 512)}


def test_no_size_fits() -> None:
    proto = model(
        """(float[n,3,h,w] x) => (float[a,b,c,d] y) {
            f = Conv (x, first)
            r = Reshape (f, to)
            y = Conv (r, last)
        }""",
        {"first": (8, 3, 1, 1), "last": (4, 8, 1, 1)},
        to=[1, 9, 7, 13],
    )
    with pytest.raises(UsageError, match=r"none of the sizes .* the open dimensions of 'x': .*Reshape"):
        Analysis(load(proto))


@pytest.mark.parametrize(
    ("text", "weights", "shape", "rank"),
    [
        pytest.param("y = Conv (x, w)", {"w": (8, 5, 1, 1)}, (1, 5, 224, 224), 4, id="convolution"),
        pytest.param("y = Conv <group = 5> (x, w)", {"w": (10, 1, 1, 1)}, (1, 5, 224, 224), 4, id="depthwise"),
        pytest.param("y = ConvTranspose (x, w)", {"w": (5, 8, 1, 1)}, (1, 5, 224, 224), 4, id="transposed"),
        pytest.param("y = MatMul (x, w)", {"w": (9, 8)}, (1, 16, 9), 3, id="product"),
        pytest.param("t = Transpose (w)\n y = MatMul (x, t)", {"w": (8, 9)}, (1, 16, 9), 3, id="transposed-weight"),
        pytest.param("y = Gemm <transB = 1> (x, w)", {"w": (8, 9)}, (1, 9), 2, id="gemm"),
        pytest.param(
            "y = LSTM <hidden_size = 2> (x, w, r)", {"w": (1, 8, 9), "r": (1, 8, 2)}, (1, 16, 9), 3, id="lstm"
        ),
        pytest.param(
            "t = Transpose <perm = [0, 3, 1, 2]> (x)\n y = Conv (t, w)",
            {"w": (8, 3, 1, 1)},
            (1, 224, 224, 3),
            4,
            id="nhwc",
        ),
        pytest.param(
            "s = Sub (x, mean)\n r = Relu (s)\n y = Conv (r, w)",
            {"w": (8, 3, 1, 1), "mean": (1, 3, 1, 1)},
            (1, 3, 224, 224),
            4,
            id="normalised",
        ),
        pytest.param(
            "p = Add (x, table)\n y = MatMul (p, w)", {"table": (1, 50, 9), "w": (9, 4)}, (1, 50, 9), 3, id="positions"
        ),
    ],
)
def test_channels_are_those_that_weights_read(
    text: str, weights: dict[str, tuple[int, ...]], shape: tuple[int, ...], rank: int
) -> None:
    names = ",".join("abcd"[:rank])
    proto = model(f"(float[{names}] x) => (float[] y) {{ {text} }}", weights)
    view = Graph(proto)
    assert input_shapes(view)["x"] == shape
    demanded = [axis for axis, size in enumerate(shape) if size in (3, 5, 9, 50)]
    second = input_shapes(view, other=True)["x"]
    assert [axis for axis in range(rank) if second[axis] == shape[axis]] == demanded
