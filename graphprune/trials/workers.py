# SPDX-License-Identifier: Apache-2.0
"""Workers: the processes that trials run in, of this machine or of a cluster.

How calls reach them, and results come back, is what a backend does (:mod:`graphprune.trials.backends`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from graphprune.checks import check_fields
from graphprune.choices import Backend
from graphprune.errors import RequestError, UsageError, quote
from graphprune.extras import require

__all__ = ["Arguments", "Call", "Workers"]

Arguments = tuple[Any, ...]
Call = Callable[..., Any]

_ENDED = ("TerminatedWorkerError", "KilledWorker", "WorkerCrashedError", "OutOfMemoryError")
"""What the backends raise where a process was ended from outside; they have no common base."""


@dataclass(frozen=True)
class Workers:
    """The processes that trials run in.

    Parameters
    ----------
    jobs : int
        Processes that work at a time on this machine; 1 for the one that asks. A cluster has its own number.
    backend : {"loky", "dask", "ray"}
        How they are started and reached.
    address : str
        Of a cluster of that kind; empty for this machine.

    Raises
    ------
    UsageError
        If these do not go together, or the packages of a backend are not installed.
    """

    jobs: int = 1
    backend: Backend = "loky"
    address: str = ""

    def __post_init__(self) -> None:
        check_fields(self, backend=Backend)
        if self.jobs < 1:
            raise UsageError(f"{self.jobs} processes cannot work")
        if self.address and self.backend == "loky":
            raise UsageError(
                f"there is a cluster at {quote(self.address)}, but loky works on this machine",
                hint="say of which kind it is: --backend dask or --backend ray",
            )
        if self.address and self.jobs > 1:
            raise UsageError(f"the cluster at {quote(self.address)} has its own number of processes, so give no --jobs")
        if self.backend != "loky":
            require(self.backend, f"--backend {self.backend}")

    @property
    def none(self) -> bool:
        """Whether the process that asks does all of the work."""
        return self.jobs == 1 and self.backend == "loky"

    @property
    def far(self) -> bool:
        """Whether they may be on machines that do not have the files of this one."""
        return bool(self.address)

    def results(self, function: Call, shared: object, calls: Sequence[Arguments]) -> Generator[Any]:
        """Yield what ``function(shared, *arguments)`` returns for each of the calls, as they are done.

        Parameters
        ----------
        function : callable
            Of a module that the workers can import.
        shared : object
            Sent to each worker once.
        calls : sequence of tuple
            Other arguments of each call.

        Raises
        ------
        RequestError
            If a process was ended from outside.
        UsageError
            If a cluster cannot be reached.
        """
        run = import_module(f"graphprune.trials.backends.{self.backend}").run
        try:
            yield from run(function, shared, calls, self)
        except Exception as error:  # backends raise classes of their own, with no common base
            if type(error).__name__ not in _ENDED:
                raise
            raise RequestError(
                f"a process of {self.backend} was ended from outside, most likely for want of memory",
                hint="let fewer work at a time, or on machines with more memory; what is done already is kept by sweep",
            ) from error
