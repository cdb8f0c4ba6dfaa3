# SPDX-License-Identifier: Apache-2.0
"""In a checkout, ``solvers`` and ``export`` stand beside this package and not in it: how they are found there.

An installed package needs none of this. But a process that is started in a checkout and has the current folder on its
path (``python -m graphprune``, a worker of joblib or accelerate) finds the folder of this file before any installed
package, and looks in it for everything below.
"""

from __future__ import annotations

import sys
from importlib.util import spec_from_file_location
from pathlib import Path

TYPE_CHECKING = False  # as in the package: what is imported here takes a moment in which Ctrl-C has no answer
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["FolderFinder", "find_neighbours"]

_NEIGHBOURS = ("solvers", "export")


class FolderFinder:
    """Answers for exactly the packages that it was given.

    To put the root of the checkout on the package's path would find them as well, but with them everything else that
    lies there: the tests, the tools, and this package a second time, with exception classes of its own.

    Parameters
    ----------
    folders : mapping of str to Path
        Where each package is, by its full name.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = dict(folders)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        """Say where a package is, or that it is none of these."""
        folder = self._folders.get(fullname)
        if folder is None:
            return None
        return spec_from_file_location(fullname, folder / "__init__.py", submodule_search_locations=[str(folder)])


def find_neighbours(package: Path) -> None:
    """Let the packages be imported that stand beside a folder of a checkout; does nothing where there are none.

    Parameters
    ----------
    package : Path
        The folder of graphprune's modules.
    """
    folders = {f"graphprune.{name}": package.parent / name for name in _NEIGHBOURS}
    if any((package / name).exists() for name in _NEIGHBOURS):
        return
    if all((folder / "__init__.py").is_file() for folder in folders.values()):
        # In front: an installation elsewhere must not provide one half of the library and this checkout the other.
        sys.meta_path.insert(0, FolderFinder(folders))
