# SPDX-License-Identifier: Apache-2.0
"""Recovery methods: what is estimated at each stop of the walk, and what is written there.

A method is a class registered by :func:`recovery_method`. One object of it works at one stop: it is given the values of
every batch there (`add`), and writes what follows from them (`finish`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from graphprune.data.windows import POSITIONS
from graphprune.errors import InternalError, quote
from graphprune.recovery.gated import GatedRows, refit_gated
from graphprune.recovery.kernels import MOST_COLUMNS
from graphprune.recovery.least_squares import intercept, refit, rescaled
from graphprune.recovery.ridge import SplitMoments, best_ridge
from graphprune.recovery.site_weights import SiteWeights
from graphprune.recovery.sites import Norm, Site, cut, find_norms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from graphprune.array_types import Array, Floats, Floats32
    from graphprune.data.windows import Grid
    from graphprune.recovery.editable_model import EditableModel
    from graphprune.recovery.recover_options import Method

__all__ = ["BY_NAME", "Estimate", "RecoveryMethod", "Setting", "Stop", "recovery_method"]

Stop = Site | Norm

_STRETCH = 4.0
"""A channel's deviation is scaled by this factor at most, up or down."""

BY_NAME: dict[Method, type[RecoveryMethod]] = {}
"""The methods, one for every name that :data:`graphprune.recovery.recover_options.METHODS` offers."""


def recovery_method(name: Method) -> Callable[[type[RecoveryMethod]], type[RecoveryMethod]]:
    """Return the decorator that registers a method as `name`, unchanged.

    Raises
    ------
    InternalError
        When the name is taken.
    """

    def add(method: type[RecoveryMethod]) -> type[RecoveryMethod]:
        if BY_NAME.setdefault(name, method) is not method:
            raise InternalError(f"two methods are registered as recovery method {quote(name)}")
        return method

    return add


@dataclass(frozen=True, eq=False)
class Setting:
    """What all stops of one recovery have in common.

    Attributes
    ----------
    editable : EditableModel
        The pruned network; what is estimated is written into it.
    random : numpy.random.Generator
        Draws sampled positions.
    halves : sequence of ndarray of bool
        For every batch, which of its samples are in the second of two halves.
    ridge, rounds, rescale, positions
        Those of `RecoverOptions`.
    """

    editable: EditableModel
    random: np.random.Generator
    halves: Sequence[npt.NDArray[np.bool_]]
    ridge: float
    rounds: int
    rescale: bool
    positions: int = POSITIONS


class Estimate(ABC):
    """What is learnt at one stop.

    Attributes
    ----------
    partial : bool
        Whether less is done here than the method does elsewhere, as where a layer is too large for it.
    """

    partial: bool = False

    @abstractmethod
    def add(self, own: Mapping[str, Array], dense: Mapping[str, Array]) -> None:
        """Take in a batch: values of the pruned network as recovered so far, and of the dense one, by name."""

    @abstractmethod
    def finish(self) -> bool:
        """Write what follows from all batches; return whether anything could be written."""


@dataclass(frozen=True, eq=False)
class _Rows:
    """A batch at one site, at sampled positions: what is read, and what should be given.

    Attributes
    ----------
    x, y : ndarray of float32, shape (groups, rows, columns), (groups, rows, outputs / groups)
    wanted : ndarray, shape (samples, ...)
        What should be given, everywhere.
    """

    x: Floats32
    y: Floats32
    wanted: Array
    grid: Grid


class RecoveryMethod(Estimate):
    """A way of recovering the weights of sites.

    Parameters
    ----------
    setting : Setting
    site : Site
    """

    residual: ClassVar[bool] = True
    """Whether the target of a site may be a sum that its output goes into."""
    refined: ClassVar[bool] = False
    """Whether blocks learn from the dense network afterwards, for which torch is needed."""

    def __init__(self, setting: Setting, site: Site) -> None:
        self._setting = setting
        self._site = site
        self._weights = SiteWeights(setting.editable, site)
        self._moments = SplitMoments(setting.halves)

    @classmethod
    def stops(cls, editable: EditableModel, sites: Sequence[Site]) -> Sequence[Stop]:
        """Return where the walk stops, in the order in which the network runs the nodes: at every site."""
        return sites

    @classmethod
    def at(cls, setting: Setting, stop: Stop) -> Estimate:
        """Return what works at a stop, one of :meth:`stops`."""
        if not isinstance(stop, Site):
            raise InternalError(f"{quote(stop.node.label)} is no site of {cls.__name__}")
        return cls(setting, stop)

    def _rows(self, own: Mapping[str, Array], dense: Mapping[str, Array]) -> _Rows:
        site, view = self._site, self._site.kernel.view
        wanted = self._weights.target(cut(dense[site.target], site.masks), own.get(site.other))
        grid = view.grid(wanted, self._setting.random, self._setting.positions)
        return _Rows(view.inputs(own[site.x], grid), view.outputs(wanted, grid), wanted, grid)


class _OutputMoments(RecoveryMethod):
    """Compares what a site gives with its present weights, but without its intercept, with what it should give."""

    def __init__(self, setting: Setting, site: Site) -> None:
        super().__init__(setting, site)
        self._present = self._weights.weight.astype(np.float32).astype(np.float64)

    def add(self, own: Mapping[str, Array], dense: Mapping[str, Array]) -> None:
        rows = self._rows(own, dense)
        given = rows.x.astype(np.float64) @ self._present
        self._moments.add(given.astype(np.float32), rows.y)


@recovery_method("bn")
class NormStatistics(_OutputMoments):
    """Every output gets the mean and the deviation of its target, by its normalisation where it has one.

    Where there is none, that is the same as estimating anew a BatchNormalization that was folded into the weights.
    """

    residual = False

    @classmethod
    def stops(cls, editable: EditableModel, sites: Sequence[Site]) -> Sequence[Stop]:
        """Return the normalisations, and the sites that have none behind them."""
        norms = find_norms(editable, sites)
        with_norm = {norm.x for norm in norms}
        plain = (site for site in sites if site.node.outputs[0] not in with_norm)
        return sorted([*norms, *plain], key=lambda stop: stop.node.index)

    @classmethod
    def at(cls, setting: Setting, stop: Stop) -> Estimate:
        """Return what estimates the statistics of a normalisation, or scales and shifts the outputs of a site."""
        return _NormInputs(setting.editable, stop) if isinstance(stop, Norm) else super().at(setting, stop)

    def finish(self) -> bool:
        if not self._weights.has_intercept:
            return False
        moments = self._moments.whole
        variance = np.maximum(np.diagonal(moments.xx, axis1=1, axis2=2), 1e-24)
        factor = np.where(moments.yy > 0, np.sqrt(moments.yy / variance), 1.0)
        factor = np.clip(factor, 1 / _STRETCH, _STRETCH)
        weight = self._weights.weight * factor[:, None, :]
        return self._weights.write(weight, moments.y_mean - factor * moments.x_mean)


@recovery_method("bias")
class Bias(_OutputMoments):
    """Every output gets the mean of its target."""

    def finish(self) -> bool:
        if not self._weights.has_intercept:
            return False
        moments = self._moments.whole
        return self._weights.write(self._weights.weight, moments.y_mean - moments.x_mean)


@recovery_method("least-squares")
class LeastSquares(RecoveryMethod):
    """The weights with which a site comes closest to its target, given what it reads now."""

    def __init__(self, setting: Setting, site: Site) -> None:
        super().__init__(setting, site)
        # Behind a ReLU outputs may be as negative as they like, and then have no variance to keep.
        gated = setting.rounds and site.gate and self._weights.has_intercept and not setting.rescale
        self._gated = GatedRows(self._weights.sign) if gated else None

    @classmethod
    def at(cls, setting: Setting, stop: Stop) -> Estimate:
        """Return what refits a site; of a very large one only the bias is shifted."""
        if isinstance(stop, Site) and stop.kernel.columns > MOST_COLUMNS:
            shifted = Bias(setting, stop)
            shifted.partial = True
            return shifted
        return super().at(setting, stop)

    def add(self, own: Mapping[str, Array], dense: Mapping[str, Array]) -> None:
        rows, site = self._rows(own, dense), self._site
        self._moments.add(rows.x, rows.y)
        if self._gated is not None:
            bounds = (self._weights.threshold(bound, own.get(site.other), rows.wanted) for bound in site.gate)
            self._gated.add(rows.x, rows.y, *(site.kernel.view.outputs(bound, rows.grid) for bound in bounds))

    def finish(self) -> bool:
        setting, weights, moments = self._setting, self._weights, self._moments.whole
        centred = weights.has_intercept
        parts = self._moments.parts
        if not centred:
            parts, moments = tuple(part.uncentred() for part in parts), moments.uncentred()
        ridge = best_ridge(parts, weights.weight, setting.ridge, centred=centred)
        if self._gated is not None and self._gated.complete:
            return weights.write(*refit_gated(moments, weights.weight, ridge, self._gated, setting.rounds))
        weight = refit(moments, weights.weight, ridge)
        if setting.rescale:
            weight = rescaled(moments, weight)
        return weights.write(weight, intercept(moments, weight))


@recovery_method("blocks")
class Blocks(LeastSquares):
    """The same, as the start of what blocks learn (:mod:`graphprune.recovery.refine_blocks`)."""

    refined = True


class _NormInputs(Estimate):
    """The statistics of what a `BatchNormalization` of the pruned network reads.

    Sums are taken around the means of the first batch, so that large means do not drown small variances.
    """

    def __init__(self, editable: EditableModel, norm: Norm) -> None:
        self._editable = editable
        self._norm = norm
        self._count = 0
        self._total: Floats = np.zeros(1)
        self._square: Floats = np.zeros(1)
        self._shift: Floats | None = None

    def add(self, own: Mapping[str, Array], dense: Mapping[str, Array]) -> None:
        value = own[self._norm.x]
        rows: npt.NDArray[np.float64] = np.moveaxis(value, 1, 0).reshape(value.shape[1], -1).astype(np.float64)
        if self._shift is None:
            self._shift = rows.mean(axis=1, keepdims=True)
        rows -= self._shift
        self._count += rows.shape[1]
        self._total = self._total + rows.sum(axis=1)
        self._square = self._square + np.square(rows).sum(axis=1)

    def finish(self) -> bool:
        if self._shift is None or not self._count:
            return False
        mean = self._total / self._count
        variance = np.maximum(self._square / self._count - mean**2, 0.0)
        mean = mean + self._shift[:, 0]
        if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
            return False
        self._editable.write(self._norm.mean, mean)
        self._editable.write(self._norm.variance, variance)
        return True
