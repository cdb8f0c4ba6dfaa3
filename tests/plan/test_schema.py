# SPDX-License-Identifier: Apache-2.0
"""The plan file: what is written is read back, and everything ambiguous is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphprune.errors import GraphPruneError, PlanError
from graphprune.plan import file as plans
from graphprune.plan.schema import (
    METRICS,
    Budget,
    Certificate,
    GroupPlan,
    LayerPlan,
    MemberPlan,
    Plan,
    PlanModel,
    SolverRecord,
    Step,
    Timing,
    digest,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
counts = st.integers(0, 10**15)


@st.composite
def groups(draw: st.DrawFn, index: int) -> GroupPlan:
    size = draw(st.integers(1, 200))
    kept = draw(st.sets(st.integers(0, size - 1), min_size=1))
    removed = st.sets(st.integers(0, 4000), max_size=60).map(lambda found: tuple(sorted(found)))
    roles = st.sampled_from(["out", "in", "per_channel"])
    member = st.builds(MemberPlan, names, st.integers(0, 5), roles, removed, st.booleans())
    members = tuple(draw(st.lists(member, max_size=4)))
    return GroupPlan(f"g{index:03d}", draw(names), size, tuple(sorted(kept)), draw(st.booleans()), members)


targets = st.floats(1e-6, 1) | st.sampled_from(["300M", "0.5 G"])
any_budget = st.builds(Budget, st.sampled_from(["flops", "params"]), targets, counts, counts, counts) | st.builds(
    Budget, st.sampled_from(METRICS), st.floats(1e-6, 1), counts, counts, counts, st.none() | counts
)


finite = st.floats(allow_nan=False, allow_infinity=False)
any_step = st.builds(
    Step, names, names, names, finite, finite, st.booleans(), st.dictionaries(names, counts, max_size=2)
)


@st.composite
def any_plan(draw: st.DrawFn) -> Plan:
    shapes = st.dictionaries(names, st.lists(st.integers(0, 512), max_size=5).map(tuple), max_size=3)
    layer = st.builds(LayerPlan, names, names, counts, counts, counts, counts, counts, counts)
    number = st.floats(allow_nan=False, allow_infinity=False)
    scalar = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | number | names
    record = st.dictionaries(names, scalar, max_size=3)
    return Plan(
        model=PlanModel(draw(names), f"{draw(st.integers(0, 2**256 - 1)):064x}", 8, 17, draw(shapes)),
        budget=draw(any_budget),
        solver=SolverRecord(
            *(draw(names), draw(names), draw(st.integers(0, 2**31)), draw(record)),
            trace=tuple(draw(st.lists(record, max_size=3))),
            certificate=draw(st.none() | st.builds(Certificate, number, number, number)),
        ),
        groups=tuple(draw(groups(index)) for index in range(draw(st.integers(0, 3)))),
        layers=tuple(draw(st.lists(layer, max_size=3))),
        further=tuple(draw(st.lists(any_budget, max_size=2))),
        steps=tuple(draw(st.lists(any_step, max_size=2))),
        timing=draw(st.none() | st.builds(Timing, *3 * [st.floats(0, 1e6)], st.integers(1, 99), names)),
    )


def small_plan() -> Plan:
    members = (
        MemberPlan("conv.weight", 0, "out", (1, 3), True),
        MemberPlan("next.weight", 1, "in", (1, 3), True),
    )
    return Plan(
        model=PlanModel("net", "ab" * 32, 8, 17, {"x": (1, 3, 8, 8)}),
        budget=Budget("flops", 0.5, 500, 1000, 480),
        solver=SolverRecord("bisection", "l1", 0, {"round_to": "auto"}, ({"step": 0, "after": 480},)),
        groups=(GroupPlan("g000", "conv", 4, (0, 2), True, members),),
        layers=(LayerPlan("conv", "Conv", 4, 2, 600, 300, 40, 20), LayerPlan("next", "Conv", 8, 8, 400, 180, 60, 30)),
    )


@given(any_plan())
def test_what_is_written_is_read_back(plan: Plan) -> None:
    text = plans.dumps(plan)
    assert plans.loads(text) == plan
    assert plans.dumps(plans.loads(text)) == text
    assert text.isascii()
    assert text.endswith("}\n")


@given(any_plan(), st.none() | st.integers(0, 4))
def test_the_digest_does_not_depend_on_layout(plan: Plan, indent: int | None) -> None:
    text = json.dumps(json.loads(plans.dumps(plan)), indent=indent, sort_keys=True)
    assert digest(plans.loads(text)) == digest(plan)


def test_the_digest_depends_on_the_content() -> None:
    plan = small_plan()
    other = replace(plan, groups=(replace(plan.groups[0], kept=(0, 1)),))
    assert digest(plan) != digest(other)


def test_the_keys_are_those_of_the_schema_in_its_order() -> None:
    content = json.loads(plans.dumps(small_plan()))
    assert list(content) == ["schema", "model", "budget", "solver", "groups", "layers"]
    assert list(content["model"]) == ["name", "sha256", "ir_version", "opset", "inputs"]
    assert list(content["budget"]) == ["metric", "target", "limit", "before", "after"]
    assert list(content["solver"]) == ["name", "criterion", "seed", "options", "trace"]
    assert list(content["groups"][0]) == ["id", "name", "size", "kept", "exact", "members"]
    assert list(content["groups"][0]["members"][0]) == ["initializer", "axis", "role", "removed", "masked"]
    assert " ".join(content["layers"][0]) == (
        "node op width pruned_width flops_before flops_after params_before params_after"
    )


def test_short_lists_take_one_line_and_long_ones_are_wrapped() -> None:
    plan = small_plan()
    wide = replace(plan.groups[0], size=400, kept=tuple(range(0, 400, 2)))
    text = plans.dumps(replace(plan, groups=(wide,)))
    assert '"removed": [1, 3], "masked": true}' in text
    assert max(len(line) for line in text.splitlines()) <= 120
    assert len(text.splitlines()) < 60


def _set(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def edit(content: dict[str, Any]) -> None:
        *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
        target: Any = content
        for key in parents:
            target = target[key]
        target[last] = value

    return edit


def _drop(path: str) -> Callable[[dict[str, Any]], None]:
    def edit(content: dict[str, Any]) -> None:
        target: Any = content
        *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
        for key in parents:
            target = target[key]
        del target[last]

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_set("schema", "graphprune.plan/2"), "'graphprune.plan/2' is unknown"),
        (_drop("schema"), "no schema"),
        (_set("surprise", 1), "unknown key 'surprise'"),
        (_set("groups.0.surprise", 1), r"groups\[0\]: unknown key 'surprise'"),
        (_drop("budget"), "the key 'budget' is missing"),
        (_drop("groups.0.members.1.masked"), r"members\[1\]: the key 'masked' is missing"),
        (_set("model.sha256", "AB" * 32), "64 hexadecimal digits"),
        (_set("model.sha256", "ab"), "64 hexadecimal digits"),
        (_set("model.inputs", []), "expected an object, got an array"),
        (_set("model.inputs.x", [1, True]), r"expected an integer, got true"),
        (_set("model.opset", "17"), "expected an integer, got '17'"),
        (_set("model.ir_version", 0), "0 is outside"),
        (_set("budget.metric", "watts"), "unknown metric 'watts'"),
        (_set("budget.target", "half"), "the budget for flops is 'half'"),
        (_set("budget.target", "5 parsecs"), "the budget for flops is '5 parsecs'"),
        (_set("budget.measured", -1), "-1 is outside"),
        (_set("timing", {"before": 1.0}), "'after' is missing"),
        (_set("timing", {"before": 1, "after": -1, "ratio": 1, "pairs": 1, "runtime": "x"}), "-1 is below 0"),
        (_set("timing", {"before": 1, "after": 1, "ratio": 1, "pairs": 0, "runtime": "x"}), "0 is outside"),
        (_set("budget.target", 0), "outside 0 < target <= 1"),
        (_set("budget.target", 1.5), "outside 0 < target <= 1"),
        (_set("budget.target", True), "expected a number, got true"),
        (_set("budget.limit", -1), "-1 is outside"),
        (_set("budget.limit", 500.0), "expected an integer, got 500.0"),
        (_set("solver.trace", {}), "expected an array"),
        (_set("solver.trace", [1]), "expected an object"),
        (_set("solver.options", None), "expected an object, got null"),
        (_set("solver.certificate", {"objective": 1}), "'bound' is missing"),
        (_set("solver.seed", -1), "-1 is outside"),
        (_set("groups", {}), "expected an array"),
        (_set("groups.0.size", 0), "0 is outside"),
        (_set("groups.0.exact", 1), "expected true or false, got 1"),
        (_set("groups.0.kept", [0, 4]), r"group 'g000', kept: index 4 \(element 1\) is outside 0..3"),
        (_set("groups.0.kept", [-1]), r"group 'g000', kept: index -1 \(element 0\)"),
        (_set("groups.0.kept", [2, 0]), r"index 0 \(element 1\) comes after 2"),
        (_set("groups.0.kept", [2, 2]), r"index 2 \(element 1\) appears twice"),
        (_set("groups.0.kept", [True]), "element 0 is true, not an integer"),
        (_set("groups.0.kept", [1.0]), "element 0 is 1.0, not an integer"),
        (_set("groups.0.kept", "02"), "expected an array of integers, got '02'"),
        (_set("groups.0.kept", [10**9]), "index 1000000000"),
        (_set("groups.0.members.0.removed", [3, 1]), "group 'g000', removed from 'conv.weight' axis 0: index 1"),
        (_set("groups.0.members.0.removed", [-1]), "index -1"),
        (_set("groups.0.members.0.role", "both"), "unknown role 'both'"),
        (_set("groups.0.members.0.axis", -1), "-1 is outside"),
        (_set("groups.0.members.0.initializer", 7), "expected a string, got 7"),
        (_set("layers.0.flops_before", 1.5), "expected an integer, got 1.5"),
        (_set("layers.0.node", {"__class__": "os.system"}), "expected a string, got an object"),
    ],
)
def test_a_malformed_value_is_refused_with_its_place(edit: Callable[[dict[str, Any]], None], message: str) -> None:
    content = json.loads(plans.dumps(small_plan()))
    edit(content)
    with pytest.raises(PlanError, match=message):
        plans.loads(json.dumps(content))


def test_a_group_named_twice_is_refused() -> None:
    content = json.loads(plans.dumps(small_plan()))
    content["groups"] *= 2
    with pytest.raises(PlanError, match="group 'g000' appears twice"):
        plans.loads(json.dumps(content))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "expected an object"),
        ("null", "expected an object"),
        ("schema: graphprune.plan/1", "not JSON"),
        ("!!python/object:os.system", "not JSON"),
        ('{"schema": 1}', "not a plan"),
        ('{"a": NaN}', "NaN is not a number"),
        ('{"a": -Infinity}', "-Infinity is not a number"),
        ('{"a": 1e999}', "too large"),
        ('{"a": 1, "a": 2}', "'a' appears twice"),
        ('{"a": ' + "9" * 5000 + "}", "5000 digits"),
        ("[" * 200_000, r"nested too deeply|not JSON"),
        ('{"a": "\\ud800"}', "lone surrogate"),
        ('{"a": "\ud800"}', "lone surrogate"),
    ],
)
def test_ambiguous_json_is_refused(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plans.loads(text)


@given(st.data())
def test_damaged_text_raises_a_plan_error_or_nothing(data: st.DataObject) -> None:
    text = plans.dumps(small_plan())
    place = data.draw(st.integers(0, len(text) - 1))
    cut = data.draw(st.integers(0, 3))
    damaged = text[:place] + data.draw(st.text(max_size=3)) + text[place + cut :]
    try:
        plans.loads(damaged)
    except GraphPruneError as error:
        assert isinstance(error, PlanError)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b'{"a": "\xff"}', r"not UTF-8 text \(byte 7\)"),
    ],
)
def test_other_encodings_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(data)
    with pytest.raises(PlanError, match=message):
        plans.read_plan(path)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plan.json"
    with path.open("wb") as file:
        file.truncate(3 * 2**20)
    monkeypatch.setattr(plans, "_MOST_BYTES", 2 * 2**20)
    with pytest.raises(PlanError, match="larger than 2 MiB"):
        plans.read_plan(path)


@pytest.mark.parametrize("name", ["missing.json", ".", "a\0b"])
def test_what_is_not_a_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(PlanError, match=r"no plan file|cannot read"):
        plans.read_plan(tmp_path / name)


def test_identity_is_recognised() -> None:
    plan = small_plan()
    assert not plan.is_identity
    assert replace(plan, groups=(replace(plan.groups[0], kept=(0, 1, 2, 3)),)).is_identity


def test_steps_afterwards_do_not_change_the_digest() -> None:
    plan = small_plan()
    step = Step("recover", "bn", "output error", 0.5, 0.1, applied=True, facts={"samples": 3})
    assert digest(replace(plan, steps=(step,))) == digest(plan)
    assert digest(replace(plan, timing=Timing(0.2, 0.1, 0.5, 25, "onnxruntime"))) == digest(plan)
