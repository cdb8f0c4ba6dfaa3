# SPDX-License-Identifier: Apache-2.0
"""Recovery: walk the dense and the pruned network side by side, and set each site right before going on.

What a site reads has then been recovered already, and its target is what the dense network computes there: errors
do not add up along the way. No labels, no gradients; memory is bounded by the largest layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphprune.array_types import Array
from graphprune.data.evaluation import compare
from graphprune.data.feeding import whole_batches
from graphprune.data.moments import MomentSummary, merged
from graphprune.data.signature import input_specs
from graphprune.data.walk import Walk
from graphprune.model.graph import Graph
from graphprune.model.normalize import inline_functions
from graphprune.recovery.check_recovered import check_recovered
from graphprune.recovery.editable_model import EditableModel
from graphprune.recovery.gated import GatedRows
from graphprune.recovery.kernels import MOST_COLUMNS
from graphprune.recovery.recover_options import Recovery
from graphprune.recovery.ridge import Halves, best_ridge
from graphprune.recovery.sites import Norm, Site, cut, find_norms, find_sites
from graphprune.recovery.updates import (
    Update,
    refit_gated_site,
    refit_site,
    rescale_site,
    shift_site,
    uncentred,
    update_norm,
)
from graphprune.surgery.marks import RECOVERED, VERIFIED, put_marks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from graphprune.analysis.analysis import Analysis
    from graphprune.data.agreement import Agreement
    from graphprune.data.source import Source
    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan
    from graphprune.recovery.recover_options import Progress, RecoverOptions

__all__ = ["recover"]


"""Metadata of a recovered model: by which method."""


def recover(
    analysis: Analysis,
    plan: Plan,
    pruned: Model,
    source: Source,
    options: RecoverOptions,
    progress: Progress | None = None,
    teacher: Model | None = None,
) -> Recovery:
    """Change the weights of a pruned model so that its outputs come back to those of the original.

    Parameters
    ----------
    analysis : Analysis
        Of the original.
    plan : Plan
        What was removed from it.
    pruned : Model
        What is left. It is not changed.
    source : Source
        Samples as the network meets them in use; labels are not looked at.
    options : RecoverOptions
    progress : callable, optional
        Told how many sites are done.
    teacher : Model, optional
        The dense network that gives the targets, of the same structure; by default the original itself.

    Returns
    -------
    Recovery
        With the recovered model, or the pruned one where the error on held-out samples did not fall.

    Raises
    ------
    DataError, UsageError
        If the samples do not fit, or are too few.
    VerificationError
        If anything but weights changed.

    Source: RECOVERY of the asymmetric kind, see :mod:`graphprune.recovery.least_squares`.
    """
    used = source.limited(options.samples)
    fitted, held = used.split(max(1, round(options.held_out * len(used))))
    editable = EditableModel(pruned)
    sites = find_sites(editable, analysis, plan, residual=options.method != "bn")
    dense = teacher or analysis.model
    pass_ = _Pass(dense, editable, fitted, options)
    changed = pass_.run(sites, progress)
    result = editable.finished()
    check_recovered(pruned, result, editable)
    put_marks(result.proto, {RECOVERED: options.method, VERIFIED: f"no (weights recovered by {options.method})"})
    before, after = (compare(dense, model, held) for model in (pruned, result))
    misfit, agreement = (_both(before, after, name) for name in ("misfit", "agreement"))
    one, two = before.relative_error, after.relative_error
    if misfit is not None:  # error and misfit count alike
        one, two = one * misfit[0], two * misfit[1]
    improved = bool(np.isfinite(two) and two < one)
    return Recovery(
        model=result if improved else pruned,
        method=options.method,
        improved=improved,
        before=before.relative_error,
        after=after.relative_error,
        samples=len(fitted),
        held_out=len(held),
        nodes=tuple(changed),
        left=tuple(pass_.left),
        misfit=misfit,
        agreement=agreement,
    )


def _both(before: Agreement, after: Agreement, name: str) -> tuple[float, float] | None:
    """Return a measure of scores before and after; None where scores are not all that the networks give."""
    values = getattr(before, name), getattr(after, name)
    return None if None in values or len(after.names) > 1 else values


@dataclass
class _Step:
    """One stop of both walks: what the pruned network is asked for, and what the dense one."""

    item: Site | Norm
    pruned: tuple[str, ...]
    dense: tuple[str, ...]


class _Pass:
    """One pass over all sites."""

    def __init__(self, model: Model, editable: EditableModel, source: Source, options: RecoverOptions) -> None:
        self._model = model
        self._editable = editable
        self._source = source
        self._options = options
        self._batches = whole_batches(source, input_specs(model))
        self._random = np.random.default_rng(options.seed)
        self.left: list[str] = []

    def run(self, sites: list[Site], progress: Progress | None) -> list[str]:
        """Recover every site; return the names of those that were changed."""
        steps = self._steps(sites)
        dense = Walk(
            self._model,
            Graph(inline_functions(self._model.proto)),
            [step.dense for step in steps],
            self._feeds,
            len(self._batches),
        )
        own = Walk(
            self._editable.model, self._editable.graph, [step.pruned for step in steps], self._feeds, len(self._batches)
        )
        changed = []
        with dense, own:
            for number, step in enumerate(steps):
                if progress is not None:
                    progress(number, len(steps))
                values = zip(own.step(), dense.step(), strict=True)
                if self._recover(step.item, values):
                    changed.append(step.item.node.label)
        if progress is not None:
            progress(len(steps), len(steps))
        return changed

    def _steps(self, sites: list[Site]) -> list[_Step]:
        """Return the stops: for `bn` at normalisations and at nodes that have none behind them."""
        items: list[Site | Norm] = list(sites)
        if self._options.method == "bn":
            norms = find_norms(self._editable, sites)
            with_norm = {norm.x for norm in norms}
            items = sorted(
                [*norms, *(site for site in sites if site.node.outputs[0] not in with_norm)],
                key=lambda item: item.node.index,
            )
        steps = []
        for item in items:
            if isinstance(item, Norm):
                steps.append(_Step(item, (item.x,), ()))
            else:
                steps.append(_Step(item, tuple(filter(None, (item.x, item.other))), (item.target,)))
        return steps

    def _feeds(self, number: int) -> Mapping[str, Array]:
        return self._source.read(self._batches[number]).feeds

    def _recover(self, item: Site | Norm, values: Iterator[tuple[dict[str, Array], dict[str, Array]]]) -> bool:
        if isinstance(item, Norm):
            return update_norm(self._editable, item, (own[item.x] for own, _ in values))
        update = Update(self._editable, item)
        large = item.kernel.columns > MOST_COLUMNS
        if large and self._options.method == "least-squares":
            self.left.append(item.name)
        halves = Halves()
        rows = self._gated_rows(item, update) if not large else None
        weight = update.weight.astype(np.float32)
        for own, dense in values:
            wanted = update.target(cut(dense[item.target], item.masks), own.get(item.other))
            view = item.kernel.view
            grid = view.grid(wanted, self._random)
            x, y = view.inputs(own[item.x], grid), view.outputs(wanted, grid)
            if large or self._options.method != "least-squares":
                x = x @ weight  # what the node gives now: nothing else is needed
            halves.add(x, y, len(wanted))
            if rows is not None:
                bounds = (update.threshold(bound, own.get(item.other), wanted) for bound in item.gate)
                rows.add(x, y, *(view.outputs(bound, grid) for bound in bounds))
        parts = halves.parts
        found = merged(*parts) if len(parts) > 1 else parts[0]
        if self._options.method == "bn":
            return rescale_site(update, found)
        if large or self._options.method == "bias":
            return shift_site(update, found)
        return self._refit(update, parts, found, rows)

    def _refit(
        self, update: Update, parts: tuple[MomentSummary, ...], all_: MomentSummary, rows: GatedRows | None
    ) -> bool:
        """Refit the weights of a site, pulled towards the present ones as one half of the samples advises the other."""
        own = parts if update.has_intercept else tuple(map(uncentred, parts))
        ridge = best_ridge(own, update.weight, self._options.ridge, centred=update.has_intercept)
        if rows is not None and rows.complete:
            return refit_gated_site(update, all_, ridge, rows, self._options.rounds)
        return refit_site(update, all_, ridge, rescale=self._options.rescale)

    def _gated_rows(self, site: Site, update: Update) -> GatedRows | None:
        """Return where rows are kept, if the refit looks at the ReLU behind a site."""
        options = self._options
        if options.method != "least-squares" or not options.rounds or not site.gate or not update.has_intercept:
            return None
        if options.rescale:  # behind a ReLU outputs may be as negative as they like, and then have no variance to keep
            return None
        return GatedRows(update.sign)
