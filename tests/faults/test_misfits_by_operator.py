# SPDX-License-Identifier: Apache-2.0
"""Operands that onnxruntime does not take, operator by operator: refused with node, input and both numbers.

Beside them what looks as wrong and is legal, which nothing is said of.
"""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from misfit_cases import CASES
from onnx import numpy_helper

from graphprune import api
from graphprune.errors import ModelFileError
from graphprune.model.graph import Graph
from graphprune.model.misfits.operands import misfit
from graphprune.model.sizes.inputs import input_shapes
from graphprune.model.values.shapes import infer

WRONG = [name for name, (_, said) in CASES.items() if said]
LEGAL = [name for name in CASES if name not in WRONG]


def _said_by_onnxruntime(proto: onnx.ModelProto) -> str:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        session.run(None, {each.name: np.ones(each.shape, np.float32) for each in session.get_inputs()})
    except Exception as error:  # onnxruntime raises what it likes
        return str(error)
    return ""


def _said_before_a_run(proto: onnx.ModelProto) -> str | None:
    graph = Graph(proto)
    return misfit(graph, infer(graph, numpy_helper.to_array, input_shapes(graph)))


@pytest.mark.parametrize("name", WRONG)
def test_what_onnxruntime_does_not_take_is_named_with_its_numbers(name: str) -> None:
    proto, said = CASES[name]
    assert _said_by_onnxruntime(proto)
    assert re.search(said, _said_before_a_run(proto) or "")


@pytest.mark.parametrize("name", LEGAL)
def test_what_onnxruntime_takes_is_not_objected_to(name: str) -> None:
    proto, _ = CASES[name]
    assert not _said_by_onnxruntime(proto)
    assert _said_before_a_run(proto) is None


@pytest.mark.parametrize("name", ["gather", "layer", "groups", "scales", "heads"])
def test_what_is_named_is_refused(name: str) -> None:
    proto, said = CASES[name]
    with pytest.raises(ModelFileError, match=said) as refused:
        api.analyze(api.load(proto))
    assert refused.value.hint
