# SPDX-License-Identifier: Apache-2.0
"""Which files belong together: plans, the models that they were made for, and what was pruned by them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from graphprune.errors import UsageError, quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan

__all__ = ["Belonging", "Trio"]

_PLAN, _PRUNED, _MODEL = ".plan.json", ".pruned.onnx", ".onnx"


@dataclass(frozen=True)
class Trio:
    """A plan, and the files that should belong to it.

    Attributes
    ----------
    path : Path
        Of the plan.
    plan : Plan
    model : Path
        The original.
    pruned : Path or None
        What should be what the plan makes of it.
    """

    path: Path
    plan: Plan
    model: Path
    pruned: Path | None


@dataclass
class Belonging:
    """What was found of some files.

    Attributes
    ----------
    trios : list of Trio
        One for each plan that is named or lies beside a model that is named.
    quantised : list of Path
        Models in lower precision, which are no longer what a plan makes.
    without_plan : list of Path
        Models that no plan is about.
    """

    trios: list[Trio] = field(default_factory=list)
    quantised: list[Path] = field(default_factory=list)
    without_plan: list[Path] = field(default_factory=list)
    _models: dict[Path, Model] = field(default_factory=dict)

    @classmethod
    def of(cls, files: Sequence[Path], *, hook: bool = False) -> Belonging:
        """Sort files; all of them are read, whatever becomes of them.

        Parameters
        ----------
        files : sequence of Path
        hook : bool
            Whether any files may be among them, so that a model belongs to the only plan just if it says so itself.

        Raises
        ------
        InputError
            If one cannot be read.
        UsageError
            If the original of a plan is not found.
        """
        from graphprune.plan.file import read_plan

        known = cls()
        named = [path for path in dict.fromkeys(files) if path.suffix.lower() == ".json"]
        models = [path for path in dict.fromkeys(files) if path not in named]
        beside = [path.with_name(path.name.removesuffix(_PRUNED).removesuffix(_MODEL) + _PLAN) for path in models]
        plans = {path: read_plan(path) for path in dict.fromkeys((*named, *(each for each in beside if each.exists())))}
        for path in models:
            known.load(path)
        for path, plan in plans.items():
            known._add(path, plan, models, alone=len(plans) == 1 and not hook)
        taken = {path for trio in known.trios for path in (trio.model, trio.pruned)}
        left = [path for path in models if path not in taken]
        known.quantised = [path for path in left if known.trios and known._format(path) != "fp32"]
        known.without_plan = [path for path in left if path not in known.quantised]
        return known

    def load(self, path: Path) -> Model:
        """Return a model, which is read once."""
        from graphprune import api

        if path not in self._models:
            self._models[path] = api.load(path)
        return self._models[path]

    def _add(self, path: Path, plan: Plan, given: Sequence[Path], *, alone: bool) -> None:
        """Find the files of a plan: among those that are given, then beside it.

        Raises
        ------
        UsageError
            If no original is found.
        """
        stem = path.name.removesuffix(_PLAN)
        named = tuple(dict.fromkeys(path.with_name(f"{name}{_MODEL}") for name in (plan.model.name, stem)))
        there = [each for each in named if each.is_file()]
        exact = (each for each in given if self.load(each).sha256 == plan.model.sha256)
        meant = (each for each in given if (each in named or alone) and not self._digest(each))
        found = (each for each in there if self.load(each).sha256 == plan.model.sha256)
        original = next((each for some in (exact, meant, found, there) for each in some), None)
        if original is None:
            looked = " and ".join(quote(str(each)) for each in named)
            raise UsageError(
                f"the model of {quote(str(path))} is not found: {looked} would be its name",
                hint=f"name it: graphprune check {path} MODEL.onnx",
            )
        own = self._format(original)
        others = [each for each in given if each != original and self._format(each) == own]
        self.trios.append(Trio(path, plan, original, self._pruned(path, plan, others, alone=alone)))

    def _pruned(self, path: Path, plan: Plan, given: Sequence[Path], *, alone: bool) -> Path | None:
        """Return what should have been pruned by a plan: by what it says of itself, then by its name."""
        from graphprune.plan.schema import digest

        stem = path.name.removesuffix(_PLAN)
        first, second = path.with_name(f"{stem}{_PRUNED}"), path.with_name(f"{stem}{_MODEL}")
        own = digest(plan)
        by_mark = (each for each in given if self._digest(each) == own)
        by_name = (each for each in given if each in (first, second))
        beside = (each for each in (first, second) if each.is_file() and (each == first or self._digest(each)))
        candidates = (by_mark, by_name, given if alone else (), beside)
        return next((each for some in candidates for each in some), None)

    def _digest(self, path: Path) -> str:
        """Return the digest of the plan by which a model says that it was pruned; empty if it says nothing."""
        from graphprune.surgery.marks import PLAN

        return next((entry.value for entry in self.load(path).proto.metadata_props if entry.key == PLAN), "")

    def _format(self, path: Path) -> str:
        """Return in what a model is stored."""
        from graphprune.export.deployment import number_format

        return number_format(self.load(path).proto)
