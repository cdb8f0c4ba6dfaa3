# SPDX-License-Identifier: Apache-2.0
"""Tiny models, written in ONNX's textual syntax, with random weights of given shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, numpy_helper, parser, shape_inference

from graphprune.array_types import Array

__all__ = ["chain", "model"]


def model(
    text: str,
    weights: Mapping[str, tuple[int, ...]] | None = None,
    *,
    opset: int = 17,
    ir: int = 8,
    domains: str = "",
    **constants: Any,
) -> ModelProto:
    """Parse a model.

    Parameters
    ----------
    text : str
        Graph in textual syntax, without a name: ``"(float[1,3] x) => (float[] y) { y = Relu(x) }"``.
    weights : mapping of str to tuple of int, optional
        Shapes of float initializers, filled with random values; those whose name starts with ``var`` are positive.
    domains : str
        Further operator sets: ``', "com.example": 1'``.
    constants : list of int or ndarray
        Other initializers: lists become int64.
    """
    proto = parser.parse_model(f'<ir_version: {ir}, opset_import: ["": {opset}{domains}]> tiny {text}')
    random = np.random.default_rng(7)
    arrays: dict[str, Array] = {}
    for name, shape in (weights or {}).items():
        value = random.standard_normal(shape).astype(np.float32)
        arrays[name] = np.abs(value) + np.float32(0.5) if name.startswith("var") else value
    for name, value in constants.items():
        arrays[name] = (
            np.asarray(value) if isinstance(value, np.ndarray | np.generic) else np.asarray(value, dtype=np.int64)
        )
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    # The checker wants a shape on every output: where the text says "float[] y", inference finds it.
    inferred = shape_inference.infer_shapes(proto, data_prop=True)
    for own, found in zip(proto.graph.output, inferred.graph.output, strict=True):
        own.CopyFrom(found)
    return proto


def chain(
    middle: str,
    weights: Mapping[str, tuple[int, ...]] | None = None,
    *,
    width: int = 8,
    after: int | None = None,
    spatial: Sequence[int] = (6, 6),
    opset: int = 17,
    domains: str = "",
    **constants: Any,
) -> ModelProto:
    """Put nodes that make `m` of `h` between two 1x1 convolutions, so that the channels of `h` are free.

    Parameters
    ----------
    middle : str
        Nodes in textual syntax.
    width, after : int
        Channels of `h`, and of `m` (the same where not given).
    """
    size = ",".join(str(each) for each in spatial)
    ones = (1,) * len(spatial)
    shapes = {"first": (width, 3, *ones), "last": (2, after or width, *ones), **(weights or {})}
    # Inference does not get through every operator, and the checker wants the rank of the output.
    open_size = ",".join(f"d{axis}" for axis in range(len(spatial) + 2))
    text = f"""(float[2,3,{size}] x) => (float[{open_size}] y) {{
        h = Conv (x, first)
        {middle}
        y = Conv (m, last)
    }}"""
    return model(text, shapes, opset=opset, domains=domains, **constants)
