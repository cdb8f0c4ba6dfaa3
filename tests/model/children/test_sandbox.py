# SPDX-License-Identifier: Apache-2.0
"""The sandbox: what a model may use follows from its size, and what takes more is refused."""

from __future__ import annotations

import sys

import onnx
import pytest
from endless_models import doubling, endless
from tiny_models import chain

from graphprune.errors import UnsafeModelError
from graphprune.model.children import allowance as module
from graphprune.model.children.allowance import Allowance, allow
from graphprune.model.children.sandbox import unless_exhausted
from graphprune.model.files.main_memory import main_memory
from graphprune.model.graph import Graph
from graphprune.model.load import load
from graphprune.model.sizes.observation import Told, observe

limited = pytest.mark.skipif(sys.platform != "linux", reason="only there the system enforces the limits")


def run(proto: onnx.ModelProto) -> object:
    model = load(proto)
    shapes = {value.name: (1, 3, 8, 8) if value.name == "x" else (1,) for value in proto.graph.input}
    return observe(model, Graph(proto), [shapes], [], Told(dims=shapes))


@limited
def test_a_loop_that_never_ends_is_stopped() -> None:
    with pytest.raises(UnsafeModelError, match=r"still running after \d+ s of processor time") as caught:
        run(endless())
    assert "inputs of zeros" in (caught.value.hint or "")


@limited
def test_a_text_that_doubles_is_stopped() -> None:
    with pytest.raises(UnsafeModelError, match=r"more than the 0\.\d GB of memory that are allowed"):
        run(doubling())


def test_what_is_allowed_follows_from_the_model() -> None:
    small = load(chain("m = Relu (h)"))
    least = allow([small], {"x": (1, 3, 8, 8)}, 9.0)
    assert least.patience == 9.0
    assert module._FLOOR < least.most_bytes < 1_000_000_000 + module._PER_CORE * (module.os.cpu_count() or 1)
    larger = allow([small], {"x": (1, 3, 512, 512), "h": (1, 64, 512, 512)}, 9.0)
    assert larger.most_bytes > min(main_memory() // 2 - 1, least.most_bytes + 64 * 64 * 512 * 512)
    assert larger.seconds > least.seconds
    assert allow([small, small], {"x": (1, 3, 512, 512)}, 9.0).most_bytes > least.most_bytes
    looped = load(endless())
    assert allow([looped], {"x": (1, 3, 512, 512)}, 9.0).seconds > larger.seconds


def test_never_more_than_half_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "main_memory", lambda: 4 << 30)
    assert allow([load(chain("m = Relu (h)"))], {"x": (1, 3, 1 << 14, 1 << 14)}, 9.0).most_bytes == 2 << 30


def test_an_allowance_of_any_size_can_be_told() -> None:
    """A pipe takes it in one piece, and limits of the system have an end."""
    most = allow([load(chain("m = Relu (h)"))], {"x": (1 << 30, 1 << 30, 1 << 30, 1 << 30)}, 9.0)
    assert isinstance(most, Allowance)
    assert most.seconds <= 1 << 30


@pytest.mark.parametrize("said", ["std::bad_alloc", "Failed to allocate memory for requested buffer of size 4"])
def test_memory_that_has_run_out_says_nothing_of_a_model(said: str) -> None:
    with pytest.raises(MemoryError, match="alloc"):
        unless_exhausted(RuntimeError(said))
    other = RuntimeError("an invalid graph")
    assert unless_exhausted(other) is other
