# SPDX-License-Identifier: Apache-2.0
"""Processes: how many try solvers and budgets at a time, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from graphprune.choices import Backend

if TYPE_CHECKING:
    from graphprune.trials.workers import Workers

__all__ = ["Processes"]


@dataclass(frozen=True)
class Processes:
    """The processes that work."""

    panel: ClassVar[str] = "Processes"

    jobs: Annotated[
        int, typer.Option("--jobs", "-j", metavar="INT", min=1, help="Processes of this machine that work at a time.")
    ] = 1
    backend: Annotated[Backend, typer.Option(help="How they are started: by joblib, by Dask or by Ray.")] = "loky"
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Of a cluster whose processes work instead, e.g. tcp://10.0.0.1:8786 with --backend dask.",
            show_default=False,
        ),
    ] = None

    def workers(self) -> Workers:
        """Return the same for the Python API.

        Raises
        ------
        UsageError
            If these do not go together, or packages are missing.
        """
        from graphprune.trials.workers import Workers

        return Workers(self.jobs, self.backend, self.address or "")
