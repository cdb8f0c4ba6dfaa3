# SPDX-License-Identifier: Apache-2.0
"""Runtimes: what they make of pruned networks, and that none of them takes graphprune down."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from made_up_runtimes import offer_runtimes
from pruning_cases import KINDS
from tiny_models import model

import graphprune
from graphprune.errors import OutputError, RequestError, UnsupportedModelError, UsageError
from graphprune.export.deploy import installed
from graphprune.export.deployment import Deployment, DeployOptions, RuntimeCheck, RuntimeOutcome, rounding_allowance
from graphprune.export.runtime import RUNTIMES, ModelSignature, make_runtime
from graphprune.export.runtimes.tflite import TfLite, _plain

MODULES = {"openvino": "openvino", "mnn": "MNN", "ncnn": "ncnn", "opencv": "cv2"}
NETWORKS = ("depthwise", "transformer")

# Runtimes of another package. They go by the folder in which the ONNX file lies: "dense" or "pruned".
TOYS = """
import os, signal, time
from graphprune.export.runtime import Runtime
from graphprune.export.runtimes.onnxruntime import open_with

class Toy(Runtime):
    def open(self, path, signature):
        return open_with(path, signature, ["CPUExecutionProvider"])

class Crashes(Toy):
    def open(self, path, signature):
        print("about to crash", flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)

class Ends(Toy):
    def convert(self, model, signature, folder):
        os._exit(3)

class Hangs(Toy):
    def open(self, path, signature):
        return lambda feeds: time.sleep(600)

class Wrong(Toy):
    def open(self, path, signature):
        run = super().open(path, signature)
        off = 1.0 if path.parent.name == "pruned" else 0.0
        return lambda feeds: [value + off for value in run(feeds)]

class Refuses(Toy):
    converts = True
    def convert(self, model, signature, folder):
        if model.parent.name == "pruned":
            raise ValueError("no kernel for three channels")
        (folder / "network.toy").write_bytes(model.read_bytes())
        return model

class Bent(Toy):
    def open(self, path, signature):
        run = super().open(path, signature)
        return lambda feeds: [value[:, :2] for value in run(feeds)]

class Elsewhere(Toy):
    modules = ("no_such_module",)
"""


def pair(kind: str = "residual") -> tuple[graphprune.Model, graphprune.Model]:
    """Return a network and what is left of it at half of its FLOPs."""
    original = graphprune.load(KINDS[kind]())
    plan = graphprune.solve(original, flops=0.5)
    return original, graphprune.apply(original, plan)


def only(deployment: Deployment) -> RuntimeCheck:
    (check,) = deployment.checks
    return check


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the other package where entry points are found, by child processes too."""
    names = ("Crashes", "Ends", "Hangs", "Wrong", "Refuses", "Bent", "Elsewhere")
    offer_runtimes(tmp_path, monkeypatch, TOYS, names)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_pruned_network_computes_the_same_in_every_runtime(kind: str) -> None:
    names = tuple(name for name, module in MODULES.items() if find_spec(module) is not None)
    if not names:
        pytest.skip("no runtime besides onnxruntime has a package for this Python")
    original, pruned = pair(kind)
    for check in graphprune.deploy(pruned, original, options=DeployOptions(names, timing=False)).checks:
        assert check.pruned is not None and check.dense is not None and check.version
        assert (check.pruned.status, check.dense.status) == ("ok", "ok"), check
        assert check.pruned.error is not None and check.pruned.error < 1e-4


def test_both_are_timed_in_turn() -> None:
    original, pruned = pair()
    check = only(graphprune.deploy(pruned, original, options=DeployOptions(("onnxruntime",))))
    assert check.timing is not None and check.timing.pairs >= 3 and check.timing.ratio > 0
    assert only(graphprune.deploy(pruned, options=DeployOptions(("onnxruntime",)))).timing is None


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize(
    ("name", "patience", "said"),
    [
        ("crashes", 300.0, "about to crash"),
        ("ends", 300.0, "status 3"),
        ("hangs", 8.0, "did not finish within 8 s"),
    ],
)
def test_a_runtime_that_crashes_ends_or_hangs_is_an_entry(name: str, patience: float, said: str) -> None:
    original, pruned = pair()
    options = DeployOptions((name, "onnxruntime"), patience=patience, timing=False)
    first, second = graphprune.deploy(pruned, original, options=options).checks
    assert first.pruned is not None and first.pruned.status == "fails"
    assert said in first.pruned.reason
    assert not first.is_worse  # the original fares no better
    assert second.pruned is not None and second.pruned.status == "ok"


@pytest.mark.usefixtures("toys")
def test_what_the_original_does_and_the_pruned_network_does_not_is_told() -> None:
    original, pruned = pair()
    deployment = graphprune.deploy(pruned, original, options=DeployOptions(("wrong", "refuses", "bent"), timing=False))
    wrong, refuses, bent = deployment.checks
    assert wrong.pruned is not None and wrong.pruned.status == "differs" and (wrong.pruned.error or 0) > 0.01
    assert refuses.pruned == RuntimeOutcome("fails", step="convert", reason="no kernel for three channels")
    assert bent.pruned is not None and bent.pruned.reason == "output 'scores' is 1x2, not 1x4"
    assert deployment.worse == ("wrong", "refuses")


@pytest.mark.usefixtures("toys")
def test_a_runtime_that_is_not_installed_is_said_to_be_missing() -> None:
    assert "elsewhere" in RUNTIMES.names() and "elsewhere" not in installed()
    assert installed()[0] == "onnxruntime"
    check = only(graphprune.deploy(pair()[1], options=DeployOptions(("elsewhere",))))
    assert check.missing == "no_such_module" and check.pruned is None


@pytest.mark.usefixtures("toys")
def test_what_a_network_is_converted_to_is_written_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    original, pruned = pair()
    options = DeployOptions(("refuses",), timing=False)
    with pytest.raises(RequestError, match="no kernel for three channels"):
        graphprune.deploy(pruned, options=options, written={"refuses": tmp_path / "out"})
    assert not (tmp_path / "out").exists()
    if find_spec("openvino") is not None:
        options = DeployOptions(("openvino",), timing=False)
        graphprune.deploy(pruned, original, options=options, written={"openvino": tmp_path / "out"})
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.bin", "model.xml"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(OutputError, match="no empty folder"):
        graphprune.deploy(pruned, written={"refuses": tmp_path / "full"})
    with pytest.raises(OutputError, match="parent"):
        graphprune.deploy(pruned, written={"refuses": tmp_path / "nowhere" / "out"})
    with pytest.raises(UsageError, match="nothing to convert"):
        graphprune.deploy(pruned, written={"onnxruntime": tmp_path / "onnx"})
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".graphprune")]


def test_samples_are_fed_where_there_are_some() -> None:
    original, pruned = pair()
    images = np.random.default_rng(0).standard_normal((5, 3, 8, 8)).astype(np.float32)
    source = graphprune.samples(original, {"image": images})
    deployment = graphprune.deploy(pruned, original, source, DeployOptions(("onnxruntime",), samples=3, timing=False))
    assert deployment.fed.startswith("3 samples of ")
    assert deployment.inputs == {"image": (1, 3, 8, 8)}


def test_what_makes_no_sense_is_refused() -> None:
    pruned = pair()[1]
    with pytest.raises(UsageError, match="unknown runtime 'openvin'"):
        graphprune.deploy(pruned, options=DeployOptions(("openvin",)))
    with pytest.raises(UsageError, match="larger than 0"):
        DeployOptions(samples=0)
    with pytest.raises(UsageError, match="no input of the model"):
        graphprune.deploy(pruned, options=DeployOptions(input_shapes={"other": (1,)}))
    broken = model("(float[1,3] x) => (float[1,3] y) { y = com.example.Custom (x) }", domains=', "com.example" : 1')
    with pytest.raises(UnsupportedModelError, match="onnxruntime does not load"):
        graphprune.deploy(graphprune.load(broken))


def test_every_runtime_says_what_it_is() -> None:
    for name in RUNTIMES.names():
        runtime = make_runtime(name)
        assert isinstance(runtime.missing(), str)
        assert isinstance(runtime.version(), str) or runtime.missing()


class FakeInterpreter:
    """LiteRT's interpreter, for a network whose tensors have other names, in another order, than its outputs."""

    def __init__(self, **_: object) -> None:
        self._fed: dict[int, float] = {}

    def allocate_tensors(self) -> None:
        """Do nothing."""

    def get_signature_list(self) -> dict[str, object]:
        return {"serving_default": {}}

    def get_signature_runner(self) -> FakeInterpreter:
        return FakeSignature()

    def get_input_details(self) -> object:
        return [{"name": "serving_default_image:0", "index": 0, "dtype": np.float32}]

    def get_output_details(self) -> object:
        return [{"name": "PartitionedCall:1", "index": 5}, {"name": "PartitionedCall:0", "index": 7}]

    def set_tensor(self, index: int, value: Any) -> None:
        self._fed[index] = float(value)

    def invoke(self) -> None:
        """Do nothing."""

    def get_tensor(self, index: int) -> Any:
        return np.array(10 * index + self._fed[0])


class FakeSignature(FakeInterpreter):
    """Its signature, which has the names of the file."""

    def get_input_details(self) -> object:
        return {"image": {"name": "serving_default_image:0", "index": 0, "dtype": np.float32}}

    def get_output_details(self) -> object:
        return {"first": {"name": "PartitionedCall:0", "index": 7}, "second": {"name": "PartitionedCall:1", "index": 5}}


def test_outputs_in_litert_go_by_the_names_of_its_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    package = SimpleNamespace(Interpreter=FakeInterpreter)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", SimpleNamespace(interpreter=package))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", package)
    run = TfLite().open(Path("any.tflite"), ModelSignature({"image": ()}, {"image": "float32"}, ("first", "second")))
    assert [float(value) for value in run({"image": np.float32(1)})] == [71, 51]


def test_names_of_tensors_are_found_under_what_tensorflow_makes_of_them() -> None:
    assert _plain("serving_default_image/in:0") == _plain("image/in") == "image_in"


def test_rounding_is_allowed_by_what_numbers_a_network_has() -> None:
    floats = model("(float[1,4] x) => (float[1,4] y) { y = Mul (x, w) }", {"w": (4,)})
    half = model("(float16[1,4] x) => (float16[1,4] y) { y = Mul (x, w) }", w=np.ones(4, np.float16))
    steps = model(
        "(float[1,4] x) => (float[1,4] y) { q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }",
        s=np.float32(0.1),
        z=np.uint8(0),
    )
    assert [rounding_allowance(proto) for proto in (floats, half, steps)] == [1e-3, 1e-2, 5e-2]
