# SPDX-License-Identifier: Apache-2.0
"""The Python API as somebody meets it who tries it out: what it takes, what it shows, what it refuses."""

from __future__ import annotations

import inspect
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from recovery_models import block
from remembering_models import network, trained_on
from tiny_models import model as tiny

import graphprune
from graphprune.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from graphprune.model.load import Model


@pytest.fixture(scope="module")
def model() -> Model:
    return graphprune.load(block(norm=True))


def values(count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal((count, 3, 10, 10)).astype(np.float32)


def loader() -> Any:
    torch = pytest.importorskip("torch")
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(values(10)), torch.arange(10) % 5)
    return torch.utils.data.DataLoader(dataset, batch_size=4)


@pytest.mark.parametrize(
    ("given", "labelled"),
    [
        (lambda: values(10), False),
        (lambda: {"image": values(10)}, False),
        (lambda: {"image": values(10), "labels": np.arange(10) % 5}, True),
        (loader, True),
        (lambda: [values(4), values(6)], False),
        (lambda: ((part, np.zeros(5, np.int32)) for part in (values(5), values(5))), True),
        (lambda: [{"image": values(10)}], False),
        (lambda: [({"image": values(10)}, np.arange(10))], True),
    ],
    ids=["array", "dict", "dict with labels", "DataLoader", "list", "generator of pairs", "list of dicts", "pairs"],
)
def test_samples_are_taken_from_whatever_holds_them(given: Callable[[], Any], labelled: bool, model: Model) -> None:
    source = graphprune.samples(model, given())
    assert len(source) == 10
    assert source.labelled is labelled
    batch = source.read(np.arange(4))
    np.testing.assert_array_equal(
        batch.feeds["image"], values(4 if isinstance(given(), list) and not labelled else 10)[:4]
    )
    plan = graphprune.solve(model, flops=0.6)
    assert graphprune.recover(model, graphprune.apply(model, plan), plan, source).samples == 9


def test_a_path_and_made_samples_go_too(model: Model, tmp_path: Any) -> None:
    np.save(tmp_path / "some.npy", values(7))
    assert len(graphprune.samples(model, tmp_path / "some.npy")) == 7
    assert len(graphprune.samples(model, "synthetic:8")) == 8


def test_several_inputs_come_by_name_or_in_order() -> None:
    two = graphprune.load(tiny("(float[n,4] x, float[n,4] y) => (float[n,4] z) { z = Add(x, y) }"))
    part = np.ones((3, 4), np.float32)
    assert len(graphprune.samples(two, {"x": part, "y": part})) == 3
    assert len(graphprune.samples(two, [(part, 2 * part), (part, part)])) == 6
    labelled = graphprune.samples(two, [(part, 2 * part, np.arange(3))])
    assert labelled.labelled and labelled.read(np.arange(1)).feeds["y"].max() == 2
    with pytest.raises(DataError, match="for the inputs 'x', 'y'"):
        graphprune.samples(two, [part])


def test_pixels_are_normalised_as_is_said_or_found() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (64, 12, 12, 3), dtype=np.uint8)
    ready = (pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255 - 0.5) / 0.5
    model = trained_on(network(), ready.astype(np.float32))
    for source in (graphprune.samples(model, pixels), graphprune.samples(model, pixels, mean=0.5, std=(0.5, 0.5, 0.5))):
        np.testing.assert_allclose(source.read(np.arange(2)).feeds["image"], ready[:2], atol=1e-6)


@pytest.mark.parametrize("given", [7, None, [], ["text"], iter([]), {"image": "text"}])
def test_what_holds_no_samples_is_refused(given: Any, model: Model) -> None:
    with pytest.raises(DataError):
        graphprune.samples(model, given)


def test_what_the_callers_own_data_raises_is_said_to_be_theirs(model: Model) -> None:
    def broken() -> Iterator[Any]:
        yield values(2)
        raise KeyError("row 3")

    with pytest.raises(DataError, match=r"generator raised KeyError: .*row 3"):
        graphprune.samples(model, broken())


def test_with_what_a_callback_of_the_caller_ends_the_work_passes(model: Model) -> None:
    class EnoughError(Exception):
        pass

    def stop(_done: int, _all: int) -> None:
        raise EnoughError

    with pytest.raises(EnoughError):
        graphprune.evaluate(model, graphprune.samples(model, values(8)), model, progress=stop)


def test_the_short_form_of_a_budget(model: Model) -> None:
    request = graphprune.BudgetRequest("flops", 0.5)
    assert graphprune.solve(model, flops=0.5) == graphprune.solve(model, request)
    both = graphprune.solve(model, flops=0.7, size="5MB")
    assert [budget.metric for budget in both.budgets] == ["flops", "size"]
    with pytest.raises(UsageError, match="did you mean flops"):
        graphprune.solve(model, flopps=0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: graphprune.SolveOptions(inherit="foo"), "inherit is 'foo', but must be one of keep, merge"),
        (lambda model: graphprune.SolveOptions(aggregate="some"), "must be one of sum, mean, max, first"),
        (lambda model: graphprune.SolveOptions(min_keep="3"), "min_keep is '3', but must be a whole number"),
        (lambda model: graphprune.SolveOptions(certify=1), "certify is 1, but must be True or False"),
        (lambda model: graphprune.SolveOptions(solver=None), "solver is None, but must be a text"),
        (lambda model: graphprune.AnalyzeOptions(attention="head"), "did you mean heads"),
        (lambda model: graphprune.RecoverOptions(method="least_squares"), "did you mean least-squares"),
        (lambda model: graphprune.RecoverOptions(ridge="much"), "ridge is 'much', but must be a number"),
        (lambda model: graphprune.WidenOptions(factor="2"), "factor is '2', but must be a number"),
        (lambda model: graphprune.solve(model, 0.5), "a budget cannot be 0.5"),
        (lambda model: graphprune.solve(model, "flops"), "a budget cannot be 'flops'"),
        (lambda model: graphprune.solve("net.onnx", flops=0.5), r"graphprune.load\(path\) reads one"),
        (lambda model: graphprune.analyze("net.onnx"), r"graphprune.load\(path\) reads one"),
        (lambda model: graphprune.load(3), "source is 3, but must be str or Path or ModelProto"),
        (lambda model: graphprune.verify(model, model, None), "plan is None, but must be Plan or Reconciled"),
        (lambda model: graphprune.evaluate(model, "images/"), "data is 'images/', but must be Source"),
        (lambda model: graphprune.recover(model, model, "plan.json", None), "plan is 'plan.json', but must be Plan"),
        (lambda model: graphprune.apply(model, "plan.json"), r"hint: graphprune.read_plan\(path\) reads one"),
        (lambda model: graphprune.evaluate(model, values(3)), r"hint: graphprune.samples\(model, data\) makes one"),
        (lambda model: graphprune.samples("net.onnx", values(3)), r"hint: graphprune.load\(path\) reads one"),
        (lambda model: graphprune.samples(model, values(3), mean="half"), "mean is 'half', but must be a number"),
        (lambda model: graphprune.samples(model, values(3), std=[[1]]), r"std is \[\[1\]\], but must be a number"),
        (lambda model: graphprune.save(model, 3), "path is 3, but must be str or Path"),
        (lambda model: graphprune.solve(model, flops=0.5, skip=("head",)), r"constraints=graphprune.Constraints\(skip"),
        (lambda model: graphprune.solve(model, flops=0.5, calib="images/"), "samples are its data"),
    ],
)
def test_types_and_choices_are_checked_where_they_are_given(
    call: Callable[[Any], Any], message: str, model: Model
) -> None:
    with pytest.raises(UsageError, match=message):
        call(model)


def test_a_dataset_is_asked_for_by_its_loader(model: Model) -> None:
    class Dataset:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, at: int) -> Any:
            return values(3)[at], at

    with pytest.raises(DataError, match=r"cannot be a 'Dataset'\nhint: .*torch.utils.data.DataLoader\(dataset"):
        graphprune.samples(model, Dataset())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: graphprune.compare(None, graphprune.BudgetRequest("flops", 0.5)), "a model cannot be None"),
        (lambda: graphprune.compare(graphprune.load(block(norm=True)), []), "no budget is given"),
        (lambda: graphprune.compare(graphprune.load(block(norm=True)), "flops"), "a budget cannot be 'flops'"),
        (lambda: graphprune.sweep(3, "rows.csv"), "path is 3, but must be str or Path"),
        (lambda: graphprune.explain(None, "a"), "analysis is None, but must be Analysis"),
        (lambda: graphprune.group_graph("net.onnx"), "analysis is 'net.onnx', but must be Analysis"),
        (lambda: graphprune.from_arrays("x", None, {}, np.zeros(3)), "specs is None, but must be Sequence"),
        (lambda: graphprune.read_plan(3), "path is 3, but must be str or Path"),
        (lambda: graphprune.write_plan({}, "a.json"), r"plan is {}, but must be Plan\nhint: graphprune.read_plan"),
        (lambda: graphprune.save_drawing(None, "a.svg"), "analysis is None, but must be Analysis"),
        (lambda: graphprune.widen(3), "model is 3, but must be Model or Analysis"),
    ],
)
def test_every_public_function_says_what_is_of_another_type(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()


def test_every_public_function_lets_nothing_foreign_out() -> None:
    functions = {name: getattr(graphprune, name) for name in graphprune.__all__}
    functions = {name: each for name, each in functions.items() if inspect.isfunction(each)}
    assert len(functions) > 20
    open_ends = {name for name, each in functions.items() if not hasattr(each, "__wrapped__")}
    assert open_ends == {"examine_installation"}  # which takes nothing


def test_shares_are_numbers_of_any_kind() -> None:
    half = graphprune.BudgetRequest("flops", 0.5)
    for given in (np.float32(0.5), np.float64(0.5), "0.5", " .5 "):
        assert graphprune.BudgetRequest("flops", given) == half  # type: ignore[arg-type]  # numpy and text
    for wrong in ("1.5", "0", "nan", np.float32(2), True, None, [0.5], 1j):
        with pytest.raises(UsageError, match="the budget for flops is"):
            graphprune.BudgetRequest("flops", wrong)  # type: ignore[arg-type]  # on purpose


def test_numbers_of_numpy_are_numbers() -> None:
    graphprune.SolveOptions(seed=np.int64(3))  # type: ignore[arg-type]
    graphprune.RecoverOptions(ridge=np.float32(0.5))  # type: ignore[arg-type]


def test_the_text_of_an_error_carries_its_hint() -> None:
    with pytest.raises(UsageError) as caught:
        graphprune.BudgetRequest("flop", 0.5)  # type: ignore[arg-type]
    assert str(caught.value).splitlines()[-1] == "hint: did you mean flops?"


def test_objects_show_themselves_in_one_line_and_as_tables(model: Model) -> None:
    analysis = graphprune.analyze(model)
    plan = graphprune.solve(analysis, flops=0.5)
    pruned = graphprune.apply(analysis, plan)
    recovery = graphprune.recover(analysis, pruned, plan, graphprune.samples(model, values(32)))
    verification = graphprune.verify(analysis, pruned, plan)
    for shown, words in (
        (model, "Model('tiny', "),
        (analysis, "Analysis('tiny': 2 coupled groups, "),
        (plan, "Plan('tiny': flops "),
        (recovery, "Recovery(least-squares"),
        (verification, "Verification(verified: compared "),
    ):
        assert repr(shown).startswith(words)
        assert len(repr(shown)) < 300 and "\n" not in repr(shown)
        html = shown._repr_html_()
        assert html.startswith("<table><caption>") and html.endswith("</table>")


def test_explanations_show_themselves_in_one_line(model: Model) -> None:
    shown = repr(graphprune.explain(graphprune.analyze(model), "g000"))
    assert shown.startswith("Explanation(group 'g000': ") and shown.endswith("may lose slices of g000)")


def test_samples_show_themselves_in_one_line(model: Model) -> None:
    assert repr(graphprune.samples(model, values(3))) == "Source('ndarray': 3 samples, without labels)"


def test_names_from_a_model_are_no_markup() -> None:
    proto = block(norm=True)
    proto.graph.name = "<script>alert(1)</script>"
    proto.graph.node[0].name = "<b>"
    model = graphprune.load(proto)
    plan = graphprune.solve(model, flops=0.5)
    for shown in (model, graphprune.analyze(model), plan):
        assert "<script>" not in shown._repr_html_() and "<b>" not in shown._repr_html_()


def test_a_plan_tells_its_widths(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = graphprune.solve(model, flops=0.5)
    assert plan.widths == {layer.node: layer.pruned_width for layer in plan.layers}
    assert all(isinstance(width, int) for width in plan.widths.values())
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=list))  # type: ignore[arg-type]
    assert plan.to_pandas()[0]["pruned_width"] == plan.layers[0].pruned_width
    monkeypatch.setitem(sys.modules, "pandas", None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="pip install pandas"):
        plan.to_pandas()
