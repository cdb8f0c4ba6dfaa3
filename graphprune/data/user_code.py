# SPDX-License-Identifier: Apache-2.0
"""The user's own code, named as ``package.module:function``. Modules are also looked for in the current folder."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from graphprune.errors import UsageError, quote

__all__ = ["FAILURES", "imported", "reason"]

FAILURES: tuple[type[BaseException], ...] = (Exception, SystemExit)
"""What calls of the user's own code raise. ``sys.exit`` in it must not end the program, least of all with code 0."""


def reason(error: BaseException) -> str:
    """Say how the user's own code failed."""
    if isinstance(error, SystemExit):
        return f"it called sys.exit({quote(error.code) if error.code is not None else ''})"
    return f"{type(error).__name__}: {quote(str(error))}"


def imported(text: str, option: str = "") -> Any:
    """Return what a text names.

    Parameters
    ----------
    text : str
        ``package.module:function``; after the colon, attributes may follow one another.
    option : str
        Of the command line, for messages.

    Raises
    ------
    UsageError
        If the text has another form, the module cannot be imported, or it has nothing of this name.
    """
    said = f"{option} {quote(text)}".strip()
    module, _, name = text.partition(":")
    if not (module and name):
        raise UsageError(f"{said} names no function", hint="give package.module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        imported_module: Any = importlib.import_module(module)
        for part in name.split("."):
            imported_module = getattr(imported_module, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"{said} cannot be imported: {quote(str(error))}") from error
    except FAILURES as error:  # the module's own code failed
        raise UsageError(f"importing {said} failed: {reason(error)}") from error
    return imported_module
