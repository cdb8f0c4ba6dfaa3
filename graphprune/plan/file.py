# SPDX-License-Identifier: Apache-2.0
"""The plan file: a plan as JSON, written for people, and read with distrust."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from graphprune.checks import contained
from graphprune.errors import PlanError, UsageError, near_file, quote
from graphprune.plan import strict_json
from graphprune.plan.budget import parse_amount
from graphprune.plan.recorded import check_facts, check_options, check_trace
from graphprune.plan.schema import (
    METRICS,
    ROLES,
    SCHEMA,
    Budget,
    Certificate,
    GroupPlan,
    LayerPlan,
    MemberPlan,
    Merge,
    Plan,
    PlanModel,
    SolverRecord,
    Step,
    Timing,
    to_json,
)
from graphprune.regular_file import check_regular

if TYPE_CHECKING:
    from graphprune.plan.strict_json import Value

__all__ = ["dumps", "loads", "plan_bytes", "read_plan", "write_plan"]

_MOST_BYTES = 256 * 2**20
_LONGEST_AXIS = 2**31 - 1
_HEX = frozenset("0123456789abcdef")


def dumps(plan: Plan) -> str:
    """Return the plan as JSON text, with keys in the order of the schema."""
    return strict_json.dumps(to_json(plan))


def loads(text: str, source: str = "plan") -> Plan:
    """Parse and check a plan, as far as that is possible without its model.

    Parameters
    ----------
    text : str
        JSON text of the schema ``graphprune.plan/1``.
    source : str
        What to call the text in messages.

    Raises
    ------
    PlanError
        If the text is not strict JSON, has another schema, unknown or missing keys, a value of the
        wrong type, an index that is out of range, unsorted or repeated.
    """
    root = strict_json.loads(text, source)
    if isinstance(root.data, dict) and root.data.get("schema") != SCHEMA:
        schema = root.data.get("schema")
        known = f"this version of graphprune reads {SCHEMA}"
        if not isinstance(schema, str):
            root.fail("no schema is named, so this is not a plan", hint=known)
        root.fail(f"the schema {quote(schema)} is unknown", hint=known)
    top = root.fields(
        ["schema", "model", "budget", "solver", "groups", "layers"], ["further_budgets", "lossless", "steps", "timing"]
    )
    return Plan(
        model=_model(top["model"]),
        budget=_budget(top["budget"]),
        solver=_solver(top["solver"]),
        groups=_groups(top["groups"]),
        layers=tuple(_layer(value) for value in top["layers"].items()),
        further=tuple(_budget(value) for value in top["further_budgets"].items()) if "further_budgets" in top else (),
        lossless="lossless" in top and top["lossless"].boolean(),
        steps=tuple(_step(value) for value in top["steps"].items()) if "steps" in top else (),
        timing=_timing(top["timing"]) if "timing" in top else None,
    )


@contained
def read_plan(path: str | Path) -> Plan:
    """Read a plan file.

    Raises
    ------
    PlanError
        If the file cannot be read, is larger than 256 MiB, is not UTF-8 (a byte order mark
        counts as such), or does not pass :func:`loads`.
    """
    path = Path(path)
    source = quote(path.name)
    try:
        if path.exists():
            check_regular(path, PlanError)
        if not path.is_file():
            raise PlanError(f"no plan file at {quote(str(path))}", hint=near_file(path))
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise PlanError(f"cannot read {quote(str(path))}: {reason}") from None
    if len(data) > _MOST_BYTES:
        raise PlanError(f"{source} is larger than {_MOST_BYTES >> 20} MiB, too large for a plan")
    if data.startswith(b"\xef\xbb\xbf"):
        raise PlanError(f"{source} starts with a byte order mark", hint="save the file as UTF-8 without BOM")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PlanError(
            f"{source} is not UTF-8 text (byte {error.start})",
            hint="a plan is a .json file, as `graphprune solve` writes it beside the pruned model",
        ) from None
    return loads(text, source)


@contained
def write_plan(plan: Plan, path: str | Path, *, force: bool = False) -> Path:
    """Write a plan file, atomically.

    Parameters
    ----------
    plan : Plan
        The plan.
    path : str or Path
        Where to.
    force : bool
        Replace an existing file.

    Raises
    ------
    OutputError
        If ``path`` exists and ``force`` is false, or it cannot be written.
    """
    from graphprune.model.write import write_bytes_atomically

    write_bytes_atomically(plan_bytes(plan), Path(path), force=force)
    return Path(path)


def plan_bytes(plan: Plan) -> bytes:
    """Return what a plan file holds."""
    return dumps(plan).encode("ascii")


def _model(value: Value) -> PlanModel:
    keys = value.fields(["name", "sha256", "ir_version", "opset", "inputs"])
    sha256 = keys["sha256"].text()
    if len(sha256) != hashlib.sha256().digest_size * 2 or not _HEX.issuperset(sha256):
        keys["sha256"].fail("expected 64 hexadecimal digits in lower case")
    inputs = {
        name: tuple(size.integer(0, _LONGEST_AXIS) for size in shape.items())
        for name, shape in keys["inputs"].entries().items()
    }
    return PlanModel(keys["name"].text(), sha256, keys["ir_version"].integer(1), keys["opset"].integer(1), inputs)


def _budget(value: Value) -> Budget:
    keys = value.fields(["metric", "target", "limit", "before", "after"], ["measured"])
    metric = keys["metric"].text()
    if metric not in METRICS:
        keys["metric"].fail(f"unknown metric {quote(metric)}", hint=f"known metrics are {', '.join(METRICS)}")
    target: float | str
    if isinstance(keys["target"].data, str):
        target = keys["target"].text()
        try:
            parse_amount(metric, target)
        except UsageError as error:
            keys["target"].fail(error.message, hint=error.hint)
    else:
        target = float(keys["target"].number())
        if not 0 < target <= 1:
            keys["target"].fail(f"{target:g} is outside 0 < target <= 1")
    limit, before, after = (keys[name].integer(0) for name in ("limit", "before", "after"))
    measured = keys["measured"].integer(0) if "measured" in keys else None
    return Budget(metric, target, limit, before, after, measured)


def _step(value: Value) -> Step:
    keys = value.fields(["name", "method", "measure", "before", "after", "applied", "facts"])
    check_facts(keys["facts"])
    name, method, measure = (keys[key].text() for key in ("name", "method", "measure"))
    before, after = (float(keys[key].number()) for key in ("before", "after"))
    return Step(name, method, measure, before, after, keys["applied"].boolean(), keys["facts"].data)


def _timing(value: Value) -> Timing:
    keys = value.fields(["before", "after", "ratio", "pairs", "runtime"])
    before, after, ratio = (float(keys[name].number()) for name in ("before", "after", "ratio"))
    for name, figure in (("before", before), ("after", after), ("ratio", ratio)):
        if figure < 0:
            keys[name].fail(f"{figure:g} is below 0")
    return Timing(before, after, ratio, keys["pairs"].integer(1), keys["runtime"].text())


def _solver(value: Value) -> SolverRecord:
    keys = value.fields(["name", "criterion", "seed", "options", "trace"], ["certificate"])
    check_options(keys["options"])
    for entry in keys["trace"].items():
        check_trace(entry)
    trace = tuple(entry.data for entry in keys["trace"].items())
    certificate = None
    if "certificate" in keys:
        parts = keys["certificate"].fields(["objective", "bound", "gap"])
        certificate = Certificate(*(float(parts[name].number()) for name in ("objective", "bound", "gap")))
    seed = keys["seed"].integer(0)
    return SolverRecord(keys["name"].text(), keys["criterion"].text(), seed, keys["options"].data, trace, certificate)


def _groups(value: Value) -> tuple[GroupPlan, ...]:
    groups: dict[str, GroupPlan] = {}
    for entry in value.items():
        group = _group(entry)
        if group.id in groups:
            entry.fail(f"the group {quote(group.id)} appears twice")
        groups[group.id] = group
    return tuple(groups.values())


def _group(value: Value) -> GroupPlan:
    keys = value.fields(["id", "name", "size", "kept", "exact", "members"], ["merged", "folded"])
    label = f"group {quote(keys['id'].text())}"
    size = keys["size"].integer(1, _LONGEST_AXIS)
    kept = keys["kept"].at(f"{label}, kept").ascending(size)
    members = tuple(_member(member, label) for member in keys["members"].items())
    merged = tuple(_merge(merge, label, size) for merge in keys["merged"].items()) if "merged" in keys else ()
    folded = keys["folded"].at(f"{label}, folded").ascending(size) if "folded" in keys else ()
    group = GroupPlan(keys["id"].text(), keys["name"].text(), size, kept, keys["exact"].boolean(), members)
    return replace(group, merged=merged, folded=folded)


def _merge(value: Value, group: str, size: int) -> Merge:
    keys = value.at(f"{group}, merged").fields(["removed", "exemplar", "scale"])
    scale = float(keys["scale"].number())
    return Merge(keys["removed"].integer(0, size - 1), keys["exemplar"].integer(0, size - 1), scale)


def _member(value: Value, group: str) -> MemberPlan:
    keys = value.fields(["initializer", "axis", "role", "removed", "masked"])
    role, name = keys["role"].text(), keys["initializer"].text()
    if role not in ROLES:
        keys["role"].fail(f"unknown role {quote(role)}", hint=f"known roles are {', '.join(ROLES)}")
    axis = keys["axis"].integer(0, 63)
    removed = keys["removed"].at(f"{group}, removed from {quote(name)} axis {axis}").ascending(_LONGEST_AXIS)
    return MemberPlan(name, axis, role, removed, keys["masked"].boolean())


def _layer(value: Value) -> LayerPlan:
    counts = ("width", "pruned_width", "flops_before", "flops_after", "params_before", "params_after")
    keys = value.fields(["node", "op", *counts])
    return LayerPlan(keys["node"].text(), keys["op"].text(), *(keys[name].integer(0) for name in counts))
