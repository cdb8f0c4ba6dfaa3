# SPDX-License-Identifier: Apache-2.0
"""A Ray cluster: the one at the address that is given, or processes of this machine."""

from __future__ import annotations

import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from graphprune.errors import GraphPruneError, UsageError, quote

if TYPE_CHECKING:
    from graphprune.trials.workers import Arguments, Call, Workers

__all__ = ["run"]

_PATIENCE = 10
"""Seconds in which a cluster answers."""


def run(function: Call, shared: object, calls: Sequence[Arguments], workers: Workers) -> Generator[Any]:
    """Yield what calls return as they are done.

    Raises
    ------
    UsageError
        If no cluster answers.
    """
    import ray

    with _connected(workers):
        handle, remote = ray.put(shared), ray.remote(num_cpus=1, max_retries=0)(function)
        waiting = [remote.remote(handle, *arguments) for arguments in calls]
        try:
            while waiting:
                (done,), waiting = ray.wait(waiting, num_returns=1)
                yield _result(done)
        finally:
            for one in waiting:
                ray.cancel(one, force=True)


def _result(one: Any) -> Any:
    """Return what a call returned; an error of graphprune's comes as itself, not as a task of Ray that failed."""
    import ray

    try:
        return ray.get(one)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, GraphPruneError):
            raise error.cause from None
        raise


def _answers(address: str) -> None:
    """Raise what the system says where nothing listens at an address: Ray itself would go on trying for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()


@contextmanager
def _connected(workers: Workers) -> Generator[None]:
    """Connect to a cluster or start one, unless the program has done so itself."""
    import ray

    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if workers.address:
            _answers(workers.address)
            ray.init(workers.address, **quiet)
        else:
            ray.init(num_cpus=workers.jobs, include_dashboard=False, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"no Ray cluster answers at {quote(workers.address)}: {error}",
            hint="give the address that `ray start --head` prints, such as 10.0.0.1:6379, or auto on a machine of it",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
