# SPDX-License-Identifier: Apache-2.0
"""Scaled curves: errors of the outputs at every width, from few measurements.

How the error of the layers that read a group grows as it gets narrower is known in closed form; how much that error
weighs at the outputs is not. A measurement at one width says it: the curve is scaled to go through it. Between two such
widths the logarithm of the scale is interpolated; beyond them it stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.array_types import Floats, Ints
from graphprune.solvers.protocols.outcomes import Profile

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ScaledCurves"]

_LEAST = 0.05
"""Of the expected scale: what is measured of a small error may be nothing, or less, by chance."""


class ScaledCurves:
    """The curves of all groups of one network, and what was measured of them.

    Parameters
    ----------
    curves : sequence of Profile or None
        Errors of the layers that read each group, at every width.
    scales : ndarray, shape (groups,), optional
        How much these errors are expected to weigh at the outputs; NaN where nobody knows.
    """

    def __init__(self, curves: Sequence[Profile | None], scales: Floats | None = None) -> None:
        self._curves = tuple(curves)
        self._expected = np.full(len(self._curves), np.nan) if scales is None else scales
        self._points: list[dict[int, float]] = [{} for _ in self._curves]

    def worth_measuring(self, widths: Ints) -> Ints:
        """Return at which of some widths a measurement would tell something; -1 for the other groups.

        A group with a measurement close by is not measured again, unless it is to go as a whole.
        """
        wanted = np.full(len(self._curves), -1, dtype=np.int64)
        for group, (curve, points) in enumerate(zip(self._curves, self._points, strict=True)):
            if curve is None or curve.at(widths[group : group + 1])[0] <= 0:
                continue
            near = max(1, int(curve.widths[-1]) // 16) if widths[group] else 0
            if all(abs(width - int(widths[group])) > near for width in points):
                wanted[group] = widths[group]
        return wanted

    def add(self, widths: Ints, errors: Floats) -> None:
        """Take in what was measured of each group at a width; NaN where nothing was."""
        for group, (width, error) in enumerate(zip(widths.tolist(), errors.tolist(), strict=True)):
            curve = self._curves[group]
            if curve is None or np.isnan(error):
                continue
            own = float(curve.at(np.array([width]))[0])
            if own > 0:
                self._points[group][width] = error / own

    @property
    def scales(self) -> Floats:
        """Per group, how much the errors of its readers weigh at the outputs: as measured, or as expected.

        A group that nothing is known of counts like the median of the others.
        """
        measured = np.array([np.mean(list(points.values())) if points else np.nan for points in self._points])
        known = np.where(np.isnan(measured), self._expected, measured)
        positive = known[known > 0]
        middle = float(np.median(positive)) if len(positive) else 1.0
        floor = _LEAST * np.where(self._expected > 0, self._expected, middle)
        return np.where(np.isnan(known), middle, np.maximum(known, floor))

    def profiles(self) -> tuple[Profile | None, ...]:
        """Return the errors of the outputs at every width, through what was measured."""
        return tuple(
            None if curve is None else _scaled(curve, points, scale)
            for curve, points, scale in zip(self._curves, self._points, self.scales.tolist(), strict=True)
        )


def _scaled(curve: Profile, points: dict[int, float], scale: float) -> Profile:
    """Return a curve times its scale, non-increasing in the width."""
    at = np.array(sorted(points), dtype=np.float64)
    logs = np.log(np.maximum([points[int(width)] for width in at], _LEAST * scale))
    factors = np.exp(np.interp(curve.widths, at, logs)) if len(at) else np.full(len(curve.widths), scale)
    errors = np.maximum.accumulate((curve.errors * factors)[::-1])[::-1]
    return Profile(curve.order, curve.widths, errors)
