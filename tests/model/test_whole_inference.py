# SPDX-License-Identifier: Apache-2.0
"""Sizes that cannot be: windows that are larger than what they slide over, in front of a Slice.

onnx's inference ends the process there, so each of these tests ended the whole run before.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from onnx import GraphProto, ModelProto, parser
from tiny_models import chain, model

from graphprune import api
from graphprune.errors import ModelFileError, UsageError
from graphprune.model import whole_inference

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

    def counted(bare: object) -> object:
        steps.append(bare)
        return leniently(bare)  # type: ignore[arg-type]

    proto = chain(text, weights, **BOUNDS)
    monkeypatch.setattr(whole_inference, "_leniently", counted)
    api.analyze(api.load(proto))
    assert len(steps) == often


def _doubled(times: int) -> str:
    return "\n".join(f"d{number + 1} = Concat <axis = 0> (d{number}, d{number})" for number in range(times))


LONG = {
    "range": "c = Range (none, many, one)",
    "doubled": f"d0 = Shape (h)\n{_doubled(30)}\n c = Cast <to = 1> (d30)",
    "stored and doubled": f"d0 = Identity (sizes)\n{_doubled(30)}\n c = Cast <to = 1> (d30)",
}


@pytest.mark.parametrize("case", LONG)
def test_lists_that_nobody_could_hold_are_not_made(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gibibytes were taken by inference itself, before any limit."""
    seen: list[int] = []

    def watched(bare: ModelProto, **options: object) -> ModelProto:
        alone = [node for node in bare.graph.node if node.op_type in ("Range", "Concat") and not node.domain]
        seen.append(len(alone))
        return inferred(bare, **options)

    inferred = whole_inference.shape_inference.infer_shapes
    monkeypatch.setattr(whole_inference.shape_inference, "infer_shapes", watched)
    constants = {"none": np.int64(0), "many": np.int64(10**11), "one": np.int64(1), "sizes": [1, 2, 3, 4]}
    proto = chain("m = Relu (h)", {}, **constants)
    extra = parser.parse_graph(f"tiny (float[1,8,6,6] h) => (float[n] c) {{ {LONG[case]} }}")
    whole_inference.infer_whole(_with(proto, extra))
    assert max(seen) <= 15  # of thirty doublings, those whose lists are short


def _with(proto: ModelProto, extra: GraphProto) -> ModelProto:
    proto.graph.node.extend(extra.node)
    return proto
