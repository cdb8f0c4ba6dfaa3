# SPDX-License-Identifier: Apache-2.0
"""Networks that compute no numbers, and inputs that are no tensors: said as what they are, and no internal error."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Outcome

    Command = Callable[..., Outcome]

EXAMPLES = Path(__file__).parents[2] / "examples"


def damaged(path: Path, which: str) -> Path:
    """Write the example with statistics or weights that no data has."""
    proto = onnx.load(EXAMPLES / "digits.onnx")
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if (which == "variance" and tensor.name.endswith("running_var")) or (
            which == "huge" and tensor.name.endswith(("stem.0.weight", "running_mean"))
        ):
            values[...] = -1 if which == "variance" else 3e38
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize("which", ["variance", "huge"])
def test_networks_that_give_no_numbers_are_said_to(tmp_path: Path, which: str) -> None:
    """In processes of their own: numpy warns of means of what is not finite, which is an error in the tests' own."""
    path, data = damaged(tmp_path / "net.onnx", which), EXAMPLES / "digits_test.npz"

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "graphprune", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    judged = run("eval", path, "--data", data)
    assert judged.returncode == 0 and re.search(r"top-1 +0\.00 %", judged.stdout), judged.stdout + judged.stderr
    for samples in ((), ("--calib", data)):
        done = run("solve", path, "--flops", "0.5", "--force", *samples)
        assert done.returncode == 0, done.stderr
        said = " ".join(done.stdout.split())
        assert "not proven" in said and "the original gives values that are not finite" in said
    compared = run("compare", path, "--flops", "0.5", "--calib", data, "--solver", "sensitivity")
    assert compared.returncode == 2 and "values that are not finite on these samples" in compared.stderr


def test_an_input_that_is_no_tensor_is_named(graphprune: Command, tmp_path: Path) -> None:
    proto = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        net (float[1,3] unused) => (float[1,2] y) {
            x = SequenceAt (parts, zero) h = MatMul (x, first) y = MatMul (h, last)
        }"""
    )
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [1, 3]))
    proto.graph.input[0].CopyFrom(helper.make_value_info("parts", kind))
    weights = {"first": np.ones((3, 8), np.float32), "last": np.ones((8, 2), np.float32), "zero": np.array(0)}
    proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    onnx.save(proto, tmp_path / "net.onnx")
    done = graphprune("solve", tmp_path / "net.onnx", "--flops", "0.5", "--quick")
    assert done.code == 2 and "input 'parts' is no tensor" in done.err
