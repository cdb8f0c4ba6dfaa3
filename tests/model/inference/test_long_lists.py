# SPDX-License-Identifier: Apache-2.0
"""Lists whose length is computed: onnx would hand on millions of numbers, and did, gibibytes of them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, parser, shape_inference
from tiny_models import chain

from graphprune.model.inference import whole_inference
from graphprune.model.inference.long_lists import nodes_with_long_lists

FOLLOWED = ("Add", "Cast", "Concat", "Gather", "Slice", "Squeeze", "Unsqueeze")
NUMBERS = {"thousand": [1000], "sixty": [60], "one": [1], "zero": [0], "less": [-1], "end": [2**62]}


def _grown(text: str) -> ModelProto:
    """Return a graph with some more nodes, of which onnx has not seen any yet."""
    scalars = {"none": np.int64(0), "single": np.int64(1), "kilo": np.int64(1000)}
    proto = chain("m = Relu (h)", {}, **NUMBERS, **scalars)
    proto.graph.node.extend(parser.parse_graph(f"tiny (float[1,8,6,6] h) => (float[n] z) {{ {text} }}").node)
    return proto


def _again(operator: str, times: int) -> str:
    """Return nodes one behind the other, from `c0` on."""
    return "\n".join(f"c{at + 1} = {operator.replace('?', f'c{at}')}" for at in range(times))


MILLION = "n = Mul (thousand, thousand)\n"
# What is made, how many further nodes read it, and how many of all these onnx may follow number by number.
COMPUTED = {
    "filled": (MILLION + "c0 = ConstantOfShape (n)", "Cast <to = 1> (?)", 0),
    "of a size": ("s = Shape (h)\n e = Gather <axis = 0> (s, one)\n t = Mul (e, thousand)\n n = Mul (t, thousand)\n"
                  "c0 = ConstantOfShape (n)", "Add (?, ?)", 1),
    "expanded": (MILLION + "c0 = Expand (one, n)", "Slice (?, zero, end)", 0),
    "reshaped": (MILLION + "p = Concat <axis = 0> (n, one)\n l = ConstantOfShape (p)\n"
                 "c0 = Reshape (l, less)", "Cast <to = 1> (?)", 1),
    "squeezed": (MILLION + "p = Concat <axis = 0> (n, one)\n l = ConstantOfShape (p)\n c0 = Squeeze (l, one)",
                 "Cast <to = 1> (?)", 1),
    "resized": (MILLION + "f = Cast <to = 1> (one)\n c0 = Resize (f, , , n)", "Cast <to = 1> (?)", 1),
    "passed on": (MILLION + "l = ConstantOfShape (n)\n c0 = Relu (l)", "Cast <to = 7> (?)", 0),
    "size of a size": (MILLION + "l = ConstantOfShape (n)\n s = Shape (l)\n c0 = ConstantOfShape (s)",
                       "Add (?, ?)", 0),
    "an outer sum": ("n = Mul (sixty, sixty)\n i = Concat <axis = 0> (n, one)\n j = Concat <axis = 0> (one, n)\n"
                     "a = ConstantOfShape (i)\n b = ConstantOfShape (j)\n g = Equal (a, b)\n c0 = Reshape (g, less)",
                     "Cast <to = 7> (?)", 2),
    "doubled": ("n = Mul (sixty, thousand)\n c0 = ConstantOfShape (n)", "Concat <axis = 0> (?, ?)", 0),
    "many of middling length": ("n = Mul (sixty, thousand)\n c0 = ConstantOfShape (n)", "Cast <to = 7> (?)", 17),
}  # fmt: skip


@pytest.mark.parametrize("case", COMPUTED)
def test_lists_of_computed_lengths_are_not_followed(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, read, allowed = COMPUTED[case]
    proto = _grown(f"{made}\n{_again(read, 20)}" if allowed < 17 else f"{made}\n{_again(read, 200)}")
    inferred, followed = shape_inference.infer_shapes, list[int]()

    def watched(bare: ModelProto, **options: bool) -> ModelProto:
        if options["data_prop"]:
            followed.append(sum(node.op_type in FOLLOWED and not node.domain for node in bare.graph.node))
            if followed[-1] > allowed:
                return bare
        return inferred(bare, **options)

    monkeypatch.setattr(whole_inference.shape_inference, "infer_shapes", watched)
    whole_inference.infer_whole(proto)
    assert followed and max(followed) <= allowed


ORDINARY = {
    "rows of a map": "s = Shape (h)\n b = Slice (s, zero, one)\n t = Concat <axis = 0> (b, less)\n r = Reshape (h, t)\n"
    "u = Shape (r)\n z = Cast <to = 7> (u)",
    "positions": "s = Shape (h)\n n = Gather <axis = 0> (s, none)\n l = Range (none, n, single)\n"
    "i = Cast <to = 7> (l)\n z = Unsqueeze (i, zero)",
    "a mask": "n = Mul (sixty, sixty)\n l = ConstantOfShape (n)\n z = Cast <to = 7> (l)",
    "places that are found": "f = NonZero (h)\n p = Squeeze (f, zero)\n z = Cast <to = 1> (p)",
}


@pytest.mark.parametrize("case", ORDINARY)
def test_what_networks_ask_of_their_sizes_is_followed(case: str) -> None:
    proto = _grown(ORDINARY[case])
    whole = shape_inference.infer_shapes(proto, data_prop=False)
    assert not nodes_with_long_lists(proto, whole)


def test_what_bounds_leave_open_is_found_out() -> None:
    """No bound knows that a difference of sizes is small."""
    proto = _grown(MILLION + "d = Sub (n, n)\n k = Add (d, sixty)\n l = ConstantOfShape (k)\n z = Cast <to = 7> (l)")
    whole, refusal = whole_inference.infer_whole(proto)
    (shape,) = (value.type.tensor_type.shape for value in whole.graph.value_info if value.name == "z")
    assert not refusal
    assert [dim.dim_value for dim in shape.dim] == [60]


def test_windows_are_settled_once_however_often_lists_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fits with some nodes left out fits with fewer of them left out."""
    text = "g = MaxPool <kernel_shape = [3, 3]> (h)\n c = Slice (g, zero, end)\n"
    text += MILLION + "d = Sub (n, n)\n k = Add (d, sixty)\n l = ConstantOfShape (k)\n z = Cast <to = 7> (l)"
    settled: list[int] = []
    is_fine = whole_inference._is_fine

    def watched(*given: object) -> bool:
        fine = is_fine(*given)  # type: ignore[arg-type]  # whatever it is given
        settled.append(fine)
        return fine

    monkeypatch.setattr(whole_inference, "_is_fine", watched)
    whole_inference.infer_whole(_grown(text))
    assert settled == [True]
