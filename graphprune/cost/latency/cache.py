# SPDX-License-Identifier: Apache-2.0
"""The cache of measured times: one small JSON file per environment in the user's cache folder.

With all times at hand, the same request gives the same plan; measuring again never gives the same time twice. The
folder is ``$GRAPHPRUNE_CACHE``, else ``$XDG_CACHE_HOME/graphprune``, else ``~/.cache/graphprune``. Deleting it costs
nothing but time. A file that cannot be read as what it should be is measured anew and replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphprune.errors import GraphPruneError
from graphprune.model.write import write_bytes_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping

    from graphprune.cost.latency.environment import Environment

__all__ = ["Cache", "cache_folder"]

_SCHEMA = "graphprune.latency/1"
_PARTS = ("kernels", "models", "ratios")


def cache_folder() -> Path:
    """Return the folder of the cache; it need not exist."""
    own, user = os.environ.get("GRAPHPRUNE_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own)
    return (Path(user) if user else Path.home() / ".cache") / "graphprune"


class Cache:
    """Measured times of one environment.

    Parameters
    ----------
    environment : Environment
    folder : Path, optional
        By default `cache_folder`.

    Attributes
    ----------
    kernels : dict of str to int
        Nanoseconds by the key of a sample.
    models : dict of str to int
        Nanoseconds by the key of a whole model.
    ratios : dict of str to int
        Time of a pruned model by that of its original, in millionths, by the key of both.
    """

    def __init__(self, environment: Environment, folder: Path | None = None) -> None:
        self._environment = environment.as_json()
        digest = hashlib.sha256(json.dumps(self._environment, sort_keys=True).encode()).hexdigest()
        self.path = (folder or cache_folder()) / f"latency-{digest[:16]}.json"
        self.kernels: dict[str, int] = {}
        self.models: dict[str, int] = {}
        self.ratios: dict[str, int] = {}
        self._take(self._read())

    def save(self) -> bool:
        """Write what was added, and what other processes have added since; return whether that was possible."""
        self._take(self._read())
        content = {"schema": _SCHEMA, "environment": self._environment}
        content |= {part: dict(sorted(getattr(self, part).items())) for part in _PARTS}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomically(json.dumps(content, indent=0).encode(), self.path, force=True)
        except (OSError, GraphPruneError):
            return False
        return True

    def _take(self, stored: Mapping[str, Mapping[str, int]]) -> None:
        """Take over stored times: what was stored first stays, so that all processes read the same."""
        for part, times in stored.items():
            getattr(self, part).update(times)

    def _read(self) -> dict[str, dict[str, int]]:
        try:
            content: Any = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(content, dict) or content.get("schema") != _SCHEMA:
            return {}
        if content.get("environment") != self._environment:
            return {}
        parts = {part: content.get(part) for part in _PARTS}
        return {part: _times(times) for part, times in parts.items()}


def _times(stored: Any) -> dict[str, int]:
    """Return the entries that are positive whole numbers."""
    if not isinstance(stored, dict):
        return {}
    return {str(key): value for key, value in stored.items() if type(value) is int and 0 < value < 2**62}
