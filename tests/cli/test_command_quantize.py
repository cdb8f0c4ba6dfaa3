# SPDX-License-Identifier: Apache-2.0
"""`graphprune quantize`, and `solve --quantize`, through the command line."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from graphprune.plan.file import read_plan
from graphprune.plan.schema import digest
from graphprune.surgery.marks import PLAN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

    from graphprune import Model
    from graphprune.data.preprocessing import Preprocessing
    from graphprune.data.source import Source

    Command = Callable[..., Outcome]


@pytest.fixture
def images(tmp_path: Path) -> str:
    values = np.random.default_rng(3).standard_normal((24, 3, 12, 12)).astype(np.float32)
    np.savez(tmp_path / "images.npz", image=values)
    return "images.npz"


def test_both_precisions_are_written_beside_the_model(quick: Command, model: Path, images: str) -> None:
    done = quick("quantize", model, "--calib", images, "--limit", "0.2")
    assert done.code == 0, done.err
    lines = dict(line.split(maxsplit=1) for line in done.out.splitlines() if not line.startswith("file size"))
    assert lines["output"] == str(model.with_name("net.int8.onnx"))
    assert lines["next"].startswith("graphprune deploy ")
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(model.with_name("net.int8.onnx")).graph.node}
    done = quick("quantize", model, "--calib", images, "--fp16", "--json")
    facts = json.loads(done.out)
    assert done.code == 0 and facts["precision"] == "fp16" and facts["bytes_after"] < facts["bytes_before"]
    assert model.with_name("net.fp16.onnx").exists()


def test_samples_are_made_where_nobody_gives_any(quick: Command, model: Path) -> None:
    done = quick("quantize", model, "--limit", "0.5", "--samples", "16", "--json", "--dry-run")
    facts = json.loads(done.out)
    assert done.code == 0, done.err
    assert facts["made_samples"] is True and facts["output"] is None
    assert not model.with_name("net.int8.onnx").exists()


def test_solve_quantises_in_the_end(quick: Command, model: Path, images: str) -> None:
    options = ("--flops", "0.5", "--quick", "--calib", images, "--quantize", "fp16")
    done = quick("solve", model, *options, "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert facts["quantized"]["output"] == str(model.with_name("net.pruned.fp16.onnx"))
    done = quick("verify", model, model.with_name("net.pruned.fp16.onnx"), model.with_name("net.plan.json"))
    assert done.code == 2 and "lower precision (fp16) than the plan" in done.err, done.err
    assert model.with_name("net.pruned.onnx").exists() and model.with_name("net.pruned.fp16.onnx").exists()
    done = quick("solve", model, *options)
    assert done.code == 2 and "exists" in done.err
    done = quick("solve", model, *options, "--force")
    assert done.code == 0 and "quantised  " in done.out


def test_a_model_that_meets_its_budget_is_quantised_all_the_same(quick: Command, model: Path, images: str) -> None:
    done = quick("solve", model, "--flops", "1", "--calib", images, "--quantize", "fp16")
    assert done.code == 0, done.err
    assert "nothing had to be done" in done.out
    assert model.with_name("net.pruned.fp16.onnx").exists()


def test_wrong_usage_is_refused(quick: Command, model: Path, images: str) -> None:
    assert quick("quantize", model, "--calib", images, "--fp16").code == 0
    for command, said in (
        (("quantize", model, "--calib", images, "--fp16"), "net.fp16.onnx"),
        (("quantize", model, "--calib", "nothing.npz"), "nothing.npz"),
        (("quantize", model, "--calib", images, "--limit", "0"), "larger than 0"),
        (("solve", model, "--flops", "0.5", "--quick", "--quantize", "int8"), "--quantize needs samples"),
    ):
        done = quick(*command)
        assert done.code == 2 and said in done.err, (command, done.err)
    done = quick("quantize", model, "--calib", images, "--limit", "1e-12")
    assert done.code == 1 and "nothing was written" in done.err


def test_what_is_in_lower_precision_already_is_refused(quick: Command, model: Path, images: str) -> None:
    assert quick("quantize", model, "--calib", images, "--fp16").code == 0
    for further in ((), ("--fp16",)):
        done = quick("quantize", "net.fp16.onnx", "--calib", images, "-o", "again.onnx", *further)
        assert (done.code, "is stored in float16 already" in done.err, "hint: " in done.err) == (2, True, True)
    assert not model.with_name("again.onnx").exists()


@pytest.mark.parametrize("option", [("--method", "entropy"), ("--full-range",)])
def test_what_is_for_integers_is_not_taken_for_float16(
    quick: Command, model: Path, images: str, option: tuple[str, ...]
) -> None:
    done = quick("quantize", model, "--calib", images, "--fp16", *option)
    assert (done.code, "not for float16" in done.err) == (2, True)


def test_a_library_that_logs_hears_nothing_of_it(
    quick: Command, model: Path, images: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    class Loud(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    loud = Loud()
    monkeypatch.setattr(logging.getLogger(), "handlers", [loud])
    done = quick("quantize", model, "--calib", images, "--limit", "1")
    assert done.code == 0, done.err
    assert [text for text in heard if "quantising" in text] == []
    assert logging.getLogger("graphprune").propagate  # for whoever uses the library


def test_what_is_next_can_be_copied(quick: Command, model: Path, images: str) -> None:
    done = quick("quantize", model, "--calib", images, "--limit", "1", "-o", "two words.onnx")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1].split(maxsplit=1)[1].startswith("graphprune deploy 'two words.onnx' --original ")


def test_images_are_fed_as_the_original_that_the_plan_names(
    quick: Command, model: Path, images: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graphprune import accuracy

    assert quick("solve", model, "--flops", "0.5", "--quick").code == 0
    asked: list[str] = []
    opened = accuracy.open_data

    def watch(text: str, network: Model, settings: Preprocessing | None = None) -> Source:
        asked.append(network.name)
        return opened(text, network, settings)

    monkeypatch.setattr(accuracy, "open_data", watch)
    options = ("--calib", images, "--fp16", "--limit", "0.5", "--dry-run")
    assert quick("quantize", "net.pruned.onnx", *options).code == 0
    model.rename(model.with_name("elsewhere.onnx"))
    assert quick("quantize", "net.pruned.onnx", *options).code == 0
    assert quick("quantize", "net.pruned.onnx", *options, "--original", "elsewhere.onnx").code == 0
    assert asked == ["net", "net.pruned", "elsewhere"]


@pytest.mark.parametrize("name", ["/etc/passwd", "a/b", "..", "", "a\0b", "n" * 300])
def test_a_plan_may_name_what_is_no_name_of_a_file(quick: Command, model: Path, images: str, name: str) -> None:
    assert quick("solve", model, "--flops", "0.5", "--quick").code == 0
    folder = model.parent
    told = json.loads((folder / "net.plan.json").read_text(encoding="utf-8"))
    told["model"]["name"] = name
    (folder / "net.plan.json").write_text(json.dumps(told), encoding="utf-8")
    proto = onnx.load(folder / "net.pruned.onnx")
    mark = next(entry for entry in proto.metadata_props if entry.key == PLAN)
    mark.value = digest(read_plan(folder / "net.plan.json"))
    onnx.save(proto, folder / "net.pruned.onnx")
    done = quick("quantize", "net.pruned.onnx", "--calib", images, "--fp16", "--limit", "0.5", "--dry-run")
    assert done.code in (0, 2), done.err
