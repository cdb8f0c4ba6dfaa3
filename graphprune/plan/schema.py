# SPDX-License-Identifier: Apache-2.0
"""The plan: which channels of which model stay, why, and what that costs; a JSON file that people may edit.

The plan stands between solving, inspecting, applying and verifying. ``kept`` of a group is
the authority; everything else follows from it and from the model (:mod:`graphprune.plan.check`
compares, and recomputes what an edit of ``kept`` made stale). :mod:`graphprune.plan.file` reads
and writes it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from graphprune.errors import UsageError, quote
from graphprune.notebook import html_table
from graphprune.report import text

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CHOSEN_BY",
    "METRICS",
    "ROLES",
    "SCHEMA",
    "Budget",
    "Certificate",
    "GroupPlan",
    "LayerPlan",
    "MemberPlan",
    "Merge",
    "Metric",
    "Plan",
    "PlanModel",
    "Role",
    "SolverRecord",
    "Step",
    "Timing",
    "digest",
    "to_json",
]

SCHEMA = "graphprune.plan/1"
CHOSEN_BY = "channels_chosen_by"
"""The solver's option that names the groups whose channels were not chosen by saliency, by how they were chosen."""

Metric = Literal["flops", "params", "size", "memory", "latency"]
METRICS: tuple[Metric, ...] = get_args(Metric)
Role = Literal["out", "in", "per_channel"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class PlanModel:
    """The model a plan was made for.

    Parameters
    ----------
    name : str
        The file's name without its suffix.
    sha256 : str
        Digest of the file, graph and weights.
    ir_version, opset : int
        As declared in the file; the opset is that of the default domain.
    inputs : mapping of str to tuple of int
        The concrete input shapes for which FLOPs were counted.
    """

    name: str
    sha256: str
    ir_version: int
    opset: int
    inputs: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Budget:
    """One limit: what was asked for, and what the model costs before and after.

    ``after <= limit``, unless somebody edited the plan to keep more.

    Parameters
    ----------
    metric : {"flops", "params", "size", "memory", "latency"}
    target : float or str
        The share of ``before`` to keep, or an amount with its unit: "300M", "5MB", "8ms".
    limit, before, after : int
        FLOPs, parameters, bytes, or nanoseconds. The limit is the target times ``before``, rounded down, or the amount.
    measured : int, optional
        What was measured on the pruned model (latency), where ``after`` is a prediction. Not part of the digest.
    """

    metric: Metric
    target: float | str
    limit: int
    before: int
    after: int
    measured: int | None = None


@dataclass(frozen=True)
class Certificate:
    """How far from the best possible objective a solution can be at most."""

    objective: float
    bound: float
    gap: float


@dataclass(frozen=True)
class SolverRecord:
    """How the widths and channels were chosen; enough to do it again."""

    name: str
    criterion: str
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    trace: tuple[Mapping[str, Any], ...] = ()
    certificate: Certificate | None = None


@dataclass(frozen=True)
class MemberPlan:
    """One axis of one initializer that loses channels together with its group.

    ``removed`` are positions along that axis; ``masked`` marks a slice that is zeroed, together
    with all other masked slices, to turn the original model into one equal to the pruned model.
    """

    initializer: str
    axis: int
    role: Role
    removed: tuple[int, ...]
    masked: bool


@dataclass(frozen=True)
class Merge:
    """A removed atom whose weights are inherited: whoever read it reads ``scale`` times the exemplar instead."""

    removed: int
    exemplar: int
    scale: float


@dataclass(frozen=True)
class GroupPlan:
    """A coupled channel group: ``kept`` are the atoms, out of ``size``, that stay.

    Of the removed atoms, those in ``merged`` live on in an exemplar, and those in ``folded`` are constant and live on
    in the biases of their readers.
    """

    id: str
    name: str
    size: int
    kept: tuple[int, ...]
    exact: bool
    members: tuple[MemberPlan, ...]
    merged: tuple[Merge, ...] = ()
    folded: tuple[int, ...] = ()


@dataclass(frozen=True)
class LayerPlan:
    """One counted node: its output width and its cost, before and after."""

    node: str
    op: str
    width: int
    pruned_width: int
    flops_before: int
    flops_after: int
    params_before: int
    params_after: int


@dataclass(frozen=True)
class Step:
    """What was done to the weights after pruning, and what it brought.

    Parameters
    ----------
    name : str
        The command that does it alone: "recover", "finetune".
    method : str
    measure : str
        What `before` and `after` are, on samples that only judge.
    before, after : float
    applied : bool
        False where the measure did not improve, so that the model stayed as it was.
    facts : mapping
        How it was done: samples, seed, rate, ...
    """

    name: str
    method: str
    measure: str
    before: float
    after: float
    applied: bool
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """How long both models took, in turn.

    Parameters
    ----------
    before, after : float
        Seconds per run of the original and of the pruned model, medians.
    ratio : float
        Median over the pairs of after by before.
    pairs : int
    runtime : str
    """

    before: float
    after: float
    ratio: float
    pairs: int
    runtime: str


@dataclass(frozen=True, repr=False)
class Plan:
    """A complete plan; `budget` is the leading one of its budgets, `further` are the others.

    `lossless` claims that the pruned model computes what the original computes. `steps` say what became of the weights
    afterwards, and `timing` how fast the result is where that was measured; what is removed does not depend on them, so
    they are not part of the digest.
    """

    model: PlanModel
    budget: Budget
    solver: SolverRecord
    groups: tuple[GroupPlan, ...]
    layers: tuple[LayerPlan, ...]
    further: tuple[Budget, ...] = ()
    lossless: bool = False
    steps: tuple[Step, ...] = ()
    timing: Timing | None = None

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """All budgets, the leading one first."""
        return (self.budget, *self.further)

    @property
    def widths(self) -> dict[str, int]:
        """The width of every counted layer once it is pruned, by its node."""
        return {layer.node: layer.pruned_width for layer in self.layers}

    def to_pandas(self) -> Any:
        """Return the layers as a ``pandas.DataFrame``: for each its width, FLOPs and parameters, before and after.

        Raises
        ------
        UsageError
            If pandas is not installed, which nothing else here needs.
        """
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise UsageError(
                "pandas is not installed, but needed for a DataFrame", hint="pip install pandas"
            ) from error
        return pandas.DataFrame([vars(layer) for layer in self.layers])

    def __repr__(self) -> str:
        costs = ", ".join(_change(budget) for budget in self.budgets)
        narrower = sum(len(group.kept) < group.size for group in self.groups)
        return (
            f"Plan({quote(self.model.name)}: {costs}; {narrower} of {text.plural(len(self.groups), 'group')} narrower)"
        )

    def _repr_html_(self) -> str:
        rows = [
            (
                text.name(layer.node),
                layer.op,
                layer.width,
                layer.pruned_width,
                text.percent(layer.flops_after, layer.flops_before),
            )
            for layer in self.layers
        ]
        return html_table(repr(self), ("layer", "op", "width", "pruned", "FLOPs left"), rows)

    @property
    def is_identity(self) -> bool:
        """Whether nothing is removed."""
        return all(len(group.kept) == group.size for group in self.groups)


def _change(budget: Budget) -> str:
    """Return what becomes of a cost."""
    write = text.duration if budget.metric == "latency" else text.count
    share = text.percent(budget.after, budget.before)
    return f"{budget.metric} {write(budget.before)} -> {write(budget.after)} ({share})"


def digest(plan: Plan) -> str:
    """Return the SHA-256 of the plan's content: the same for every layout of the same plan.

    What happened afterwards does not count: a pruned model names the digest of its plan, and is measured later.
    """
    data = to_json(plan)
    for afterwards in ("steps", "timing"):
        data.pop(afterwards, None)
    for budget in (data["budget"], *data.get("further_budgets", ())):
        budget.pop("measured", None)
    content = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(content.encode("ascii")).hexdigest()


def to_json(plan: Plan) -> dict[str, Any]:
    """Return the content by key, in the order of the schema; nothing is copied deeply, plans can be large."""
    solver = vars(plan.solver).copy()
    certificate = solver.pop("certificate")
    if certificate is not None:
        solver["certificate"] = vars(certificate)
    further = {"further_budgets": [_without_none(budget) for budget in plan.further]} if plan.further else {}
    return {
        "schema": SCHEMA,
        "model": vars(plan.model),
        "budget": _without_none(plan.budget),
        **further,
        "solver": solver,
        "groups": [_group(group) for group in plan.groups],
        "layers": [vars(layer) for layer in plan.layers],
        **({"lossless": True} if plan.lossless else {}),
        **({"steps": [vars(step) for step in plan.steps]} if plan.steps else {}),
        **({"timing": vars(plan.timing)} if plan.timing else {}),
    }


def _group(group: GroupPlan) -> dict[str, Any]:
    data = {**vars(group), "members": [vars(member) for member in group.members]}
    merged, folded = data.pop("merged"), data.pop("folded")
    return {
        **data,
        **({"merged": [vars(merge) for merge in merged]} if merged else {}),
        **({"folded": folded} if folded else {}),
    }


def _without_none(record: Budget) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if value is not None}
