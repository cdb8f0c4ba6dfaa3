# SPDX-License-Identifier: Apache-2.0
"""Recovery: walk the dense and the pruned network side by side, and set each site right before going on.

What a site reads has then been recovered already, and its target is what the dense network computes there: errors
do not add up along the way. No labels, no gradients; memory is bounded by the largest layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.array_types import Array
from graphprune.data.evaluation import compare
from graphprune.data.feeding import model_batches
from graphprune.data.joined import joined
from graphprune.data.varied import varied
from graphprune.data.walk import Walk
from graphprune.extras import require
from graphprune.model.graph import Graph
from graphprune.model.normalize import inline_functions
from graphprune.recovery.check_recovered import check_recovered
from graphprune.recovery.editable_model import EditableModel
from graphprune.recovery.methods import BY_NAME, RecoveryMethod, Setting, Stop
from graphprune.recovery.recover_options import Recovery
from graphprune.recovery.refine_blocks import refine_blocks
from graphprune.recovery.ridge import halved
from graphprune.recovery.sites import Norm, find_sites
from graphprune.reproducible import one_blas_thread, settled
from graphprune.surgery.marks import RECOVERED, VERIFIED, put_marks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.data.agreement import Agreement
    from graphprune.data.source import Source
    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan
    from graphprune.recovery.recover_options import Progress, RecoverOptions

__all__ = ["closer", "recover"]


@one_blas_thread()
def recover(
    analysis: Analysis,
    plan: Plan,
    pruned: Model,
    source: Source,
    options: RecoverOptions,
    progress: Progress | None = None,
    teacher: Model | None = None,
    further: Source | None = None,
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
    further : Source, optional
        Samples that weights are fitted to as well, and of which none is held out.

    Returns
    -------
    Recovery
        With the recovered model, or the pruned one where the error on held-out samples did not fall.

    Raises
    ------
    DataError, UsageError
        If the samples do not fit, or are too few; or if torch is needed and not installed.
    VerificationError
        If anything but weights changed.

    Source: the asymmetric reconstruction of :mod:`graphprune.recovery.least_squares`.
    """
    used, count = options.limited(source)
    own, held = used.split(count)
    fitted = joined(varied(own, options.copies, options.seed), further)
    editable = EditableModel(pruned)
    dense = teacher or analysis.model
    method = BY_NAME[options.method]
    if method.refined:
        require("train", f"recovery by {options.method}")
    stops = method.stops(editable, find_sites(editable, analysis, plan, residual=method.residual))
    walks = _Walks(dense, editable, fitted)
    changed, left = walks.run(method, stops, options, progress)
    recovered = editable.finished()
    check_recovered(pruned, recovered, editable)
    if method.refined:
        together = 1 + options.copies
        refined = refine_blocks(analysis, plan, recovered, dense, fitted, options.seed, progress, together)
        if closer(compare(dense, recovered, held), compare(dense, refined, held)):
            recovered = refined
    put_marks(recovered.proto, {RECOVERED: options.method, VERIFIED: f"no (weights recovered by {options.method})"})
    before, after = (compare(dense, model, held) for model in (pruned, recovered))
    misfit, agreement = (_both(before, after, name) for name in ("misfit", "agreement"))
    errors = settled(before.relative_error), settled(after.relative_error)
    improved = closer(before, after)
    return Recovery(
        model=recovered if improved else pruned,
        method=options.method,
        improved=improved,
        before=errors[0],
        after=errors[1],
        samples=len(joined(own, further)),
        held_out=len(held),
        nodes=tuple(changed),
        left=tuple(left),
        misfit=misfit,
        agreement=agreement,
    )


def closer(before: Agreement, after: Agreement) -> bool:
    """Whether a network is closer to a teacher than it was before; for scores, error and misfit count alike."""
    one, two = settled(before.relative_error), settled(after.relative_error)
    misfit = _both(before, after, "misfit")
    if misfit is not None:
        one, two = one * misfit[0], two * misfit[1]
    return bool(np.isfinite(two) and two < one)


def _both(before: Agreement, after: Agreement, name: str) -> tuple[float, float] | None:
    """Return a measure of scores before and after; None where scores are not all that the networks give."""
    one, two = getattr(before, name), getattr(after, name)
    return None if one is None or two is None or len(after.names) > 1 else (settled(one), settled(two))


class _Walks:
    """The dense and the pruned network, walked side by side."""

    def __init__(self, dense: Model, editable: EditableModel, source: Source) -> None:
        self._dense = dense
        self._editable = editable
        self._source = source
        self._batches = model_batches(dense, source)

    def run(
        self, method: type[RecoveryMethod], stops: Sequence[Stop], options: RecoverOptions, progress: Progress | None
    ) -> tuple[list[str], list[str]]:
        """Recover at every stop; return the names of nodes that were changed, and of those too large to refit."""
        random = np.random.default_rng(options.seed)
        halves = halved(self._batches, 1 + options.copies)
        setting = Setting(
            self._editable, random, halves, options.ridge, options.rounds, options.rescale, options.positions
        )
        wanted = [_wanted(stop) for stop in stops]
        dense = Walk(
            self._dense,
            Graph(inline_functions(self._dense.proto)),
            [names for _, names in wanted],
            self._feeds,
            len(self._batches),
        )
        own = Walk(
            self._editable.model, self._editable.graph, [names for names, _ in wanted], self._feeds, len(self._batches)
        )
        changed, left = [], []
        with dense, own:
            for number, stop in enumerate(stops):
                if progress is not None:
                    progress(number, len(stops))
                estimate = method.at(setting, stop)
                if estimate.partial:
                    left.append(stop.node.label)
                for values in zip(own.step(), dense.step(), strict=True):
                    estimate.add(*values)
                if estimate.finish():
                    changed.append(stop.node.label)
        if progress is not None:
            progress(len(stops), len(stops))
        return changed, left

    def _feeds(self, number: int) -> Mapping[str, Array]:
        return self._source.read(self._batches[number]).feeds


def _wanted(stop: Stop) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what is looked at in the pruned network at a stop, and in the dense one."""
    if isinstance(stop, Norm):
        return (stop.x,), ()
    return tuple(filter(None, (stop.x, stop.other))), (stop.target,)
