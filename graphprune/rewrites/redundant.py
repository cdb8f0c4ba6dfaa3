# SPDX-License-Identifier: Apache-2.0
"""Lossless: which channels can go without changing what the network computes.

A removed channel is masked at every place that sums over it, and nowhere else. So it may go if, at each such place,

- it is zero (its filters are, or its scale is, or what comes before a `Relu` is never positive), or
- its columns are zero in all rows that stay, or
- it is constant, and the reader can take the constant over (see `folding`), or
- it equals another channel that stays, and their columns can be added up (see `merging`).

What goes lets other channels become constant, equal or unread, so this is repeated until nothing more is found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graphprune.array_types import Ints, Mask
from graphprune.errors import PlanError, quote
from graphprune.plan.keep_mask import keep_mask
from graphprune.plan.schema import Merge
from graphprune.rewrites.fold import bias_of
from graphprune.rewrites.merge import column_changes, equal_atoms
from graphprune.rewrites.paths import find_paths
from graphprune.rewrites.ranges import find_ranges
from graphprune.rewrites.readers import Sites
from graphprune.rewrites.reweigh import WeightEdits, reweigh

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.labels.space import Contraction
    from graphprune.plan.schema import Plan
    from graphprune.rewrites.ranges import Ranges
    from graphprune.rewrites.readers import Reader

__all__ = ["Lossless", "check_lossless", "find_lossless"]


@dataclass(frozen=True, eq=False)
class Lossless:
    """What may go.

    Attributes
    ----------
    kept : tuple of ndarray of int64
        Per group the atoms that stay.
    merged : tuple of tuple of Merge
    folded : tuple of tuple of int
        Removed atoms that are constant, but not zero, where they are read.
    """

    kept: tuple[Ints, ...]
    merged: tuple[tuple[Merge, ...], ...]
    folded: tuple[tuple[int, ...], ...]


def find_lossless(analysis: Analysis) -> Lossless:
    """Find all channels that change nothing; every group keeps at least one.

    Complexity: one pass over all weights per round; rounds end when nothing more is found.
    """
    return _Search(analysis).run()


def check_lossless(analysis: Analysis, plan: Plan) -> None:
    """Refuse a plan that claims to be lossless, but removes channels that matter in this model.

    Raises
    ------
    PlanError
    """
    search = _Search(analysis)
    search.keep = keep_mask(analysis, plan)
    starts = analysis.grouping.starts.tolist()
    for start, group in zip(starts, plan.groups, strict=False):
        search.exemplar.update((start + merge.removed, start + merge.exemplar) for merge in group.merged)
    allowed = search.judged()
    paths = find_paths(search.analysis, Sites(search.analysis))
    for group, real, path in zip(plan.groups, search.analysis.groups, paths, strict=True):
        if not group.merged:
            continue
        equal = equal_atoms(search.analysis, real, path, search.masks)
        for merge in group.merged:
            if equal[merge.removed] != equal[merge.exemplar]:
                _refuse(group.id, f"atom {merge.removed} is merged into atom {merge.exemplar}, which it does not equal")
    for start, group in zip(starts, plan.groups, strict=False):
        merged = {merge.removed for merge in group.merged}
        for atom in set(range(group.size)) - set(group.kept) - merged:
            if not allowed.removable[start + atom]:
                _refuse(group.id, f"atom {atom} matters to what the model computes")
            if allowed.folded[start + atom] and atom not in group.folded:
                _refuse(group.id, f"atom {atom} is constant, but not zero, and has to be folded")
            if atom in group.folded and not allowed.folded[start + atom]:
                _refuse(group.id, f"atom {atom} is folded, but is zero or never read")


def _refuse(group: str, text: str) -> None:
    raise PlanError(
        f"the plan claims to be lossless, but in group {quote(group)} {text}",
        hint="solve again with --lossless, or remove `lossless` from the plan",
    )


@dataclass(frozen=True, eq=False)
class _Verdict:
    """Which atoms may go without being merged, and which of them are constant, but not zero; shape (atoms,)."""

    removable: Mask
    folded: Mask


class _Search:
    """The state of the search.

    Attributes
    ----------
    keep : ndarray of bool, shape (atoms,)
    exemplar : dict of int to int
        Merged atoms, and what they are merged into.
    """

    def __init__(self, analysis: Analysis) -> None:
        self._original = self.analysis = analysis
        self.keep: Mask = np.ones(len(analysis.grouping.group_of), dtype=np.bool_)
        self.folded: Mask = np.zeros_like(self.keep)
        self.exemplar: dict[int, int] = {}
        self._judged: tuple[tuple[int, int], ...] = ()
        self._judge: _Judge | None = None
        self._exact = np.array([group.exact for group in analysis.groups], dtype=np.bool_)
        self._axes: dict[tuple[str, int], list[npt.NDArray[np.int64]]] = {}
        for use in analysis.scope.space.uses:
            root = analysis.constants.trace(use.tensor)
            for labels, axis in zip(use.axes, root.axes, strict=True):
                if axis is not None:
                    atoms = analysis.grouping.atom_of[labels.expand()]
                    self._axes.setdefault((root.tensor, axis), []).append(atoms)

    def run(self) -> Lossless:
        """Repeat until nothing more is found."""
        while True:
            self._remove()
            if not self._merge():
                return self._result()

    def masks(self, tensor: str, axis: int) -> Mask | None:
        """Return which slices of a stored tensor somebody still reads; None where all of them count."""
        masks = [self.stays(atoms) for atoms in self._axes.get((tensor, axis), ())]
        return np.logical_or.reduce(masks) if masks else None

    def judged(self) -> _Verdict:
        """Return which atoms may go, with what stays now."""
        key = tuple(sorted(self.exemplar.items()))
        if self._judge is None or self._judged != key:
            edits = WeightEdits(column_changes(self._original, self._merges()))
            self.analysis = reweigh(self._original, edits).analysis
            gone = np.zeros_like(self.keep)
            gone[list(self.exemplar)] = True
            self._judged, self._judge = key, _Judge(self, find_ranges(self.analysis, gone))
        return self._judge.verdict()

    def stays(self, atoms: Ints) -> Mask:
        """Return which slices with these atoms stay."""
        return np.asarray((atoms < 0) | self.keep[atoms])

    def _merges(self) -> tuple[tuple[Merge, ...], ...]:
        starts, group_of = self._original.grouping.starts, self._original.grouping.group_of
        merges_of: list[list[Merge]] = [[] for _ in self._original.groups]
        for removed, exemplar in sorted(self.exemplar.items()):
            number = int(group_of[removed])
            start = int(starts[number])
            merges_of[number].append(Merge(removed - start, exemplar - start, 1.0))
        return tuple(tuple(merges) for merges in merges_of)

    def _remove(self) -> None:
        """Remove what may go, until nothing more may; merged atoms go with their exemplar."""
        leaving: Mask = self.keep
        while leaving.any():
            verdict = self.judged()
            leaving = self.keep & verdict.removable & self._exact[self._original.grouping.group_of]
            for start, size in zip(
                self._original.grouping.starts.tolist(), self._original.grouping.sizes.tolist(), strict=False
            ):
                own = slice(start, start + size)
                if not (self.keep[own] & ~leaving[own]).any():
                    leaving[start + int(np.argmax(self.keep[own]))] = False
            self.keep &= ~leaving
            self.folded |= leaving & verdict.folded
            for removed, exemplar in list(self.exemplar.items()):
                if leaving[exemplar]:
                    del self.exemplar[removed]
                    self.folded[removed] = verdict.folded[exemplar]

    def _merge(self) -> bool:
        """Merge atoms that equal an earlier one; return whether there were any."""
        merged = False
        sites = Sites(self.analysis)
        for number, path in enumerate(find_paths(self.analysis, sites)):
            if path.grade == "none" or not self._exact[number]:
                continue
            start = int(self.analysis.grouping.starts[number])
            first: dict[int, int] = {}
            group = self.analysis.groups[number]
            for atom, same in enumerate(equal_atoms(self.analysis, group, path, self.masks).tolist()):
                if not self.keep[start + atom]:
                    continue
                exemplar = first.setdefault(same, atom)
                if exemplar != atom:
                    self._merge_into(start + atom, start + exemplar)
                    merged = True
        return merged

    def _merge_into(self, removed: int, exemplar: int) -> None:
        self.keep[removed] = False
        for earlier, target in list(self.exemplar.items()):
            if target == removed:
                self.exemplar[earlier] = exemplar
        self.exemplar[removed] = exemplar

    def _result(self) -> Lossless:
        starts = self._original.grouping.starts.tolist()
        sizes = self._original.grouping.sizes.tolist()
        kept = tuple(
            np.flatnonzero(self.keep[start : start + size]) for start, size in zip(starts, sizes, strict=False)
        )
        folded = tuple(
            tuple(np.flatnonzero(self.folded[start : start + size]).tolist())
            for start, size in zip(starts, sizes, strict=False)
        )
        return Lossless(kept, self._merges(), folded)


class _Judge:
    """Looks at every contraction, with the channels that stay now."""

    def __init__(self, search: _Search, ranges: Ranges) -> None:
        self._analysis = search.analysis
        self._search = search
        self._ranges = ranges
        self._sites = Sites(search.analysis)
        self._weights = {(use.node.index, use.slot): use for use in search.analysis.scope.space.uses}
        self._blocked: Mask = np.zeros(0, dtype=np.bool_)
        self._folded: Mask = np.zeros(0, dtype=np.bool_)

    def verdict(self) -> _Verdict:
        """Return what may go."""
        count = len(self._search.keep) + 1
        self._blocked, self._folded = np.zeros(count, dtype=np.bool_), np.zeros(count, dtype=np.bool_)
        for contraction in self._sites.contractions:
            self._look(contraction)
        return _Verdict(~self._blocked[:-1], self._folded[:-1] & ~self._blocked[:-1])

    def _look(self, contraction: Contraction) -> None:
        """Block the atoms that matter at one contraction."""
        atoms = self._analysis.grouping.atom_of[contraction.labels.expand()]
        name = contraction.node.inputs[contraction.slot]
        if name in self._analysis.shapes.constant or contraction.mean == "kept":
            self._blocked[atoms] = True
            return
        interval = self._ranges.along(name, contraction.axis)
        idle = interval.zero | self._passes(contraction, atoms)
        site = self._sites.at(contraction)
        if site is not None and not idle.all():
            idle |= self._unread(site)
            constant = interval.point & ~idle
            if constant.any() and self._sites.editable(site) and bias_of(self._analysis, site) is not None:
                self._folded[atoms[constant]] = True
                idle |= constant
        self._blocked[atoms[~idle]] = True

    def _unread(self, site: Reader) -> Mask:
        """Return which columns of a weight are zero in every row that stays."""
        analysis = self._analysis
        name = site.node.inputs[site.weight]
        if name in analysis.scope.quantised:
            weight = analysis.read(name)
        else:
            try:
                weight = analysis.constants.array(name)
            except KeyError:
                return np.zeros(analysis.shapes.dims[name][site.column], dtype=np.bool_)
        use = next((use for use in analysis.scope.space.uses if (use.node, use.slot) == (site.node, site.weight)), None)
        for axis, labels in enumerate(use.axes if use else ()):
            mask = self._search.stays(analysis.grouping.atom_of[labels.expand()])
            if axis != site.column and not mask.all():
                weight = np.compress(mask, weight, axis=axis)
        columns = np.moveaxis(np.asarray(weight) != 0, site.column, 0).reshape(weight.shape[site.column], -1)
        return np.asarray(~columns.any(axis=1))

    def _passes(self, contraction: Contraction, atoms: Ints) -> Mask:
        """Return which channels of a grouped convolution make only channels that go with them."""
        node = contraction.node
        groups = node.attribute("group", 1) if node.op_type in ("Conv", "ConvTranspose", "QLinearConv") else 1
        idle = np.zeros(len(atoms), dtype=np.bool_)
        if groups == 1 or contraction.axis != 1:
            return idle
        made = self._analysis.scope.values[node.outputs[0]][1]
        outputs = self._analysis.grouping.atom_of[made.expand()].reshape(groups, -1)
        inputs = atoms.reshape(groups, -1)
        together = (inputs == inputs[:, :1]).all(axis=1) & (outputs == inputs[:, :1]).all(axis=1)
        return np.repeat(together & (inputs[:, 0] >= 0), inputs.shape[1])
