# SPDX-License-Identifier: Apache-2.0
"""The public functions that need data: open_data, samples, evaluate, recover, train.

::

    data = graphprune.open_data("images/", model)
    recovery = graphprune.recover(model, pruned, plan, data)
    print(recovery.before, recovery.after)
    graphprune.save(recovery.model, "model.recovered.onnx")
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from graphprune.analysis.analysis import Analysis
from graphprune.api import analyze, analyze_for, apply, reconcile
from graphprune.checks import contained
from graphprune.data.as_fed import doubt, looked_at
from graphprune.data.class_folders import with_sure_labels
from graphprune.data.evaluation import evaluate as run_evaluation
from graphprune.data.from_python import from_object
from graphprune.data.image_sizes import sized
from graphprune.data.normalisation import normalised
from graphprune.data.open_source import open_source
from graphprune.data.preprocessing import read_settings
from graphprune.data.signature import input_specs
from graphprune.data.synthesis.make_samples import read_request
from graphprune.errors import PlanError, UsageError, VerificationError, quote
from graphprune.phases import logged
from graphprune.planning.make_plan import SolveOptions
from graphprune.recovery.made_samples import made_samples
from graphprune.recovery.recover import recover as run_recovery
from graphprune.recovery.recover_options import RecoverOptions
from graphprune.recovery.without_data import Restorer
from graphprune.verification.fidelity.check_weights import check_only_weights_differ

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from graphprune.api import Reconciled
    from graphprune.data.evaluation import Evaluation
    from graphprune.data.preprocessing import Preprocessing
    from graphprune.data.source import Source
    from graphprune.model.load import Model
    from graphprune.plan.budget import BudgetRequest
    from graphprune.plan.schema import Plan
    from graphprune.recovery.recover_options import Recovery
    from graphprune.training.pruning.method import Method
    from graphprune.training.pruning.train import Trained, TrainOptions

__all__ = ["evaluate", "open_data", "recover", "samples", "train"]


@contained
def open_data(text: str, model: Model, preprocessing: Preprocessing | None = None) -> Source:
    """Open samples for a model: what the command line takes as ``--data`` and ``--calib``.

    Parameters
    ----------
    text : str
        A folder of images, an .npz or .npy file, ``package.module:function`` or ``torchvision:NAME``;
        see :mod:`graphprune.data.open_source`. Or ``synthetic`` for what :func:`samples` makes.
    model : Model
        What the samples are fed to.
    preprocessing : Preprocessing, optional
        Of 8-bit images; by default what ``graphprune.toml`` beside the model says. How they are normalised is found
        from what the file remembers where nothing says it (:mod:`graphprune.data.normalisation`); where another way
        fits clearly better than what is said, a warning says so.

    Raises
    ------
    DataError, UsageError
        If there is nothing to read, it does not fit the model, or how images are normalised cannot be told.
    """
    preprocessing = preprocessing or read_settings(model.path)
    request = read_request(text)
    if request is not None:
        return made_samples(model, replace(request, layout=preprocessing.layout)).source
    return _checked(open_source(text, input_specs(model), preprocessing), model)


def _checked(source: Source, model: Model) -> Source:
    """Return a source with its images normalised; say in a warning what speaks against how it is fed."""
    source = looked_at(normalised(with_sure_labels(sized(source, model), model), model), model)
    doubted = doubt(source.reader)
    if doubted:
        warnings.warn(doubted, stacklevel=4)
    return source


@contained
def samples(
    model: Model,
    given: object = "synthetic",
    labels: object | None = None,
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    preprocessing: Preprocessing | None = None,
    seed: int = 0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Source:
    """Return samples for a model from whatever holds them; made from what its file says, where nobody has any.

    Made images have natural statistics and the exposure that the network remembers of its training data; where it
    remembers statistics, those of many images are kept that together fit them.

    Parameters
    ----------
    model : Model
    given : object
        An array, for a model with one input; a dict of arrays by input name, perhaps with ``labels``; a ``DataLoader``
        of torch or any other iterable of inputs, or of pairs of inputs and targets, all of which are kept in memory; a
        path or text as for :func:`open_data`; or ``synthetic``, ``synthetic:fine`` for samples that are refined by
        gradient, or either with ``:N`` for a number of samples.
    labels : array, shape (n, ...), optional
        Where the arrays come without.
    mean, std : float or sequence of float, optional
        Of 8-bit images, in units of full scale; found from the file where nobody says it.
    preprocessing : Preprocessing, optional
        All that is done to 8-bit images; by default what ``graphprune.toml`` beside the model says.
    seed : int
        Of samples that are made.
    shapes : mapping of str to tuple of int, optional
        Sizes of inputs whose dimensions are open, for samples that are made.

    Raises
    ------
    DataError
        If there is nothing to read, it does not fit the model, or the file does not tell what an input may be.
    UsageError
        If an argument has no meaning, or how images are normalised cannot be told.

    Examples
    --------
    ::

        graphprune.samples(model, images)  # uint8, shape (n, height, width, channels)
        graphprune.samples(model, {"ids": ids, "mask": mask})
        graphprune.samples(model, torch.utils.data.DataLoader(dataset, batch_size=64))
        graphprune.samples(model, "photos/", mean=0.5, std=0.5)
    """
    prepared = preprocessing or read_settings(model.path)
    prepared = replace(prepared, mean=_values("mean", mean, prepared.mean), std=_values("std", std, prepared.std))
    if isinstance(given, str | Path):
        request = read_request(str(given))
        if request is None:
            return open_data(str(given), model, prepared)
        wanted = replace(request, seed=seed, shapes=shapes or {}, layout=prepared.layout)
        return made_samples(model, wanted).source
    return _checked(from_object(given, input_specs(model), labels, prepared), model)


def _values(name: str, given: object, default: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Return one value, or one per channel."""
    if given is None:
        return default
    values = np.atleast_1d(np.asarray(given))
    if values.dtype.kind not in "iuf" or values.ndim != 1 or not values.size:
        raise UsageError(
            f"{name} is {quote(given)}, but must be a number, or one per channel",
            hint=f"in units of full scale, e.g. {name}=(0.485, 0.456, 0.406)",
        )
    return tuple(map(float, values))


@logged("recovering", lambda found: {"before": found.before, "after": found.after, "improved": found.improved})
@contained
def recover(
    model: Model | Analysis,
    pruned: Model,
    plan: Plan,
    data: Source | Restorer,
    options: RecoverOptions | None = None,
    *,
    further: Source | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Recovery:
    """Bring accuracy back without training: refit what reads pruned channels, from unlabelled samples.

    Parameters
    ----------
    model : Model or Analysis
        The original.
    pruned : Model
        What :func:`apply` made of it.
    plan : Plan
        What was removed.
    data : Source
        Samples as the network meets them in use, from :func:`open_data`; or what makes some, from
        :func:`graphprune.recovery.without_data.restorer_for`.
    options : RecoverOptions, optional
        The method; least squares by default.
    further : Source, optional
        Samples that weights are fitted to beside a few in `data`, and of which none judges: ones that were made and
        refined, from ``samples(model, "synthetic:fine")``.
    progress : callable, optional
        Called with the number of layers that are done, and of all.

    Returns
    -------
    Recovery
        With the recovered model; the pruned one where the error on held-out samples did not fall.

    Raises
    ------
    PlanError
        If the plan does not fit the model, or makes something else than `pruned` of it, weights apart.
    DataError, UsageError
        If samples do not fit the model, or are too few.
    """
    analysis = model if isinstance(model, Analysis) else analyze_for(model, plan)
    reconciled = reconcile(analysis, plan)
    _check_pruned(reconciled, pruned)
    if isinstance(data, Restorer):
        if further is not None:
            raise UsageError("samples are added to ones that are given, not to made ones", hint="make more of them")
        return data.recover(reconciled.plan, pruned, options, progress)
    return run_recovery(analysis, reconciled.plan, pruned, data, options or RecoverOptions(), progress, further=further)


def _check_pruned(reconciled: Reconciled, pruned: Model) -> None:
    analysis = reconciled.reference.original
    try:
        check_only_weights_differ(apply(analysis, reconciled).proto, pruned.proto)
    except VerificationError as error:
        raise PlanError(
            f"{quote(pruned.name)} is not what the plan makes of {quote(analysis.model.name)}: {error.message}",
            hint="give the file that the plan made, or make it anew with `graphprune apply`",
        ) from error


@logged("evaluating", lambda found: {name: value for name, value in vars(found).items() if value is not None})
@contained
def evaluate(
    model: Model,
    data: Source,
    teacher: Model | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Run a model on data: accuracies against labels, agreement and output error against a teacher.

    Raises
    ------
    UsageError
        If there are neither labels nor a teacher.
    DataError
        If data or labels do not fit the model.
    """
    return run_evaluation(model, data, teacher, progress)


@logged("training")
@contained
def train(
    model: Model | Analysis,
    data: Source,
    budget: BudgetRequest | Sequence[BudgetRequest],
    method: str | Method = "slimming",
    options: TrainOptions | None = None,
) -> Trained:
    """Prune while training: a method trains the network, and a plan is made for the trained one.

    Parameters
    ----------
    model : Model or Analysis
    data : Source
        Samples, with labels or without.
    budget : BudgetRequest or sequence of them
    method : str or Method
        A name in :mod:`graphprune.solvers.training`, or a method with settings of its own.
    options : TrainOptions, optional
        See :class:`graphprune.training.pruning.train_options.TrainOptions`. Where nothing is said about widths, they
        are chosen by the solver of the method.

    Returns
    -------
    Trained
        With the analysis of the trained model, to which :func:`apply` and :func:`verify` take the plan.

    Raises
    ------
    UnsupportedModelError
        If the model cannot be converted for training.
    UsageError
        If the data does not fit, or the method needs labels and there are none.
    BudgetUnreachableError, NothingToPruneError
        If the model cannot be made as small.
    """
    from graphprune.solvers import training as methods  # torch, which nothing else here needs
    from graphprune.training.pruning.train import TrainOptions, train

    chosen = methods.get(method)() if isinstance(method, str) else method
    requests = (budget,) if not isinstance(budget, Sequence) else tuple(budget)
    if options is None:
        options = TrainOptions(solving=SolveOptions(solver=chosen.solver))
    analysis = model if isinstance(model, Analysis) else analyze(model)
    return train(analysis, data, requests, chosen, options)
