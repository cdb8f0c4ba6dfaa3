# SPDX-License-Identifier: Apache-2.0
"""A torch module becomes a file with its names, its BatchNormalization, and any batch size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from training_cases import loaded

import graphprune
from graphprune.errors import InputError, UnsupportedModelError, UsageError, VerificationError
from graphprune.export import from_torch
from graphprune.export.factory import load_weights, make_module
from graphprune.export.from_torch import ExportOptions, export_module


class Small(nn.Module):
    """Two outputs in a dictionary, BatchNormalizations with equal weights, one layer that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.block = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.unused = nn.BatchNorm2d(4)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.bn1(self.stem(x)).relu()
        y = (self.bn2(self.block(y)) + y).relu()
        return {"scores": self.head(y.mean((2, 3))), "map": y.sum(1)}


OPTIONS = ExportOptions([(1, 3, 8, 8)])
STORED = {"stem.weight", "bn1.weight", "bn1.bias", "bn2.running_mean", "block.weight", "head.bias"}


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_names_and_normalisation_are_kept(exporter: Any) -> None:
    module = Small().train()
    model = export_module(module, ExportOptions([(1, 3, 8, 8)], ["image"], exporter))
    assert module.training
    graph = model.proto.graph
    assert {tensor.name for tensor in graph.initializer} >= STORED
    assert sum(node.op_type == "BatchNormalization" for node in graph.node) == 2
    assert [value.name for value in graph.input] == ["image"]
    assert [value.name for value in graph.output] == ["scores", "map"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert graphprune.analyze(model).prunable > 0.5


def test_equal_weights_are_stored_apart() -> None:
    """The exporter stores equal tensors once; pruned, they would have to stay equal."""
    model = export_module(Small(), OPTIONS)
    names = {tensor.name for tensor in model.proto.graph.initializer}
    assert {"bn1.weight", "bn2.weight", "bn1.running_var", "bn2.running_var"} <= names
    assert all(node.op_type != "Identity" for node in model.proto.graph.node)


def test_a_module_that_does_not_run_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"\[2, 4, 8, 8\]"):
        export_module(Small(), ExportOptions([(1, 4, 8, 8)]))


def test_a_module_that_cannot_be_exported_is_refused() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.svdvals(x)

    with pytest.raises(UnsupportedModelError, match="torchscript: "):
        export_module(Odd(), ExportOptions([(1, 3, 3)], exporter="torchscript"))


def test_a_file_that_computes_something_else_is_not_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    right = from_torch._torchscript

    def wrong(*arguments: Any) -> Any:
        proto = right(*arguments)
        for tensor in proto.graph.initializer:
            if tensor.name.endswith("head.bias"):
                tensor.raw_data = bytes(len(tensor.raw_data))
        return proto

    monkeypatch.setattr(from_torch, "_torchscript", wrong)
    with pytest.raises(VerificationError, match="'scores'"):
        export_module(Small(), OPTIONS)


def test_normalisation_that_was_folded_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = from_torch._torchscript

    def folding(module: nn.Module, *rest: Any) -> Any:
        plain = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False))
        return right(plain, *rest)

    monkeypatch.setattr(from_torch, "_torchscript", folding)
    with pytest.raises(VerificationError, match="1 of 1 BatchNormalizations"):
        export_module(nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)), OPTIONS)


@pytest.mark.parametrize(
    "change", [{"shapes": []}, {"shapes": [(0, 3)]}, {"names": ["a", "b"]}, {"exporter": "other"}], ids=str
)
def test_options_without_meaning(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ExportOptions(**{"shapes": [(1, 3)], **change})


def test_factories() -> None:
    assert isinstance(make_module("torch.nn:Identity"), nn.Identity)
    assert len(list(make_module("torchvision:squeezenet1_1").parameters())) > 50


@pytest.mark.parametrize(
    "text",
    ["resnet18", "torchvision:no_such", "no.such:thing", "torch.nn:Nothing", "math:pi", "os:getcwd", "torch.nn:Linear"],
)
def test_what_makes_no_module(text: str) -> None:
    with pytest.raises(UsageError):
        make_module(text)


def test_weights_from_files_that_hold_nothing_but_tensors(tmp_path: Path) -> None:
    source, target = Small(), Small()
    safetensors.torch.save_file(source.state_dict(), tmp_path / "w.safetensors")
    torch.save({"state_dict": source.state_dict()}, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        load_weights(target, tmp_path / name)
        assert torch.equal(target.head.weight, source.head.weight)
    torch.save(source, tmp_path / "code.pth")  # a whole module, which would run code when it is loaded
    (tmp_path / "damaged.pth").write_bytes(b"nothing")
    for name in ("code.pth", "damaged.pth", "missing.pth"):
        with pytest.raises(InputError, match="cannot be read"):
            load_weights(target, tmp_path / name)
    with pytest.raises(InputError, match="do not fit"):
        load_weights(nn.Linear(2, 2), tmp_path / "w.pth")


ODD_STATES: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "missing": (lambda state: state.pop("stem.weight"), "Missing key.*stem.weight"),
    "extra": (lambda state: state.update(more=torch.ones(1)), "Unexpected key.*more"),
    "of another shape": (lambda state: state.update({"stem.weight": torch.ones(2)}), "size mismatch for stem"),
    "without data": (lambda state: state.update({"stem.weight": torch.ones(8, 3, 3, 3, device="meta")}), "meta tensor"),
    "no tensor": (lambda state: state.update({"stem.weight": 1}), "stem.weight"),
}


@pytest.mark.parametrize("odd", ODD_STATES)
def test_a_state_that_does_not_fit_is_refused_with_what_does_not(odd: str, tmp_path: Path) -> None:
    change, said = ODD_STATES[odd]
    state = {name: value.clone() for name, value in Small().state_dict().items()}
    change(state)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=f"do not fit the module: .*{said}"):
        load_weights(Small(), tmp_path / "w.pth")


def test_a_state_whose_tensors_share_their_storage_is_read_as_it_is(tmp_path: Path) -> None:
    state = Small().state_dict()
    state["bn2.weight"] = state["bn1.weight"].mul_(3.0)
    torch.save(state, tmp_path / "w.pth")
    target = Small()
    load_weights(target, tmp_path / "w.pth")
    assert torch.equal(target.bn2.weight, torch.full((8,), 3.0))
    assert target.bn2.weight.data_ptr() != target.bn1.weight.data_ptr()


def test_a_module_without_data_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"does not run .*meta"):
        export_module(Small().to("meta"), OPTIONS)


def test_weights_that_are_no_numbers_are_exported_and_refused_where_they_would_be_pruned() -> None:
    module = Small()
    module.block.weight.data.fill_(float("nan"))
    with pytest.raises(InputError, match=r"not finite|NaN|nan"):
        graphprune.solve(export_module(module, OPTIONS), flops=0.5)


def test_what_was_exported_is_an_ordinary_model() -> None:
    model = export_module(Small(), OPTIONS)
    assert loaded(model.proto).proto == model.proto


class Deciding(nn.Module):
    """Goes one of two ways, as its input says; both are the same where `alike`."""

    def __init__(self, *, alike: bool) -> None:
        super().__init__()
        self.layer, self.sign = nn.Linear(6, 4), 1.0 if alike else -1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x if x.sum() > 0 else self.sign * x)


def test_what_depends_on_values_is_found_out() -> None:
    notes: list[str] = []
    options = ExportOptions([(1, 6)], note=notes.append)
    with pytest.raises(VerificationError, match="differs from the module") as caught:
        export_module(Deciding(alike=False), options)
    assert "torchscript" not in caught.value.message
    assert len(notes) == 1 and "always goes the way of the example" in notes[0] and "test_from_torch" in notes[0]
    export_module(Deciding(alike=True), options)
    assert len(notes) == 2
    export_module(Small(), ExportOptions([(1, 3, 8, 8)], note=notes.append))
    assert len(notes) == 2


def test_what_is_not_finite_may_be_so_in_both() -> None:
    class Normed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / x.abs().sum(1, keepdim=True)

    assert export_module(Normed(), ExportOptions([(1, 6)])).proto.graph.node
