# SPDX-License-Identifier: Apache-2.0
"""Widen: have channels several times without changing what the network computes.

Each group that `solve` can prune gets copies of its channels; whoever reads them reads a share of each copy. Pruning
without loss (`solve --lossless`) finds the copies and takes them out again.

Source: the function-preserving widening of Net2Net (Chen et al., Net2Net: Accelerating Learning via Knowledge Transfer,
arXiv:1511.05641), for whole coupled groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphprune.analysis.analysis import Analysis
from graphprune.array_types import Ints
from graphprune.checks import check_fields, contained
from graphprune.errors import NothingToPruneError, UsageError, VerificationError
from graphprune.surgery.marks import drop_marks
from graphprune.surgery.prune import operate
from graphprune.widening.copies import Copies, Noise
from graphprune.widening.sums import Sums, find_sums

if TYPE_CHECKING:
    from graphprune.model.load import Model
    from graphprune.verification.verify import Verification

__all__ = ["WideGroup", "WidenOptions", "Widened", "copies_of", "widen"]


_LARGEST = 64.0


@dataclass(frozen=True)
class WidenOptions:
    """How a model is widened.

    Parameters
    ----------
    factor : float
        How many times as wide each group becomes, at least 1. Where that gives no whole number of copies, some
        channels, evenly spread, get one more than others.
    noise : float
        How unequally copies share their readers' weights: the standard deviation of what is moved from one copy to
        another, in units of that of the weight. It breaks the symmetry of copies in training, and changes nothing that
        the network computes.
    seed : int
        Of the noise.
    verify : bool
        Run both models in onnxruntime and compare all tensors.
    """

    factor: float = 2.0
    noise: float = 0.0
    seed: int = 0
    verify: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        if not 1.0 <= self.factor <= _LARGEST:
            raise UsageError(f"the factor must be between 1 and {_LARGEST:.0f}, not {self.factor}")
        if not (np.isfinite(self.noise) and self.noise >= 0):
            raise UsageError(f"the noise must be at least 0, not {self.noise}")
        if self.seed < 0:
            raise UsageError(f"the seed must be at least 0, not {self.seed}")


@dataclass(frozen=True)
class WideGroup:
    """One coupled group: its width before and after, and why it is no wider."""

    id: str
    name: str
    before: int
    after: int
    why: str = ""


@dataclass(frozen=True, eq=False)
class Widened:
    """A wider model.

    Attributes
    ----------
    model : Model
    groups : tuple of WideGroup
    flops : int
        Of the wider model.
    verification : Verification or None
        How the tensors compared; None where they were not.
    """

    model: Model
    groups: tuple[WideGroup, ...]
    flops: int
    verification: Verification | None


@contained
def widen(model: Model | Analysis, options: WidenOptions | None = None) -> Widened:
    """Have the channels of every coupled group several times, without changing what the network computes.

    Parameters
    ----------
    model : Model or Analysis
        It is not changed. An analysis with head-dim attention copies parts of heads instead of heads.
    options : WidenOptions, optional
        How many times as wide, and whether copies are made to differ.

    Returns
    -------
    Widened
        The wider model in memory; by default both were run, and all tensors compared.

    Raises
    ------
    NothingToPruneError
        If no group can be wider.
    UsageError
        If an option has no meaning.
    VerificationError
        If the wider model computes something else, or onnxruntime cannot run it.
    """
    # Copies stand beside what they are copies of, which has to be in the same group of a convolution.
    analysis = (model if isinstance(model, Analysis) else Analysis(model)).by_position()
    options = options or WidenOptions()
    if analysis.approximate:
        raise UsageError("copies would change what normalisations over channels compute", hint="analyse without them")
    sums = find_sums(analysis)
    number = copies_of(analysis, options.factor, sums)
    if options.factor > 1 and not (number > 1).any():
        if (copies_of(analysis, 2.0, sums) > 1).any():
            raise UsageError(
                f"a factor of {options.factor:g} gives no group of the model a channel more", hint="raise the --factor"
            )
        raise NothingToPruneError(
            "no channel of the model can be copied", hint="`graphprune inspect MODEL` says why channels are fixed"
        )
    copies = Copies(analysis, number, sums, Noise(options.noise, options.seed))
    proto = operate(analysis, copies)
    drop_marks(proto)
    model = analysis.model.replaced(proto)
    verification = _verified(analysis, model, copies) if options.verify else None
    starts = analysis.grouping.starts.tolist()
    groups = tuple(
        WideGroup(
            group.id, group.name, group.size, int(number[start : start + group.size].sum()), sums.narrow.get(at, "")
        )
        for at, (group, start) in enumerate(zip(analysis.groups, starts, strict=False))
    )
    flops = analysis.cost.flops(np.array([group.after for group in groups], dtype=np.int64))
    return Widened(model, groups, flops, verification)


def copies_of(analysis: Analysis, factor: float, sums: Sums) -> Ints:
    """Return how often each atom is there, shape (atoms,)."""
    number = np.ones(len(analysis.grouping.group_of), dtype=np.int64)
    for at, group in enumerate(analysis.groups):
        if at in sums.narrow:
            continue
        start, size = int(analysis.grouping.starts[at]), group.size
        each, more = divmod(round(factor * size), size)
        own = number[start : start + size]
        own[:] = each
        own[np.arange(more) * size // max(more, 1)] += 1
    return number


def _verified(analysis: Analysis, model: Model, copies: Copies) -> Verification:
    from graphprune.verification.verify import verify_widened

    verification = verify_widened(analysis, model, copies)
    if not verification.ok:
        raise VerificationError(
            f"the wider model differs from the original: {verification.tensor!r} by {verification.error:.1e} of its "
            f"largest value, allowed are {verification.tolerance:.1e}",
            hint="this is a fault of graphprune; nothing was written",
        )
    return verification
