# SPDX-License-Identifier: Apache-2.0
"""`graphprune deploy` through the command line."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import TYPE_CHECKING

import onnx
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

    Command = Callable[..., Outcome]


@pytest.fixture
def pruned(quick: Command, model: Path) -> str:
    assert quick("solve", model, "--quick", "--flops", "0.5").code == 0
    return "net.pruned.onnx"


def test_the_table_says_what_every_runtime_makes_of_it(quick: Command, model: Path, pruned: str) -> None:
    names = "onnxruntime,opencv" if find_spec("cv2") else "onnxruntime"
    done = quick("deploy", pruned, "--original", model, "--check", names, "--no-timing")
    assert done.code == 0, done.err
    for name in names.split(","):
        (row,) = [line.split() for line in done.out.splitlines() if line.strip().startswith(name)]
        assert row.count("ok") == 2, row
    assert "fed" in done.out and "2 random inputs: image 1x3x12x12" in done.out
    done = quick("deploy", pruned, "--check", "onnxruntime", "--json", "--input-shape", "image=3x3x12x12")
    facts = json.loads(done.out)
    assert done.code == 0 and facts["inputs"] == {"image": [3, 3, 12, 12]} and facts["worse"] == []
    assert [(entry["runtime"], entry["pruned"]["status"]) for entry in facts["runtimes"]] == [("onnxruntime", "ok")]


def test_without_the_original_the_next_command_names_it(quick: Command, pruned: str) -> None:
    done = quick("deploy", pruned, "--check", "onnxruntime")
    assert done.code == 0 and done.out.splitlines()[-1] == f"next       graphprune deploy {pruned} --original MODEL"


@pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO has no package for this Python")
def test_a_converted_network_is_written(quick: Command, model: Path, pruned: str) -> None:
    done = quick("deploy", pruned, "--to", "openvino", "out")
    assert done.code == 0, done.err
    assert sorted(path.name for path in model.with_name("out").iterdir()) == ["model.bin", "model.xml"]
    again = quick("deploy", pruned, "--to", "openvino", "out")
    assert again.code == 2 and "no empty folder" in again.err


@pytest.mark.skipif(find_spec("cv2") is None, reason="OpenCV has no package for this Python")
def test_a_network_that_a_runtime_alone_does_not_take_is_an_error(quick: Command, model: Path, pruned: str) -> None:
    spoilt = onnx.load(model.with_name(pruned))
    output = spoilt.graph.output[0].name
    spoilt.graph.node[-1].output[0] = "before"
    odd = onnx.helper.make_node("QuickGelu", ["before"], [output], domain="com.microsoft")  # OpenCV has none
    spoilt.graph.node.append(odd)
    spoilt.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(spoilt, model.with_name("spoilt.onnx"))
    done = quick("deploy", "spoilt.onnx", "--original", model, "--check", "opencv", "--no-timing")
    assert done.code == 1, (done.out, done.err)
    assert "the original works in opencv, and the pruned network does not" in done.err


def test_wrong_usage_is_refused(quick: Command, pruned: str) -> None:
    for options, said in (
        (("--check", "openvin"), "unknown runtime 'openvin'"),
        (("--check", ","), "names no runtime"),
        (("--to", "onnxruntime", "out"), "nothing to convert"),
        (("--tolerance", "0"), "larger than 0"),
        (("--original", "nothing.onnx", "--check", "onnxruntime"), "nothing.onnx"),
    ):
        done = quick("deploy", pruned, *options)
        assert done.code == 2 and said in done.err, (options, done.err)
