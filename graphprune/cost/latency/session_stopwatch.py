# SPDX-License-Identifier: Apache-2.0
"""The stopwatch of onnxruntime, which measures in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.cost.latency.bench import session_rounds
from graphprune.cost.latency.environment import here
from graphprune.cost.latency.probe import measure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from graphprune.cost.latency.probe import Sample

__all__ = ["SessionStopwatch"]


class SessionStopwatch:
    """Times models in onnxruntime, in this process.

    Parameters
    ----------
    threads : int
    """

    def __init__(self, threads: int = 1) -> None:
        self.environment = here(threads)

    def rounds(self, models: Sequence[Path | bytes], shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[float, ...]]:
        """Run models in turn."""
        return session_rounds(models, shapes, self.environment)

    def layers(self, samples: Sequence[Sample]) -> Iterator[dict[str, int]]:
        """Measure the kernels of samples under the profiler, where conversions between layouts can be left out."""
        yield measure(samples, self.environment)
