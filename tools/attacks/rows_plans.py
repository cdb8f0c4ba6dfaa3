# SPDX-License-Identifier: Apache-2.0
"""Rows G: plans that are damaged, made for another model, or edited."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from attacks.bench import Bench, Row, Trial, check, from_tests

__all__ = ["ROWS"]

bad = from_tests("support/bad_files")
Plan = dict[str, Any]


def _made(bench: Bench) -> Plan:
    """Write the small model and a plan for it; return the plan."""
    bench.write(bad.small_model())
    bench.done(bench.solve("m.onnx", "--params", "0.8", "-o", "first.onnx", "--plan", "p.json"))
    plan: Plan = json.loads((bench.folder / "p.json").read_text("utf-8"))
    return plan


def _applied(bench: Bench, content: bytes, says: str) -> None:
    bench.write(content, "q.json")
    bench.refused(bench.graphprune("apply", "m.onnx", "q.json"), says)
    check(not (bench.folder / "m.pruned.onnx").exists(), "a model was written")


def text(content: bytes | str, says: str) -> Trial:
    """Return the trial of a plan file with such content."""

    def trial(bench: Bench) -> None:
        bench.write(bad.small_model())
        _applied(bench, content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"), says)

    return trial


def edit(change: Callable[[Plan], object], says: str) -> Trial:
    """Return the trial of an edited plan."""

    def trial(bench: Bench) -> None:
        plan = copy.deepcopy(_made(bench))
        change(plan)
        _applied(bench, json.dumps(plan).encode(), says)

    return trial


def place(path: str, value: object) -> Callable[[Plan], object]:
    """Return an edit that puts a value in a place such as ``groups.0.kept``."""

    def change(plan: Plan) -> None:
        target: Any = plan
        *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
        for key in parents:
            target = target[key]
        target[last] = value

    return change


def _drop(key: str) -> Callable[[Plan], object]:
    return lambda plan: plan.pop(key)


def _encoded(encoding: str) -> Trial:
    def trial(bench: Bench) -> None:
        plan = _made(bench)
        _applied(bench, json.dumps(plan).encode(encoding), "UTF-8|BOM|not JSON|byte order")

    return trial


def _ten_gigabytes(bench: Bench) -> None:
    bench.write(bad.small_model())
    with (bench.folder / "q.json").open("wb") as file:
        file.truncate(10 * 10**9)
    bench.refused(bench.graphprune("apply", "m.onnx", "q.json"), "bytes|large|limit")


def _other_model(bench: Bench) -> None:
    plan = _made(bench)
    bench.write(bad.small_model(seed=1), "other.onnx")
    bench.write(json.dumps(plan).encode(), "q.json")
    bench.refused(bench.graphprune("apply", "other.onnx", "q.json"), "another file.*--rebind")
    bench.done(bench.graphprune("apply", "other.onnx", "q.json", "--rebind"))


def _other_graph(bench: Bench) -> None:
    plan = _made(bench)
    other = bad.small_model()
    other.graph.node[1].op_type = "Sigmoid"
    bench.write(other, "other.onnx")
    bench.write(json.dumps(plan).encode(), "q.json")
    for more in ((), ("--rebind",)):
        bench.refused(bench.graphprune("apply", "other.onnx", "q.json", *more), "model|graph|structure|node")


def _by_hand(bench: Bench) -> None:
    """Somebody keeps other channels, and says nothing of what that removes."""
    plan = _made(bench)
    plan["groups"][0]["kept"] = [1, 2, 5]
    bench.write(json.dumps(plan).encode(), "q.json")
    done = bench.done(bench.graphprune("apply", "m.onnx", "q.json"))
    check("verified" in done.out, "not verified")


def _identity(bench: Bench) -> None:
    path = bench.write(bad.small_model())
    bench.done(bench.solve("m.onnx", "--flops", "1", "-o", "first.onnx", "--plan", "p.json"))
    bench.done(bench.graphprune("apply", "m.onnx", "p.json"))
    check((bench.folder / "m.pruned.onnx").read_bytes() == path.read_bytes(), "the bytes are others")


def _kept(value: object) -> Callable[[Plan], object]:
    return place("groups.0.kept", value)


_HOSTILE = "../../etc/passwd"
ROWS = (
    Row("G1", "what is no JSON, in another encoding, endless or nested", "refused before it is read whole", {
        "empty": text("", "not JSON"), "half": text('{"a": 1', "not JSON"), "list": text("[]", "expected an object"),
        "byte order mark": _encoded("utf-8-sig"), "UTF-16": _encoded("utf-16"), "10 GB": _ten_gigabytes,
        "nested": text("[" * 200_000, "nested too deeply|not JSON"), "binary": text(bytes(range(256)), "")}),
    Row("G2", "numbers that are none, doubled keys, truth values as indices", "refused", {
        "NaN": text('{"a": NaN}', "NaN is not a number"), "infinity": text('{"a": -Infinity}', "not a number"),
        "1e999": text('{"a": 1e999}', "too large"), "key twice": text('{"a": 1, "a": 2}', "'a' appears twice"),
        "5000 digits": text('{"a": ' + "9" * 5000 + "}", "5000 digits"),
        "surrogate": text('{"a": "\\ud800"}', "lone surrogate"),
        "true": edit(_kept([True]), "true, not an integer"), "1.0": edit(_kept([1.0]), "1.0, not an integer")}),
    Row("G3", "a plan for other weights or another graph", "refused; --rebind where only weights differ", {
        "weights": _other_model, "graph": _other_graph,
        "digest": edit(place("model.sha256", "0" * 64), "another model|other weights|model")}),
    Row("G4", "another schema, unknown or missing keys", "refused", {
        "newer": edit(place("schema", "graphprune.plan/99"), "unknown"), 
        "no schema": edit(_drop("schema"), "no schema"),
        "unknown key": edit(place("surprise", 1), "unknown key 'surprise'"),
        "missing key": edit(_drop("budget"), "'budget' is missing")}),
    Row("G5", "indices that are negative, too large, doubled, out of order, none", "refused with group and index", {
        "negative": edit(_kept([-1]), "index -1"), "too large": edit(_kept([0, 99]), "index 99"),
        "doubled": edit(_kept([2, 2]), "appears twice"), "order": edit(_kept([2, 0]), "comes after 2"),
        "none": edit(_kept([]), "kept|no channel|empty|one")}),
    Row("G6", "members that contradict each other, parts of groups, unknown tensors", "refused", {
        "contradiction": edit(place("groups.0.members.0.removed", [0]), "contradict"),
        "member lost": edit(lambda p: p["groups"][0]["members"].pop(), "members"),
        "unknown tensor": edit(place("groups.0.members.0.initializer", "nobody"), "nobody"),
        "unknown group": edit(place("groups.0.id", "g009"), "g009"),
        "group twice": edit(lambda p: p["groups"].append(p["groups"][0]), "appears twice"),
        "no groups": edit(place("groups", []), "lacks the group|groups")}),
    Row("G7", "a plan that removes what must stay", "refused", {
        "output": edit(lambda p: p["groups"].append({**p["groups"][0], "id": "g001", "name": "y"}),
                       "g001|does not have"),
        "input": edit(place("groups.0.members.0.axis", 1), "axis")}),
    Row("G8", "paths, classes, billions of indices, tags of other languages", "refused; nothing is evaluated", {
        "path": edit(place("groups.0.members.0.initializer", _HOSTILE), "member|initializer|passwd"),
        "class": edit(place("layers.0.node", {"__class__": "os.system"}), "expected a string"),
        "billion": edit(_kept([10**9]), "1000000000"), "yaml": text("!!python/object:os.system", "not JSON"),
        "pickle": text(b"\x80\x04\x95\x05\x00.", ""),
        "many": edit(_kept(list(range(10**6))), "index 8|outside")}),
    Row("G9", "costs that are not those of the plan", "refused", {
        "flops": edit(place("layers.0.flops_after", 1), "cost|flops|layer|differ"),
        "measure": edit(place("budget.after", 1), "budget|cost|differ")}),
    Row("G10", "an edit by hand", "followed", {"kept": _by_hand}),
    Row("G11", "a plan that removes nothing", "the same bytes", {"identity": _identity}),
)  # fmt: skip
