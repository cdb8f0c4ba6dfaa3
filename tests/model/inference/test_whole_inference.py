# SPDX-License-Identifier: Apache-2.0
"""Sizes that cannot be: windows that are larger than what they slide over, in front of a Slice.

onnx's inference ends the process there, so each of these tests ended the whole run before.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from onnx import ModelProto, parser
from tiny_models import chain, model

from graphprune import api
from graphprune.errors import ModelFileError, UsageError
from graphprune.model.inference import whole_inference

SLICE = "m = Slice (g, start, end, axes)"
BOUNDS = {"start": [0], "end": [2], "axes": [2]}
TOO_LARGE = {
    "convolution": (f"g = Conv (h, w)\n {SLICE}", {"w": (8, 8, 9, 1)}, {}),
    "dilated": (f"g = Conv <dilations = [5, 1]> (h, w)\n {SLICE}", {"w": (8, 8, 3, 1)}, {}),
    "maximum": (f"g = MaxPool <kernel_shape = [9, 1]> (h)\n {SLICE}", {}, {}),
    "average": (f"g = AveragePool <kernel_shape = [1, 9]> (h)\n {SLICE}", {}, {}),
    "further on": (f"c = MaxPool <kernel_shape = [9, 1]> (h)\n g = Relu (c)\n {SLICE}", {}, {}),
    "padded by less than nothing": (f"g = Pad (h, less)\n {SLICE}", {}, {"less": [0, 0, -5, 0, 0, 0, -5, 0]}),
    "transposed": (f"g = ConvTranspose <pads = [9, 0, 9, 0]> (h, w)\n {SLICE}", {"w": (8, 8, 1, 1)}, {}),
    "behind a slice": (
        "c = Slice (h, start, end, axes)\n d = Conv (c, w)\n m = Slice (d, start, end, axes)",
        {"w": (8, 8, 4, 1)},
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TOO_LARGE)
def test_a_window_that_does_not_fit_is_refused(case: str) -> None:
    text, weights, constants = TOO_LARGE[case]
    proto = chain("m = Relu (h)", weights, **BOUNDS, **constants)
    proto.graph.node.pop(1)
    lines = chain_nodes(text)
    last = proto.graph.node.pop()
    proto.graph.node.extend([*lines, last])
    with pytest.raises(ModelFileError, match=r"would have the shape \[.*-\d"):
        api.analyze(api.load(proto))


def chain_nodes(text: str) -> list[object]:
    """Return nodes in textual syntax; inference must not see them yet."""
    from onnx import parser

    graph = parser.parse_graph(f"g (float[2,8,6,6] h) => (float[a,b,c,d] m) {{ {text} }}")
    return list(graph.node)


FITS = {
    "convolution": ("g = Conv (h, w)\n m = Slice (g, start, end, axes)", {"w": (8, 8, 5, 1)}),
    "slices and windows in turn": (
        """a = MaxPool <kernel_shape = [2, 1]> (h)
        b = Slice (a, start, four, axes)
        c = MaxPool <kernel_shape = [2, 1]> (b)
        d = Slice (c, start, end, axes)
        e = MaxPool <kernel_shape = [2, 1]> (d)
        m = Slice (e, start, end, axes)""",
        {},
    ),
}


@pytest.mark.parametrize("case", FITS)
def test_what_fits_is_inferred_to_its_end(case: str) -> None:
    text, weights = FITS[case]
    analysis = api.analyze(api.load(chain(text, weights, four=[4], **BOUNDS)))
    assert min(analysis.shapes.dims["m"]) > 0
    assert [group.size for group in analysis.groups][:1] == [8]


def test_open_sizes_that_are_too_small_are_no_end_of_the_process() -> None:
    proto = model(
        """(float[1,3,n] x) => (float[a,b,c] y) {
            h = Conv (x, first)
            s = Slice (h, start, end, axes)
            y = Conv (s, last)
        }""",
        {"first": (8, 3, 5), "last": (2, 8, 1)},
        **BOUNDS,
    )
    with pytest.raises(UsageError, match=r"would have the shape \[1, 8, -1\]"):
        api.analyze(api.load(proto), api.AnalyzeOptions({"x": (1, 3, 3)}))
    assert api.analyze(api.load(proto)).groups


@pytest.mark.parametrize(
    ("text", "weights", "often"),
    [
        ("g = Conv <pads = [1, 1, 1, 1]> (h, w)\n m = Slice (g, start, end, axes)", {"w": (8, 8, 3, 3)}, 0),
        ("g = Conv (h, w)\n m = Relu (g)", {"w": (8, 8, 3, 3)}, 0),
        ("g = Conv (h, w)\n m = Slice (g, start, end, axes)", {"w": (8, 8, 3, 3)}, 1),
    ],
    ids=["padded", "no-slice", "in-doubt"],
)
def test_only_what_is_in_doubt_is_inferred_in_steps(
    monkeypatch: pytest.MonkeyPatch, text: str, weights: Mapping[str, tuple[int, ...]], often: int
) -> None:
    steps: list[object] = []
    leniently = whole_inference._leniently

    def counted(bare: ModelProto, *, data: bool = True) -> ModelProto:
        if data:  # that without them says which lists are long
            steps.append(bare)
        return leniently(bare, data=data)

    proto = chain(text, weights, **BOUNDS)
    monkeypatch.setattr(whole_inference, "_leniently", counted)
    api.analyze(api.load(proto))
    assert len(steps) == often


def _doubled(times: int) -> str:
    return "\n".join(f"d{number + 1} = Concat <axis = 0> (d{number}, d{number})" for number in range(times))


# What is made, and how many of the nodes that read or double it onnx may follow number by number.
LONG = {
    "range": ("l = Range (none, many, one)\n c = Cast <to = 1> (l)", 0),
    "window": ("l = HannWindow (many)\n c = Add (l, l)", 0),
    "one number": ("l = ConstantOfShape (length)\n c = Add (l, l)", 0),
    "expanded": ("l = Expand (sizes, length)\n c = Cast <to = 1> (l)", 0),
    "repeated": ("l = Tile (sizes, length)\n c = Concat <axis = 0> (l, l)", 0),
    "doubled": (f"d0 = Shape (h)\n{_doubled(30)}\n c = Cast <to = 1> (d30)", 15),
    "stored and doubled": (f"d0 = Identity (sizes)\n{_doubled(30)}\n c = Cast <to = 1> (d30)", 17),
    "short": ("l = Range (none, few, one)\n c = Cast <to = 1> (l)", 1),
}


@pytest.mark.parametrize("case", LONG)
def test_lists_that_nobody_could_hold_are_not_followed(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inference itself took a hundred bytes for each number and node, gibibytes in all, before any limit."""
    text, allowed = LONG[case]
    followed: list[int] = []

    def watched(bare: ModelProto, **options: bool) -> ModelProto:
        if not options["data_prop"]:
            return inferred(bare, **options)
        followed.append(sum(node.op_type in ("Add", "Cast", "Concat") and not node.domain for node in bare.graph.node))
        return short if followed[-1] > allowed else inferred(bare, **options)

    inferred = whole_inference.shape_inference.infer_shapes
    monkeypatch.setattr(whole_inference.shape_inference, "infer_shapes", watched)
    numbers = {"none": 0, "many": 10**9, "few": 9, "one": 1}
    constants = {name: np.int64(value) for name, value in numbers.items()}
    short = chain("m = Relu (h)", {}, length=[100_000], sizes=[3], **constants)
    proto = ModelProto.FromString(short.SerializeToString())
    proto.graph.node.extend(parser.parse_graph(f"tiny (float[1,8,6,6] h) => (float[n] c) {{ {text} }}").node)
    whole_inference.infer_whole(proto)
    assert followed and max(followed) <= allowed


def test_long_sound_is_pruned_as_short_sound_is() -> None:
    """A long list is a sample like any other: only what it holds is not followed."""

    def sound(length: int) -> ModelProto:
        return model(
            f"""(float[{length}] x) => (float[] y) {{
                shifted = Add (x, shift)
                row = Unsqueeze (shifted, zero)
                plane = Unsqueeze (row, zero)
                a = Conv <strides = [16]> (plane, first)
                b = Relu (a)
                y = Conv (b, last)
            }}""",
            {"first": (8, 1, 16), "last": (2, 8, 1), "shift": (1,)},
            zero=[0],
        )

    short, long = (api.analyze(api.load(sound(length))) for length in (1_600, 160_000))
    assert [(group.name, group.size) for group in long.groups] == [("a", 8)]
    assert [(group.name, group.size) for group in short.groups] == [("a", 8)]
    assert long.cost.flops(long.cost.sizes) == 100 * short.cost.flops(short.cost.sizes)
