# SPDX-License-Identifier: Apache-2.0
"""Training data made from a file: what a pruned network learns from where nobody has any data.

The original gives the targets, so images need no labels; what they must be is such that the original works on them as
on its own. That is what refining by gradient is for: of a small network that was held against real images, refined ones
made 78.6 % of 78.3 %, as many real ones 78.4 %, and fast ones, however many, 77.5 %. They are not augmented either, for
a shifted image has other statistics: 78.5 %. So images that were refined come again, in as many epochs as are wanted.
What is to be learned from them is what blocks give, beside outputs (`block_hints`).

What was learned is judged by images of another seed, half of them of a kind that is never learned from, refined alike:
only on these the loss went the way of the accuracy on real images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graphprune.data.arrays import from_arrays
from graphprune.data.signature import input_specs
from graphprune.data.synthesis.blend import ANOTHER_KIND
from graphprune.data.synthesis.make_samples import default_count
from graphprune.model.graph import Graph
from graphprune.model.normalize import inline_functions
from graphprune.model.sizes.usual_shapes import usual_shapes
from graphprune.recovery.made_samples import made_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from graphprune.data.source import Source
    from graphprune.data.synthesis.make_samples import SampleOptions
    from graphprune.model.load import Model
    from graphprune.training.finetune_options import FinetuneOptions

    Tell = Callable[[str, int, int], None]

__all__ = ["MadeTrainingData", "make_training_data"]

_EPOCH = 16
"""Samples of an epoch, for each of those from which a network is recovered by default."""
_DIFFERENT = 4
"""How many of them are different."""
_JUDGES = 4
"""One judges for so many of those from which a network is recovered, and as many more of another kind."""


@dataclass(frozen=True, eq=False)
class MadeTrainingData:
    """What is learned from, and what judges.

    Attributes
    ----------
    learned, judges : Source
    facts : mapping of str to object
        How they were made, for the record.
    """

    learned: Source
    judges: Source
    facts: Mapping[str, Any]

    def suited(self, options: FinetuneOptions) -> FinetuneOptions:
        """Return options that suit such samples: they are not augmented unless somebody says how."""
        return replace(options, augment="none") if options.augment == "auto" else options


def make_training_data(model: Model, options: SampleOptions, tell: Tell | None = None) -> MadeTrainingData:
    """Make samples for a network to learn from the original, deterministically.

    They are refined by gradient where the file keeps statistics, whatever quality is asked for.

    Parameters
    ----------
    model : Model
        The original.
    options : SampleOptions
        ``count`` is that of different samples.
    tell : callable, optional
        Called with what is being done, how much of it is done, and how much there is to do.

    Raises
    ------
    DataError
        If the file does not tell what an input may be.
    UnsupportedModelError
        If the model cannot be converted to torch.
    """
    graph = Graph(inline_functions(model.proto))
    shapes = usual_shapes(model, {name: size for name, size in options.shapes.items() if name in graph.inputs})
    usual = default_count(shapes)
    different, fine = options.count or usual * _DIFFERENT, replace(options, quality="fine")
    parts = [
        made_samples(model, replace(fine, count=min(usual, different - start), seed=_seed(options, 1, start)), tell)
        for start in range(0, different, usual)
    ]
    learned = _joined(model, [part.source for part in parts])
    shown = max(len(learned), usual * _EPOCH)
    epoch = learned.subset(np.arange(shown, dtype=np.int64) * len(learned) // shown)
    judging = replace(fine, count=max(2, min(usual, different) // _JUDGES), seed=_seed(options, 0, 0))
    judges = [made_samples(model, one, tell).source for one in (judging, replace(judging, shares=ANOTHER_KIND))]
    facts: dict[str, Any] = {"knowledge": parts[0].knowledge, "different": len(learned)}
    refined = [part.refinement for part in parts if part.refinement is not None]
    if refined:
        before, after = np.mean([one.mismatch for one in refined], axis=0).tolist()
        facts["refined"] = {"passes": refined[0].passes, "mismatch": [before, after]}
    return MadeTrainingData(epoch, _joined(model, judges), facts)


def _seed(options: SampleOptions, use: int, part: int) -> int:
    """Return the seed of one part of the samples that judge (use 0), or are learned from (use 1)."""
    return int(np.random.SeedSequence([options.seed, use, part]).generate_state(1)[0])


def _joined(model: Model, sources: Sequence[Source]) -> Source:
    """Return the samples of several sources in one."""
    specs = input_specs(model)
    feeds = [source.read(np.arange(len(source), dtype=np.int64)).feeds for source in sources]
    arrays = {
        spec.name: feeds[0][spec.name]
        if spec.samples is None
        else np.concatenate([part[spec.name] for part in feeds], axis=spec.samples)
        for spec in specs
    }
    return from_arrays(sources[0].name, specs, arrays)
