# SPDX-License-Identifier: Apache-2.0
"""What the command line's library raises where a command is not used as it can be."""

from __future__ import annotations

import typer

__all__ = ["CommandLineError"]

# typer brings its own copy of click in some versions and depends on click in others; reached
# through a public class, the base of all its usage errors is right in both.
CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]
