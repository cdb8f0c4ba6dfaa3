# SPDX-License-Identifier: Apache-2.0
"""The command line: one thin module per command on top of the API.

Data goes to stdout, talk to stderr. Nothing heavy is imported before a command runs, so
that ``--help`` answers at once.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # imported, it would take a moment in which nobody could say what a Ctrl-C means
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        0 done; 1 the request cannot be met; 2 wrong usage, bad input or I/O; 101 internal error
        or failed verification; 130, 141 and 143 after Ctrl-C, a closed pipe and SIGTERM.
    """
    try:
        from graphprune.cli.boundary import run

        return run(argv)
    except KeyboardInterrupt:  # where no boundary says it: before there is one, or while it says something else
        sys.stderr.write("error: interrupted\n")
        return 130
