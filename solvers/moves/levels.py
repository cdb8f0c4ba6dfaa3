# SPDX-License-Identifier: Apache-2.0
"""Levels: the widths of a group that runtimes execute well.

Fewer FLOPs are not less time. Measured in onnxruntime 1.31 on an AVX-512 CPU with one thread:

- MobileNetV2 at 0.51 of its multiply-adds with unaligned widths takes 1.75 times as long as the original, and a
  chain of convolutions of width 50 is slower than one of width 64: a width that is not a multiple of 4 leaves the
  blocked kernels.
- Among multiples of 4 the time depends on ``ceil(channels / 16)`` alone: 52 costs what 64 costs, 48 is 45 % cheaper.
- A grouped convolution stays blocked only where each of its groups has a multiple of 16 channels, so whole groups
  go, or whole blocks of each (`planning/constraints/kernel_blocks.py`); a depthwise convolution wants a multiple of 4.

Other processors and runtimes have other steps, so there is a rule for each of them (`RULES`; docs/latency.md has the
figures). OpenVINO's kernels begin a block every 16 channels with AVX-512 and every 8 with AVX2, and within it each
channel costs a little; MNN's begin one every 4. "auto" is the rule of the runtime in which a latency is measured, if it
has one, else that of this machine's processor (`machine_rule`); a plan records its name, with which the same plan comes
out elsewhere.
Alignment is part of the problem that a solver is given, never a rounding of its answer.
"""

from __future__ import annotations

import importlib
import math
import platform
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from graphprune.errors import InternalError, UsageError, quote

__all__ = ["AUTO", "RULES", "Rule", "levels", "machine_rule", "rule_for"]

AUTO = "auto"
_FINE_STEPS = (8, 4)


@dataclass(frozen=True)
class Rule:
    """What widths the kernels of a kind of machine like.

    Attributes
    ----------
    block : int
        Channels that a kernel works on at once: a block that is begun takes as long as a whole one.
    fine : int
        Channels of which a width must be a multiple to be run by such kernels at all.
    whole_groups : bool
        Whether a grouped convolution is run by such kernels only where each of its groups has whole blocks.
    """

    block: int
    fine: int
    whole_groups: bool = False

    def step(self, channels: int) -> int:
        """Return the step of a group with so many channels: whole blocks if there are at least four of them."""
        return self.block if channels >= 4 * self.block else max(8 if channels >= 32 else 4, self.fine)


RULES = {
    "avx512": Rule(block=16, fine=4, whole_groups=True),  # onnxruntime on x86 with AVX-512F
    "avx2": Rule(block=8, fine=4, whole_groups=True),  # onnxruntime on other x86
    "neon": Rule(block=16, fine=4, whole_groups=True),  # onnxruntime on 64-bit ARM
    "cuda": Rule(block=8, fine=8),  # tensor cores at 16 bits
    "openvino": Rule(block=16, fine=1),  # OpenVINO 2026 on x86 with AVX-512F
    "openvino-avx2": Rule(block=8, fine=1),  # OpenVINO 2026 on other x86
    "mnn": Rule(block=4, fine=1),  # MNN 3.6 on x86
}
"""By name; "auto" chooses among those for processors and that of a runtime."""


@cache
def machine_rule() -> str:
    """Return the name of the rule for this machine's processor; of an unknown one that with the largest blocks."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "neon"
    for module in ("numpy._core._multiarray_umath", "numpy.core._multiarray_umath"):
        try:
            features = importlib.import_module(module).__cpu_features__
        except (ImportError, AttributeError):
            continue
        return "avx512" if features.get("AVX512F", True) else "avx2"
    return "avx512"


def rule_for(round_to: int | str, runtime: str = "") -> int | str:
    """Return a number or the name of a rule for what ``--round-to`` may be.

    Parameters
    ----------
    round_to : int or str
    runtime : str
        Where networks are to be fast: "auto" is its rule, if it has one, else that of this machine's processor.

    Raises
    ------
    UsageError
        If it is no positive number, "auto" or the name of a rule.
    """
    if round_to == AUTO:
        machine = machine_rule()
        return next((name for name in (f"{runtime}-{machine}", runtime) if name in RULES), machine)
    if isinstance(round_to, str) and round_to not in RULES:
        known = ", ".join((AUTO, *RULES))
        raise UsageError(f"widths cannot be rounded to {quote(round_to)}: give a positive number, or one of {known}")
    if not isinstance(round_to, str) and round_to < 1:
        raise UsageError(f"widths can be rounded to a positive number or 'auto', got {round_to}")
    return round_to


def levels(
    size: int, channels: int, round_to: int | str, minimum: int = 1, relaxed: bool = False, step: int = 1
) -> npt.NDArray[np.int64]:
    """Return the widths that a group may take, in atoms; a width of ``n`` atoms is ``n * channels`` channels.

    With a number, channels come in multiples of it. With a rule they come in whole blocks in a group of four blocks or
    more, in multiples of 8 from 32 channels on, of 4 below that (or of the least that the rule knows), and one by one
    in a group of fewer than 4; below the first multiple of a step the finer steps 8 and 4 go on, so that narrow widths
    stay reachable. The full size is always allowed.

    Parameters
    ----------
    size : int
        Full width in atoms.
    channels : int
        Channels per atom.
    round_to : int or str
        A number, the name of a rule, or "auto".
    minimum : int
        The fewest atoms to keep, at most `size`.
    relaxed : bool
        With a rule, also allow every width below the narrowest aligned one, for budgets that aligned widths cannot
        reach. A number is the user's word and never relaxed.
    step : int
        With a rule, atoms in multiples of which the group comes beside that.

    Returns
    -------
    ndarray of int64, strictly increasing, first >= minimum, last == size

    Raises
    ------
    UsageError
        When `round_to` is neither a positive number nor a rule.
    InternalError
        When `size`, `channels` or `minimum` is not positive, or `minimum` exceeds `size`.

    Examples
    --------
    >>> levels(64, 1, 16).tolist()
    [16, 32, 48, 64]
    >>> levels(36, 1, "avx512").tolist()
    [4, 8, 16, 24, 32, 36]
    >>> levels(4, 1, "avx512", relaxed=True).tolist()
    [1, 2, 3, 4]
    """
    if not 1 <= minimum <= size or channels < 1:
        raise InternalError(f"no widths for {size} atoms of {channels} channels with a minimum of {minimum}")
    rule = rule_for(round_to)
    if not isinstance(rule, str):
        aligned = _multiples(size, channels, rule)
    else:
        aligned = _ruled(size, channels, RULES[rule])
        aligned = aligned[(aligned % step == 0) | (aligned == size)]
        if relaxed:
            aligned = np.union1d(np.arange(1, aligned[0], dtype=np.int64), aligned)
    return aligned[aligned >= minimum]


def _multiples(size: int, channels: int, step: int) -> npt.NDArray[np.int64]:
    """Return the atom counts whose channels are a multiple of `step`, and the full size."""
    atoms = step // math.gcd(step, channels)
    return np.union1d(np.arange(atoms, size + 1, atoms, dtype=np.int64), np.array([size], dtype=np.int64))


def _ruled(size: int, channels: int, rule: Rule) -> npt.NDArray[np.int64]:
    total = size * channels
    if total < _FINE_STEPS[-1]:
        return np.arange(1, size + 1, dtype=np.int64)
    coarse = rule.step(total)
    allowed = _multiples(size, channels, coarse)
    for step in _FINE_STEPS:
        if step < coarse:
            finer = _multiples(size, channels, step)
            allowed = np.concatenate([finer[finer < allowed[0]], allowed])
    return allowed
