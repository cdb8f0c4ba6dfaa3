# SPDX-License-Identifier: Apache-2.0
"""`graphprune deploy` through the command line."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from made_up_runtimes import offer_runtimes

from graphprune.export.runtime import RUNTIMES

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


# Runtimes of another package: one takes floats alone, one is not there, and the third cannot be loaded.
TOYS = """
from graphprune.export.runtime import Runtime
from graphprune.export.runtimes.onnxruntime import open_with

class Floats(Runtime):
    refused = frozenset({"int8"})
    def open(self, path, signature):
        if b"QuantizeLinear" in path.read_bytes():
            raise ValueError("no layer QuantizeLinear in this runtime, and a reason " + "that is long " * 12 + "END")
        return open_with(path, signature, ["CPUExecutionProvider"])

class Claims(Floats):
    refused = frozenset()

class Elsewhere(Floats):
    modules = ("no_such_module",)
"""


@pytest.fixture
def quantised(quick: Command, model: Path, pruned: str, monkeypatch: pytest.MonkeyPatch) -> str:
    offer_runtimes(model.parent, monkeypatch, TOYS, ("Floats", "Claims", "Elsewhere", "Broken"))
    rng = np.random.default_rng(0)
    np.save(model.with_name("samples.npy"), rng.normal(0, 1, (32, 3, 12, 12)).astype(np.float32))
    done = quick("quantize", pruned, "--calib", "samples.npy", "--limit", "1")
    assert done.code == 0, done.err
    return "net.pruned.int8.onnx"


def only_toys(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let nothing be known but onnxruntime and these."""
    monkeypatch.setattr(RUNTIMES, "names", lambda: ("onnxruntime", *names))


def test_what_quantising_made_is_not_blamed_on_pruning(
    quick: Command, pruned: str, quantised: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_toys(monkeypatch, "floats")
    done = quick("deploy", quantised, "--original", pruned, "--no-timing")  # what `quantize` says is next
    assert done.code == 0, done.err
    assert "note       floats takes no ONNX files in 8 bits, pruned or not: give the float network there" in done.out
    assert "that is long END" in " ".join(done.out.split())  # reasons are not cut
    named = quick("deploy", quantised, "--original", pruned, "--no-timing", "--check", "floats")
    assert named.code == 1 and "works in floats, and the network in 8 bits does not" in named.err
    assert "give the float network there" in named.err and "verify" not in named.err
    other = quick("deploy", quantised, "--original", pruned, "--no-timing", "--check", "claims")
    assert other.code == 1 and "`graphprune deploy` says of the float network" in other.err
    facts = json.loads(quick("deploy", quantised, "--original", pruned, "--no-timing", "--json").out)
    assert (facts["lowered"], facts["worse"], facts["without_format"]) == ("int8", ["floats"], ["floats"])


def test_what_is_not_installed_is_a_row_with_how_to_get_it(
    quick: Command, pruned: str, quantised: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert quantised
    only_toys(monkeypatch, "elsewhere")
    done = quick("deploy", pruned, "--no-timing")
    assert (done.code, done.out.count("not installed"), "no_such_module" in done.out) == (0, 1, True), done.err
    done = quick("deploy", pruned, "--no-timing", "--check", "onnxruntime,elsewhere")
    assert (done.code, "not installed" in done.out, "so not tried: elsewhere" in done.err) == (1, True, True)
    facts = json.loads(quick("deploy", pruned, "--no-timing", "--json").out)
    assert [entry["missing"] for entry in facts["runtimes"]] == ["", "no_such_module"]


def test_a_runtime_of_another_package_that_is_broken_is_a_row(
    quick: Command, pruned: str, quantised: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert quantised
    only_toys(monkeypatch, "broken")
    done = quick("deploy", pruned, "--no-timing")
    assert done.code == 0, done.err
    assert "does not load" in done.out and "cannot be loaded" in done.out


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
