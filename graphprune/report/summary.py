# SPDX-License-Identifier: Apache-2.0
"""The summary of a run: what was planned, what it saves, whether it is proven, and where the files are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from graphprune.plan import digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from graphprune.plan import Plan
    from graphprune.report.bench import Timing

__all__ = ["Check", "Summary", "Total", "plan_json", "summary_json"]


@dataclass(frozen=True)
class Total:
    """One total, before and after."""

    before: int
    after: int

    @property
    def ratio(self) -> float:
        """The share that is left; 1 where there was nothing."""
        return self.after / self.before if self.before else 1.0

    def as_json(self) -> dict[str, Any]:
        """Return the total as a JSON object."""
        return {"before": self.before, "after": self.after, "ratio": self.ratio}


@dataclass(frozen=True)
class Check:
    """The outcome of the verification, in the words of the report.

    Parameters
    ----------
    status : str
        "verified", "skipped", "identity".
    error : float
        Largest deviation from the masked original, relative.
    tolerance : float
        What would still have passed.
    effect : float
        How far masking moved the outputs, relative: a check that moves nothing proves nothing.
    compared : int
        Number of tensors compared.
    """

    status: str
    error: float = 0.0
    tolerance: float = 0.0
    effect: float = 0.0
    compared: int = 0


@dataclass(frozen=True)
class Summary:
    """Everything that `solve` and `apply` report.

    Parameters
    ----------
    command : str
        Name of the command.
    plan : Plan
        The plan that was carried out.
    totals : mapping of str to Total
        "flops", "params" and "file size" (bytes).
    check : Check
        The verification.
    files : mapping of str to str or None
        Paths of "model", "output" and "plan"; None for what was not written.
    timing : Timing, optional
        From ``--bench``.
    notes : tuple of str
        What the user should know besides.
    """

    command: str
    plan: Plan
    totals: Mapping[str, Total]
    check: Check
    files: Mapping[str, str | None]
    timing: Timing | None = None
    notes: tuple[str, ...] = ()


def summary_json(summary: Summary) -> dict[str, Any]:
    """Return a summary as one JSON object."""
    return {
        "command": summary.command,
        **summary.files,
        **{key.replace(" ", "_"): total.as_json() for key, total in summary.totals.items()},
        "verification": asdict(summary.check),
        "bench": asdict(summary.timing) if summary.timing else None,
        "notes": list(summary.notes),
        **_widths(summary.plan),
    }


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return what `inspect` shows of a plan as one JSON object."""
    return {"command": "inspect", "model": asdict(plan.model), "digest": digest(plan), **_widths(plan)}


def _widths(plan: Plan) -> dict[str, Any]:
    return {
        "budget": asdict(plan.budget),
        "solver": {"name": plan.solver.name, "criterion": plan.solver.criterion, "seed": plan.solver.seed},
        "layers": [asdict(layer) for layer in plan.layers],
        "groups": [
            {
                "id": group.id,
                "name": group.name,
                "size": group.size,
                "kept": len(group.kept),
                "exact": group.exact,
                "members": len(group.members),
            }
            for group in plan.groups
        ],
    }
