# SPDX-License-Identifier: Apache-2.0
"""Made samples of the quality that is asked for: chosen of many, or refined by gradient as well, which needs torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.data.synthesis.make_samples import make_samples
from graphprune.extras import require

if TYPE_CHECKING:
    from collections.abc import Callable

    from graphprune.data.synthesis.make_samples import MadeSamples, SampleOptions
    from graphprune.model.load import Model

__all__ = ["REFINING_PASSES", "made_samples"]

REFINING_PASSES = 60
"""Forward passes per sample that refining is worth."""


def made_samples(
    model: Model, options: SampleOptions, tell: Callable[[str, int, int], None] | None = None
) -> MadeSamples:
    """Make samples for a model from what its file says.

    Parameters
    ----------
    model : Model
    options : SampleOptions
    tell : callable, optional
        Called with what is being done, how much of it is done, and how much there is to do.

    Raises
    ------
    DataError
        If the file does not tell what an input may be.
    UsageError
        If samples are to be refined, and torch is not installed.
    UnsupportedModelError
        If they are, and the model cannot be converted to torch.
    """
    if options.quality == "fine":
        require("train", "samples that are refined by gradient (synthetic:fine)")

    def step(what: str) -> Callable[[int, int], None] | None:
        return None if tell is None else lambda done, total: tell(what, done, total)

    made = make_samples(model, options, step("making samples"))
    if options.quality == "fast":
        return made
    from graphprune.training.refine_samples import RefineOptions, refine_samples

    return refine_samples(model, made, RefineOptions(REFINING_PASSES), step("refining samples"))
