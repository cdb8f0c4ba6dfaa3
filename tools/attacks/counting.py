# SPDX-License-Identifier: Apache-2.0
"""A plugin of pytest that runs properties only, with more examples and other ones, and counts them.

An example counts once its property has held for it; those that a property rejects are counted apart, and so is how
often one failed. Loaded by `attacks.properties` with ``-p``, and told what to do by the environment.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import seed as seeded
from hypothesis.errors import UnsatisfiedAssumption

__all__ = ["COUNTS", "TIMES", "CountingPlugin", "pytest_configure"]

COUNTS, TIMES, SEED, DONE = (f"GRAPHPRUNE_ATTACK_{name}" for name in ("COUNTS", "TIMES", "SEED", "DONE"))
"""Variables: the file that gets a line per property; how many times as many examples; their seed; what not to run."""


class CountingPlugin:
    """Counts examples by property."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.prepared: set[int] = set()

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Deselect what is no property, and what was run already."""
        done = set(json.loads(os.environ.get(DONE, "[]")))
        chosen = []
        for item in items:
            function = getattr(item, "obj", None)
            if getattr(function, "is_hypothesis_test", False) and item.nodeid not in done:
                chosen.append(item)
                self._prepare(getattr(function, "__func__", function))
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen

    def _prepare(self, function: Any) -> None:
        if id(function) in self.prepared:
            return
        self.prepared.add(id(function))
        own = getattr(function, "_hypothesis_internal_use_settings", None) or settings.default
        # How slowly examples are drawn says nothing of the property.
        function._hypothesis_internal_use_settings = settings(
            own,
            max_examples=own.max_examples * int(os.environ[TIMES]),
            deadline=None,
            derandomize=False,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        seeded(int(os.environ[SEED]))(function)
        function.hypothesis.inner_test = self._counted(function.hypothesis.inner_test)

    def _counted(self, property_: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(property_)
        def counted(*arguments: Any, **options: Any) -> None:
            try:
                property_(*arguments, **options)
            except UnsatisfiedAssumption:
                self.counts["rejected"] += 1
                raise
            except Exception:  # whatever a property raises when it does not hold
                self.counts["failed"] += 1
                raise
            self.counts["held"] += 1

        return counted

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write what came of one property."""
        if report.when == "call":
            entry = {"test": report.nodeid, "outcome": report.outcome, "clock": report.duration, **self.counts}
            entry["wrong"] = report.longreprtext if report.failed else ""
            with Path(os.environ[COUNTS]).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
            self.counts.clear()


def pytest_configure(config: pytest.Config) -> None:
    """Enter the plugin."""
    config.pluginmanager.register(CountingPlugin())
