# SPDX-License-Identifier: Apache-2.0
"""The public functions: load, analyze, solve, apply, verify, save.

::

    model = graphprune.load("model.onnx")
    plan = graphprune.solve(model, BudgetRequest("flops", 0.5))
    pruned = graphprune.apply(model, plan)
    graphprune.verify(model, pruned, plan)
    graphprune.save(pruned, "model.pruned.onnx")

Wherever a model is taken, its analysis does as well, and is then not made again; so does what
:func:`reconcile` gives wherever a plan is taken. What needs data is in :mod:`graphprune.accuracy`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from graphprune.analysis.analysis import Analysis
from graphprune.checks import contained
from graphprune.errors import InternalError, UsageError, VerificationError, quote
from graphprune.model import write
from graphprune.model.load import Model, check_loaded, load
from graphprune.phases import logged
from graphprune.plan.budget import BudgetRequest, given_requests
from graphprune.plan.keep_mask import keep_mask
from graphprune.plan.schema import Plan
from graphprune.planning.analyze_options import AnalyzeOptions
from graphprune.planning.lossless import analysis_that_finds_more, lossless_plan
from graphprune.planning.made_for import check_made_for
from graphprune.planning.make_plan import SolveOptions, check_installed, make_plan
from graphprune.planning.reconcile import Reconciled
from graphprune.planning.reconcile import reconcile as _reconcile
from graphprune.planning.solver_choice import settled_solver
from graphprune.recovery.misplaced import check_keywords
from graphprune.surgery.folding import fold
from graphprune.surgery.marks import VERIFIED, drop_marks, marks, put_marks, weights_changed
from graphprune.surgery.prune import prune
from graphprune.surgery.rehearsal import rehearsed
from graphprune.verification.causes import blames_the_file, blaming
from graphprune.verification.check_marks import check_marks
from graphprune.verification.fidelity.check_fidelity import check_fidelity
from graphprune.verification.fidelity.check_reweighed import check_reweighted
from graphprune.verification.fidelity.check_shortened import check_shortened
from graphprune.verification.relearned import verify_relearned
from graphprune.verification.same_outputs import check_same_outputs
from graphprune.verification.verdict import judged
from graphprune.verification.verify import Verification

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from graphprune.data.source import Source

__all__ = [
    "Analysis",
    "AnalyzeOptions",
    "BudgetRequest",
    "Model",
    "Reconciled",
    "SolveOptions",
    "Verification",
    "analyze",
    "apply",
    "load",
    "normalize",
    "reconcile",
    "save",
    "solve",
    "verify",
]


_NOT_OF_PLAN = "the file is not what the plan makes of the original; `graphprune apply` makes it anew"


@logged("analysis", lambda analysis: {"groups": len(analysis.groups)})
@contained
def analyze(model: Model, options: AnalyzeOptions | None = None) -> Analysis:
    """Find the coupled channel groups of a model, their cost, and what is frozen and why.

    Raises
    ------
    UsageError
        If an input shape does not fit the model.
    UnsupportedModelError
        If the model cannot be analysed at all.
    ModelFileError
        If operands do not fit together, or the analysis fails and the model does not run.
    """
    options = options or AnalyzeOptions()
    check_loaded(model)
    with blaming(model, options.input_shapes):
        analysis = Analysis(
            model, options.input_shapes, options.attention, approximate=options.approximate, grouped=options.grouped
        )
        return rehearsed(analysis)


@logged("solving", lambda plan: {budget.metric: [budget.before, budget.after] for budget in plan.budgets})
@contained
@blames_the_file
def solve(
    model: Model | Analysis,
    budget: BudgetRequest | Sequence[BudgetRequest] = (),
    options: SolveOptions | None = None,
    *,
    data: Source | None = None,
    dense: Analysis | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    **limits: float | str,
) -> Plan:
    """Choose which channels to remove, so that the budget holds and nothing more fits into it.

    Parameters
    ----------
    model : Model or Analysis
        What is to be pruned.
    budget : BudgetRequest or sequence of them
        What is limited, and to which share or amount: ``BudgetRequest("flops", 0.5)``,
        ``BudgetRequest("size", "5MB")``. Of several all hold. None for a lossless plan.
    **limits : float or str
        The same in short: ``solve(model, flops=0.5, size="5MB")``.
    options : SolveOptions, optional
        Solver, criterion, rounding and seed.
    data : Source, optional
        Samples, from :func:`graphprune.open_data`, for criteria and solvers that look at some.
    dense : Analysis, optional
        Of the network that the samples are fed to, by default the model itself: one of the same structure whose
        statistics suit them (:mod:`graphprune.recovery.without_data`).
    progress : callable, optional
        Called with what is being done with samples, how much of it is done, and how much there is to do.

    Returns
    -------
    Plan
        What stays and what that costs. Nothing is removed yet.

    Raises
    ------
    UsageError
        If an option has no meaning.
    BudgetUnreachableError, NothingToPruneError
        If the model cannot be made as small.
    UnsupportedModelError
        If a latency is limited, and the runtime in which it is measured cannot run the model.
    """
    check_keywords(limits)
    requests, options = given_requests(budget, limits), options or SolveOptions()
    check_installed(options)
    analysis = _analysis(model)
    options = settled_solver(analysis, None if data is None else len(data), requests, options)
    if options.lossless:
        own = analysis if isinstance(model, Analysis) else analysis_that_finds_more(analysis)
        return lossless_plan(own, requests, options)
    if not requests:
        raise UsageError("no budget is given", hint="give one, or ask for a lossless plan")
    evidence = None
    if data is not None:
        from graphprune.evidence.sample_evidence import SampleEvidence  # with onnxruntime, too

        evidence = SampleEvidence(dense or analysis, data, options.seed, progress)
    if any(request.metric == "latency" for request in requests):
        from graphprune.export.runtime_stopwatch import stopwatch_for
        from graphprune.planning.tuning import make_measured_plan  # with onnxruntime, which nothing else here needs

        return make_measured_plan(
            analysis, requests, options, evidence, stopwatch_for(options.runtime, options.threads)
        )
    return make_plan(analysis, requests, options, evidence=evidence)


@contained
def reconcile(model: Model | Analysis, plan: Plan, *, rebind: bool = False) -> Reconciled:
    """Check that a plan fits a model; recompute what an edit of its ``kept`` indices made stale.

    Parameters
    ----------
    model : Model or Analysis
        The model that the plan was made for.
    plan : Plan
        The plan, perhaps edited.
    rebind : bool
        Accept another model of the same structure: another checkpoint, or another export.

    Raises
    ------
    PlanError
        If the plan was made for another model, contradicts itself, or claims wrong costs.
    """
    return _reconcile(_analysis(model, plan, rebind=rebind), plan, rebind=rebind)


def _reconciled(model: Model | Analysis, plan: Plan | Reconciled, *, rebind: bool) -> Reconciled:
    """Return a plan that was held against the model; one that was is not again."""
    if isinstance(plan, Plan):
        return reconcile(model, plan, rebind=rebind)
    original = plan.reference.original
    if model is not original and model is not original.model:
        raise UsageError(
            f"the plan was reconciled with {quote(original.model.name)}, which is not the model that is given",
            hint="give the very model or analysis that `reconcile` was given",
        )
    return plan


@logged("surgery")
@contained
@blames_the_file
def apply(model: Model | Analysis, plan: Plan | Reconciled, *, rebind: bool = False) -> Model:
    """Remove what a plan removes.

    Parameters
    ----------
    model : Model or Analysis
        The original. It is not changed.
    plan : Plan or Reconciled
        What stays; checked by :func:`reconcile` first, unless it was.
    rebind : bool
        Accept another model of the same structure.

    Returns
    -------
    Model
        The pruned model in memory, compared with the original field by field, but not run. A plan that
        removes nothing gives the original itself.

    Raises
    ------
    PlanError
        If the plan does not fit the model.
    UnsupportedModelError
        If the model computes something from a pruned size that cannot follow.
    VerificationError
        If the result differs from the original in anything that the plan does not explain.
    """
    reconciled = _reconciled(model, plan, rebind=rebind)
    plan, reference = reconciled.plan, reconciled.reference
    analysis = reference.original
    if plan.is_identity:
        return analysis.model
    check_reweighted(analysis, reference.reweighted, plan)
    check_shortened(reference, plan)
    proto = prune(reference.start, keep_mask(analysis, plan))
    drop_marks(proto)  # of an original that was itself pruned: they are about the weights of then
    put_marks(proto, marks(analysis, plan))
    check_fidelity(reference.start, proto, plan)
    pruned = analysis.model.replaced(proto)
    _check_size(pruned, plan)
    return pruned


def _check_size(pruned: Model, plan: Plan) -> None:
    """Hold what the plan says of the written size against what is going to be written."""
    for budget in plan.budgets:
        if budget.metric == "size" and write.file_bytes(pruned) > budget.after:
            raise InternalError(
                f"the pruned model takes {write.file_bytes(pruned)} bytes, more than the {budget.after} of the plan"
            )


@logged("folding")
@contained
def normalize(model: Model | Analysis) -> Model:
    """Return the graph as the analysis sees it: local functions inlined, computed constants folded.

    Names in a plan that the original file does not have are those of this graph. For looking and
    checking; :func:`apply` starts from the original. Raises `VerificationError` if the result does
    not open in onnxruntime, or computes something else on random inputs.
    """
    analysis = _analysis(model)
    folded = analysis.model.replaced(fold(analysis))
    check_same_outputs(analysis, folded)
    return folded


@logged("verification", lambda found: {"status": found.status, "error": found.error, "compared": found.compared})
@contained
def verify(
    model: Model | Analysis,
    pruned: Model,
    plan: Plan | Reconciled,
    *,
    rebind: bool = False,
    unverified: bool = False,
) -> Verification:
    """Compare a pruned model with the original whose removed channels are masked out.

    Both run in onnxruntime, in a process of their own, and outputs and intermediate tensors are compared.
    A model that was loaded from a file is then compared with the original field by field, too.

    A file that says that its weights were changed after pruning cannot equal the masked original. For it, the surgery
    is done and verified anew, and the file must equal the result in all but weights.

    Parameters
    ----------
    model : Model or Analysis
        The original.
    pruned : Model
        What :func:`apply` returned, or a file that was loaded.
    plan : Plan or Reconciled
        What was removed; checked by :func:`reconcile` first, unless it was.
    rebind : bool
        Accept a plan that was made for another model of the same structure.
    unverified : bool
        If the model has operators that onnxruntime does not know, return the status "unverified"
        instead of raising.

    Returns
    -------
    Verification
        Its status is "verified"; "vacuous" where masking moves the outputs too little for a proof; "surgery" where
        weights were changed afterwards; "identity" where the plan removes nothing; or "unverified".

    Raises
    ------
    VerificationError
        If the models differ, or could not be run.
    PlanError
        If the plan does not fit the model.
    """
    reconciled = _reconciled(model, plan, rebind=rebind)
    plan, reference = reconciled.plan, reconciled.reference
    analysis = reference.original
    changed = weights_changed(pruned.proto)
    if changed and pruned is not analysis.model:
        made = apply(analysis, reconciled)
        verification = judged(reference.reweighted, made, plan, original=analysis, unverified=unverified)
        return verify_relearned(verification, made, pruned, changed)
    verification = judged(reference.reweighted, pruned, plan, original=analysis, unverified=unverified)
    if pruned.path is not None:  # what `apply` makes is compared there
        try:
            check_reweighted(analysis, reference.reweighted, plan)
            check_shortened(reference, plan)
            check_fidelity(reference.start, pruned, plan)
            check_marks(marks(analysis, plan), pruned.proto)
        except VerificationError as error:
            raise VerificationError(error.message, hint=_NOT_OF_PLAN) from error
    return verification


def mark_verified(pruned: Model, verification: Verification) -> None:
    """Let a model that :func:`apply` made say in its metadata whether it was verified."""
    if pruned.path is None:
        status = verification.status
        put_marks(pruned.proto, {VERIFIED: "true" if status == "verified" else f"no ({status})"})


@logged("writing")
@contained
def save(model: Model, path: str | Path, *, force: bool = False, beside: Mapping[Path, bytes] | None = None) -> Path:
    """Write a model, atomically; one that was not changed since it was loaded is copied byte by byte.

    Parameters
    ----------
    model : Model
        What :func:`load` or :func:`apply` returned.
    path : str or Path
        Where to.
    force : bool
        Replace an existing file.
    beside : mapping of Path to bytes, optional
        Files that belong to it: all are complete on the disk before the first of them gets its name.

    Raises
    ------
    OutputError
        If a path is the input, exists and ``force`` is false, or cannot be written.
    """
    return write.copy_or_save(model, path, force=force, beside=beside)


def analyze_for(model: Model, plan: Plan, *, rebind: bool = False) -> Analysis:
    """Analyse a model as it was analysed for a plan; refuse one that the plan was not made for before that.

    Raises
    ------
    PlanError
        If the plan was made for another model.
    """
    check_made_for(plan, model, rebind=rebind)
    return analyze(model, AnalyzeOptions.of(plan))


def _analysis(model: Model | Analysis, plan: Plan | None = None, *, rebind: bool = False) -> Analysis:
    """Return an analysis; one that is made for a plan counts costs for the input shapes of that plan."""
    if isinstance(model, Analysis):
        return model
    check_loaded(model)
    return analyze_for(model, plan, rebind=rebind) if plan else analyze(model)
