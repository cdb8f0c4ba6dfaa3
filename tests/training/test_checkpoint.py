# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: what is read is what was written, of this run only, and damage ends as one error that names the file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from pruning_cases import KINDS, QUICK, labelled, trained
from safetensors.torch import load_file, save_file
from torch import Tensor
from training_cases import Arrays, images, loaded, normalised

from graphprune.data.source import Source
from graphprune.errors import InputError, UsageError
from graphprune.solvers import training
from graphprune.training.checkpoint import Progress, read_checkpoint, write_checkpoint
from graphprune.training.finetune import FinetuneOptions, finetune
from graphprune.training.trainer import Optimisation

PROGRESS = Progress(7, 0.01, math.inf, 0.5, 3, "", {"scale": 2.0}, {"0.01": 0.5, "0.1": math.inf})


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    tensors = {"net/a.b": torch.randn(3, 4), "optimizer/0/step": torch.tensor(5.0), "n": torch.arange(3)}
    for _ in range(2):
        write_checkpoint(path, "run", PROGRESS, tensors)
    progress, found = read_checkpoint(path, "run")
    assert progress == PROGRESS
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], value) for name, value in tensors.items())
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.safetensors"]


def test_another_run_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "run", "one", PROGRESS, {})
    with pytest.raises(UsageError, match="other models, data or options"):
        read_checkpoint(tmp_path / "run", "two")


@pytest.mark.parametrize(
    ("then", "now", "said"), [(5, 0, "learned 5 blocks.*lies there now"), (0, 5, "would learn 5, by the plan")]
)
def test_a_plan_that_came_or_went_is_named(tmp_path: Path, then: int, now: int, said: str) -> None:
    write_checkpoint(tmp_path / "run", "one", PROGRESS, {}, blocks=then)
    with pytest.raises(UsageError, match=said):
        read_checkpoint(tmp_path / "run", "two", blocks=now)


HEADERS = {
    "missing": None,
    "empty": b"",
    "no-metadata": b"\x08\0\0\0\0\0\0\0{}      ",
    "noise": b"damaged" * 99,
    "endless": b"\xff" * 64,
    "huge": (1 << 26).to_bytes(8, "little") + b" " * 64,
    "nested": (1 << 20).to_bytes(8, "little") + b"[" * (1 << 20),
    "nested-metadata": (20006).to_bytes(8, "little") + b'{"a":' + b"[" * 20000 + b"}",
}


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "run"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="checkpoint"):
        read_checkpoint(path, "run")


def rewritten(path: Path, change: Callable[[dict[str, str], dict[str, Tensor]], None]) -> None:
    """Change what a checkpoint holds."""
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(metadata, tensors)
    save_file(tensors, path, metadata)


PROGRESSES: dict[str, Any] = {
    "text": "many",
    "list": [1, 2],
    "fewer-fields": {"step": 1},
    "more-fields": asdict(PROGRESS) | {"other": 1},
    "step-of-text": asdict(PROGRESS) | {"step": "7"},
    "step-before-the-first": asdict(PROGRESS) | {"step": -1},
    "step-of-truth": asdict(PROGRESS) | {"step": True},
    "huge-step": asdict(PROGRESS) | {"step": 10**400},
    "endless-rate": asdict(PROGRESS) | {"rate": math.inf},
    "no-number-for-a-rate": asdict(PROGRESS) | {"rate": math.nan},
    "huge-rate": asdict(PROGRESS) | {"rate": 10**400},
    "no-best": asdict(PROGRESS) | {"best": None},
    "best-after-the-last": asdict(PROGRESS) | {"best_step": 8},
    "scaler-of-lists": asdict(PROGRESS) | {"scaler": {"scale": [1]}},
    "searched-by-names": asdict(PROGRESS) | {"searched": {"fast": 0.1}},
}


@pytest.mark.parametrize("progress", [*PROGRESSES.values(), None], ids=[*PROGRESSES, "nested"])
def test_progress_of_other_fields_or_types_is_refused(tmp_path: Path, progress: object) -> None:
    path = tmp_path / "run"
    write_checkpoint(path, "run", PROGRESS, {"net/a": torch.ones(2)})
    text = "[" * 100_000 if progress is None else json.dumps(progress)
    rewritten(path, lambda metadata, _: metadata.update(progress=text))
    with pytest.raises(InputError, match="is damaged"):
        read_checkpoint(path, "run")


def test_lost_and_added_tensors_are_missed(tmp_path: Path) -> None:
    path = tmp_path / "run"
    for change in (lambda _, tensors: tensors.pop("net/a"), lambda _, tensors: tensors.update(more=torch.ones(1))):
        write_checkpoint(path, "run", PROGRESS, {"net/a": torch.ones(2), "net/b": torch.ones(2)})
        rewritten(path, change)
        with pytest.raises(InputError, match="other tensors"):
            read_checkpoint(path, "run")


def grown(tensors: dict[str, Tensor], name: str) -> None:
    tensors[name] = torch.ones(tensors[name].numel() + 1, dtype=tensors[name].dtype)


def retyped(tensors: dict[str, Tensor], name: str) -> None:
    tensors[name] = tensors[name].to(torch.int16)


def spoiled(tensors: dict[str, Tensor], name: str) -> None:
    tensors[name] = torch.full_like(tensors[name], math.nan)


REFORMED = {"shape": grown, "type": retyped}
DAMAGES = {**REFORMED, "no numbers": spoiled}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("part", ["net/", "average/", "best/", "optimizer/0/step", "optimizer/1/exp_avg"])
def test_finetuning_does_not_go_on_from_other_tensors(
    tmp_path: Path, part: str, damage: Callable[[dict[str, Tensor], str], None]
) -> None:
    path, model = tmp_path / "run", loaded(normalised())
    data = Source.whole("noise", Arrays({"image": images(48)}))
    how = Optimisation("adamw", ema=0.8)
    options = FinetuneOptions(0.5, 16, 0.01, how, augment="none", device="cpu", held_out=16, checkpoint=path)
    finetune(model, data, model, options)
    names = [name for name in load_file(path) if name.startswith(part)]
    rewritten(path, lambda _, tensors: damage(tensors, names[0]))
    with pytest.raises(InputError, match="is damaged") as caught:
        finetune(model, data, model, replace(options, resume=True))
    assert caught.value.exit_code == 2
    assert repr(str(path))[:40] in caught.value.message


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return checkpoints of runs that have removed channels, by the name of the method."""
    folder = tmp_path_factory.mktemp("kept")
    paths = {name: folder / name for name in ("cac", "white-box", "fbs")}
    for name, path in paths.items():
        trained(KINDS["folded"](), training.get(name)(), labelled(), replace(QUICK, epochs=3, checkpoint=path))
    return paths


def resumed(method: str, path: Path) -> None:
    how = replace(QUICK, epochs=3, checkpoint=path, resume=True)
    trained(KINDS["folded"](), training.get(method)(), labelled(), how)


PARTS = [("cac", part) for part in ("net/", "whole/", "plan", "hook/", "trace", "best/")]
PARTS += [("white-box", "hook/vote/"), ("fbs", "hook/mean/"), ("fbs", "hook/fires/"), ("fbs", "hook/gated")]


@pytest.mark.parametrize(("method", "part"), PARTS)
@pytest.mark.parametrize("damage", REFORMED.values(), ids=REFORMED)
def test_pruning_does_not_go_on_from_other_tensors(
    kept: dict[str, Path], tmp_path: Path, method: str, part: str, damage: Callable[[dict[str, Tensor], str], None]
) -> None:
    path = tmp_path / "run"
    path.write_bytes(kept[method].read_bytes())
    names = [name for name in load_file(path) if name.startswith(part)]
    rewritten(path, lambda _, tensors: damage(tensors, names[0]))
    with pytest.raises(InputError, match="is damaged"):
        resumed(method, path)


@pytest.mark.parametrize("entries", ["[[[", "{}", "[1]", "[" * 100_000], ids=["cut", "object", "numbers", "nested"])
def test_a_record_that_is_no_list_of_entries_is_refused(kept: dict[str, Path], tmp_path: Path, entries: str) -> None:
    path = tmp_path / "run"
    path.write_bytes(kept["cac"].read_bytes())
    record = torch.tensor(list(entries.encode()), dtype=torch.uint8)
    rewritten(path, lambda _, tensors: tensors.update(trace=record))
    with pytest.raises(InputError, match="is damaged"):
        resumed("cac", path)


WRONG_ATOMS: dict[str, Callable[[list[int]], list[int]]] = {
    "too-high": lambda atoms: [atom + 1000 for atom in atoms],
    "negative": lambda atoms: [-1 - atom for atom in atoms],
    "descending": lambda atoms: atoms[::-1],
    "other": lambda atoms: atoms[:-1],
    "none": lambda atoms: [],
}


@pytest.mark.parametrize("wrong", WRONG_ATOMS.values(), ids=WRONG_ATOMS)
def test_a_plan_that_does_not_fit_is_refused(
    kept: dict[str, Path], tmp_path: Path, wrong: Callable[[list[int]], list[int]]
) -> None:
    path = tmp_path / "run"
    path.write_bytes(kept["cac"].read_bytes())
    plan = json.loads(bytes(load_file(path)["plan"].tolist()))
    group = next(group for group in plan["groups"] if len(group["kept"]) > 1)
    group["kept"] = wrong(group["kept"])
    text = torch.tensor(list(json.dumps(plan).encode()), dtype=torch.uint8)
    rewritten(path, lambda _, tensors: tensors.update(plan=text))
    with pytest.raises(InputError, match="is damaged"):
        resumed("cac", path)


def test_a_run_that_is_saved_nowhere_cannot_go_on() -> None:
    model = loaded(normalised())
    data = Source.whole("noise", Arrays({"image": images(48)}))
    with pytest.raises(UsageError, match="no checkpoint"):
        finetune(model, data, model, FinetuneOptions(device="cpu", held_out=16, resume=True))
