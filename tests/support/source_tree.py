# SPDX-License-Identifier: Apache-2.0
"""The library's source files in the checkout, by the module name that each is installed under."""

from __future__ import annotations

import functools
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Folders of the checkout that hold library code, by the package they are installed as.
PACKAGE_ROOTS = {"graphprune": "graphprune", "graphprune.export": "export", "graphprune.solvers": "solvers"}


@functools.cache
def modules() -> dict[str, Path]:
    """Return every library module: dotted name to source file."""
    found = {}
    for package, folder in PACKAGE_ROOTS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join((package, *parts)).removesuffix(".__init__")
            found[name] = path
    return found


def packages() -> dict[str, Path]:
    """Return every library package: dotted name to folder, whether or not it has an ``__init__.py``."""
    return {
        name if path.name == "__init__.py" else name.rpartition(".")[0]: path.parent for name, path in modules().items()
    }
