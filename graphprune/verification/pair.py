# SPDX-License-Identifier: Apache-2.0
"""Pairs: a pruned model and the plan beside it, which a run that was ended between the two may have parted.

Both are complete on the disk before either gets its name, but no system renames two files in one step. A pruned model
names the digest of its plan, so whoever reads one of them can say whether the other belongs to it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from graphprune.errors import GraphPruneError, quote
from graphprune.model.load import load
from graphprune.plan.file import read_plan
from graphprune.plan.schema import digest
from graphprune.surgery.marks import PLAN

if TYPE_CHECKING:
    from pathlib import Path

    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan

__all__ = ["named_plan", "original_beside", "parted", "partner_note", "plan_beside"]

_SHOWN = 8
_MODEL, _PLAN = ".pruned.onnx", ".plan.json"


def parted(pruned: Model, path: Path, *plans: Plan) -> str:
    """Say that a pruned model and a plan do not belong together; empty if they do, or the model names no plan.

    Parameters
    ----------
    pruned : Model
        Loaded from a file.
    path : Path
        The file of the plan.
    *plans : Plan
        What it holds, and what becomes of that once edits of it are followed.
    """
    named = next((entry.value for entry in pruned.proto.metadata_props if entry.key == PLAN), "")
    own = [digest(plan) for plan in plans]
    if not named or named in own or pruned.path is None:
        return ""
    model, other = quote(str(pruned.path)), quote(str(path))
    return (
        f"{model} was not made from {other} as it is now: it names a plan with the digest {quote(named[:_SHOWN])}, and "
        f"this one has {quote(own[-1][:_SHOWN])}. {_newer(pruned.path, path)}; a run was ended between the two, or the "
        f"plan was edited. `graphprune apply MODEL {path.name} --force` makes the model of this plan; the command that "
        "made the model makes both anew with --force"
    )


def partner_note(path: Path) -> str:
    """Look for what should belong to a pruned model, or to a plan, by its name; say if it does not.

    ``net.pruned.onnx`` and ``net.plan.json`` are one pair. What is not there, or cannot be read, is no partner.
    """
    if path.name.endswith(_MODEL):
        model, plan = path, path.with_name(path.name.removesuffix(_MODEL) + _PLAN)
    elif path.name.endswith(_PLAN):
        model, plan = path.with_name(path.name.removesuffix(_PLAN) + _MODEL), path
    else:
        return ""
    if model.exists() and plan.exists():
        with suppress(GraphPruneError):
            return parted(load(model), plan, read_plan(plan))
    return ""


def named_plan(pruned: Model) -> str:
    """Return the digest of the plan that a model says it was made by, empty if it says nothing."""
    return next((entry.value for entry in pruned.proto.metadata_props if entry.key == PLAN), "")


def plan_beside(pruned: Model) -> Plan | None:
    """Return the plan that a pruned model names, if it lies beside it; None if it does not, or cannot be read.

    What belongs to ``net.pruned.onnx`` and to all that was made from it (``net.pruned.recovered.onnx``) is
    ``net.plan.json``.
    """
    found = _find_plan(pruned)
    return None if found is None else found[1]


def original_beside(pruned: Model) -> Model | None:
    """Return the very file that the plan beside a pruned model was made for, if it lies there, too; else None."""
    found = _find_plan(pruned)
    if found is None:
        return None
    path, plan = found
    for name in dict.fromkeys((plan.model.name, path.name.removesuffix(_PLAN))):
        with suppress(GraphPruneError, ValueError, OSError):  # the name is what a plan says: no name of a file, perhaps
            beside = path.with_name(f"{name}.onnx")
            if beside.is_file() and (model := load(beside)).sha256 == plan.model.sha256:
                return model
    return None


def _find_plan(pruned: Model) -> tuple[Path, Plan] | None:
    """Return the plan that a pruned model names, and where it lies."""
    named = named_plan(pruned)
    if not named or pruned.path is None:
        return None
    parts = pruned.path.name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        path = pruned.path.with_name(".".join(parts[:end]) + _PLAN)
        with suppress(GraphPruneError):
            if path.exists() and digest(plan := read_plan(path)) == named:
                return path, plan
    return None


def _newer(model: Path, plan: Path) -> str:
    try:
        apart = model.stat().st_mtime_ns - plan.stat().st_mtime_ns
    except OSError:
        return "One of them is of another run"
    return f"The {'model' if apart > 0 else 'plan'} is the newer one" if apart else "Both are of the same time"
