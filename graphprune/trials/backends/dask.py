# SPDX-License-Identifier: Apache-2.0
"""A Dask cluster: the one whose scheduler has the address that is given, or processes of this machine."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from graphprune.errors import UsageError, quote

if TYPE_CHECKING:
    from graphprune.trials.workers import Arguments, Call, Workers

__all__ = ["run"]

_PATIENCE = 10
"""Seconds in which a scheduler answers, and has a worker."""


def run(function: Call, shared: object, calls: Sequence[Arguments], workers: Workers) -> Generator[Any]:
    """Yield what calls return as they are done.

    Raises
    ------
    UsageError
        If no scheduler answers, or no worker is there.
    """
    from distributed import as_completed

    with _client(workers) as client:
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
            handle = client.scatter(shared, broadcast=True, hash=False)
        except TimeoutError as error:
            where = quote(workers.address or "this machine")
            raise UsageError(
                f"the Dask cluster at {where} has no worker after {_PATIENCE} s",
                hint=f"start some where graphprune is installed: dask worker {workers.address} --nthreads 1",
            ) from error
        futures = [client.submit(function, handle, *arguments, pure=False) for arguments in calls]
        try:
            for future in as_completed(futures, loop=client.loop):
                yield future.result()
        finally:
            client.cancel(futures)


def _client(workers: Workers) -> Any:
    """Connect to a cluster, or start one that ends with the client."""
    from distributed import Client

    if not workers.address:
        return Client(
            n_workers=workers.jobs,
            threads_per_worker=1,
            dashboard_address=None,
            silence_logs="CRITICAL",
            set_as_default=False,
        )
    try:
        return Client(workers.address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise UsageError(
            f"no Dask scheduler answers at {quote(workers.address)}: {error}",
            hint="give the address that `dask scheduler` prints, such as tcp://10.0.0.1:8786",
        ) from error
