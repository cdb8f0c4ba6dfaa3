# SPDX-License-Identifier: Apache-2.0
"""Random networks with open batches and lengths, in which symbolic products are declared, as exporters do."""

from __future__ import annotations

from dataclasses import dataclass

import hypothesis.strategies as st
import numpy as np
from fast_oracle import Arrays, run
from onnx import ModelProto, TensorProto, helper
from random_drafts import Draw
from random_models import Case, models
from random_transformers import transformers
from tiny_models import model

__all__ = ["Opened", "feeds_of", "open_networks", "opened"]

SYMBOLS = ("N", "L")
STAGE = """
    q{n} = Conv ({x}, wq{n})
    r{n} = Reshape (q{n}, folded{n})
    s{n} = {inner} (r{n})
    t{n} = Mul (s{n}, r{n})
    b{n} = Reshape (t{n}, back{n})
    x{n} = Conv (b{n}, wo{n})
"""


@dataclass(frozen=True)
class Opened:
    """A network some of whose input sizes are declared open, whether it takes others or not.

    Attributes
    ----------
    sizes : tuple of dict of str to tuple of int
        Sizes of the inputs: those that it was made for, then others.
    """

    proto: ModelProto
    sizes: tuple[dict[str, tuple[int, ...]], ...]


@st.composite
def opened(draw: Draw, family: st.SearchStrategy[Case]) -> Opened:
    """Open some axes of the inputs of a network: each on its own, or those of equal size together."""
    proto = ModelProto()
    proto.CopyFrom(draw(family).proto)
    stored = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in stored]
    shapes = {value.name: [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim] for value in inputs}
    places = [(value, axis) for value in inputs for axis in range(len(shapes[value.name]))]
    chosen = draw(st.sets(st.sampled_from(range(len(places))), min_size=1))
    shared = draw(st.booleans())
    steps = draw(st.lists(st.sampled_from((1, 2, 3)), min_size=len(places), max_size=len(places)))
    others = {name: list(shape) for name, shape in shapes.items()}
    for number in sorted(chosen):
        value, axis = places[number]
        size = shapes[value.name][axis]
        key = f"S{size}" if shared else f"D{number}"
        value.type.tensor_type.shape.dim[axis].dim_param = key
        others[value.name][axis] = size + (steps[size % len(steps)] if shared else steps[number])
    for value in proto.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    del proto.graph.value_info[:]
    return Opened(proto, tuple({name: tuple(shape) for name, shape in each.items()} for each in (shapes, others)))


@st.composite
def open_networks(draw: Draw) -> Case:
    """Draw a network with at least one open dimension and with declared shapes: heads in the batch, or any other."""
    case: Case = draw(st.one_of(_folded(), models().filter(_is_open), transformers().filter(_is_open)))
    return Case(_declared(case.proto), dynamic=True)


def _is_open(case: Case) -> bool:
    return case.dynamic


@st.composite
def _folded(draw: Draw) -> Case:
    """Draw stages with heads that are folded into the batch axis, each with heads of its own number and width."""
    count = draw(st.integers(1, 3))
    opened = draw(st.sampled_from((("N",), ("N", "L"), ("L",))))
    dims = ", ".join((opened[0] if "N" in opened else "2", "3", "L" if "L" in opened else "5"))
    text, shapes, sizes = "", {}, {}
    for n in range(1, count + 1):
        heads, width = draw(st.integers(2, 6)), draw(st.integers(1, 3))
        inner = draw(st.sampled_from(("Relu", "Softmax <axis = -1>", "Identity")))
        text += STAGE.format(n=n, x="x" if n == 1 else f"x{n - 1}", inner=inner)
        shapes |= {f"wq{n}": (heads * width, 3, 1), f"wo{n}": (3, heads * width, 1)}
        sizes |= {f"folded{n}": [-1, width, 0], f"back{n}": [-1, heads * width, 0]}
    proto = model(f"(float[{dims}] x) => (float[{dims}] y) {{ {text} y = Relu (x{count}) }}", shapes, **sizes)
    return Case(proto, dynamic=True)


def feeds_of(proto: ModelProto, number: int) -> Arrays:
    """Draw inputs in which every open dimension has a size by its number: 1 and 4 first, then 2 and 5."""
    random = np.random.default_rng(number)
    stored = {tensor.name for tensor in proto.graph.initializer}
    feeds: Arrays = {}
    for value in proto.graph.input:
        if value.name not in stored:
            dims = value.type.tensor_type.shape.dim
            shape = [dim.dim_value or number + (4 if at else 1) for at, dim in enumerate(dims)]
            feeds[value.name] = random.standard_normal(shape).astype(np.float32)
    return feeds


def _declared(proto: ModelProto) -> ModelProto:
    """Name the open dimensions, and declare all values by what a run at two sizes shows of them."""
    result = ModelProto()
    result.CopyFrom(proto)
    for value in (*result.graph.input, *result.graph.output):
        for at, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.dim_value:
                dim.dim_param = SYMBOLS[1 if at else 0]
    seen = [run(result, feeds_of(result, number), intermediates=True) for number in (0, 1)]
    known = {value.name for value in (*result.graph.output, *result.graph.value_info)}
    for name, first in seen[0].items():
        if name not in known and first.dtype == np.float32:
            dims = [_symbol(*sizes) for sizes in zip(first.shape, seen[1][name].shape, strict=True)]
            result.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))
    return result


def _symbol(first: int, second: int) -> int | str | None:
    """Return what an exporter would declare of an axis: its size, a symbol, a product with one, or nothing."""
    if first == second:
        return first
    for symbol, size in zip(SYMBOLS, (1, 4), strict=True):
        if first % size == 0 and second == first // size * (size + 1):
            return symbol if first == size else f"{first // size}*{symbol}"
    return None
