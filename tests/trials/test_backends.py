# SPDX-License-Identifier: Apache-2.0
"""Backends: what other processes find is what this one finds; what goes wrong there is told as if it were here."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from pruning_cases import KINDS

import graphprune
from graphprune import BudgetRequest, Contest, SolveOptions, Sweep, Workers, compare, sweep
from graphprune.errors import BudgetUnreachableError, DataError, RequestError, UsageError
from graphprune.trials.meter import Measures
from graphprune.trials.rows import read_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from graphprune.report.trials import Trial

CONTEST = Contest(("bisection", "uniform"), ("l1",), SolveOptions(round_to=1))
HALF = BudgetRequest("flops", 0.5)

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "net.onnx"
    onnx.save(KINDS["folded"](), path)
    return path


@pytest.fixture(scope="module")
def contest(network: Path) -> Contest:
    (spec,) = onnx.load(network).graph.input
    shape = [size.dim_value or 1 for size in spec.type.tensor_type.shape.dim][1:]
    samples = network.parent / "samples.npz"
    np.savez(samples, **{spec.name: np.random.default_rng(0).standard_normal((24, *shape)).astype(np.float32)})
    return replace(CONTEST, criteria=("l1", "reconstruct"), measures=Measures(calib=str(samples)))


@pytest.fixture(scope="module")
def expected(network: Path, contest: Contest) -> list[Trial]:
    return list(map(timeless, compare(graphprune.load(network), HALF, contest)))


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Yield the address of a Dask cluster of two processes."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, dashboard_address=None, silence_logs="CRITICAL"
    ) as started:
        yield started.scheduler_address


def timeless(trial: Trial) -> Trial:
    return replace(trial, seconds=0.0)


def same(found: tuple[Trial, ...], expected: list[Trial]) -> bool:
    return list(map(timeless, found)) == expected


def test_processes_of_this_machine_find_the_same(network: Path, contest: Contest, expected: list[Trial]) -> None:
    told: list[tuple[int, int]] = []
    found = compare(
        graphprune.load(network),
        HALF,
        contest,
        workers=Workers(2),
        progress=lambda _, done, total: told.append((done, total)),
    )
    assert same(found, expected)
    assert told == [(number, 4) for number in (1, 2, 3, 4)]


def test_a_dask_cluster_finds_the_same(network: Path, contest: Contest, expected: list[Trial], cluster: str) -> None:
    workers = Workers(backend="dask", address=cluster)
    assert same(compare(graphprune.load(network), HALF, contest, workers=workers), expected)
    in_memory = graphprune.load(onnx.load(network))
    found = compare(in_memory, HALF, contest, workers=workers)  # there is no path that a worker could open
    assert [trial.widths for trial in found] == [trial.widths for trial in expected]


def test_a_sweep_on_a_cluster_goes_on_where_it_was(network: Path, tmp_path: Path, cluster: str) -> None:
    what = Sweep("flops", (0.7, 0.4, 0.001), CONTEST)
    alone = sweep(network, tmp_path / "alone.csv", what)
    far = replace(what, workers=Workers(backend="dask", address=cluster))
    made: list[Trial] = []

    def stop(trial: Trial) -> None:
        made.append(trial)
        if len(made) == 2:
            raise KeyboardInterrupt

    table = tmp_path / "far.csv"
    with pytest.raises(KeyboardInterrupt):
        sweep(network, table, far, report=stop)
    assert len(read_rows(table, far.digest(graphprune.load(network).sha256))) == 2
    made.clear()
    assert same(sweep(network, table, far, report=made.append), list(map(timeless, alone)))
    assert len(made) == 4


@needs_ray
def test_ray_finds_the_same(network: Path, contest: Contest, expected: list[Trial]) -> None:
    workers = Workers(2, "ray")
    assert same(compare(graphprune.load(network), HALF, contest, workers=workers), expected)
    with pytest.raises(BudgetUnreachableError):
        compare(graphprune.load(network), BudgetRequest("flops", 0.0001), contest, workers=workers)


@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nonsense:port"])
def test_no_ray_cluster_answers(network: Path, address: str) -> None:
    workers = Workers(backend="ray", address=address)
    with pytest.raises(UsageError, match=f"no Ray cluster answers at '{address}'"):
        compare(graphprune.load(network), HALF, CONTEST, workers=workers)


@pytest.mark.parametrize("backend", ["loky", "dask"])
def test_what_no_process_can_meet_is_refused_as_here(network: Path, cluster: str, backend: str) -> None:
    workers = Workers(2) if backend == "loky" else Workers(backend="dask", address=cluster)
    with pytest.raises(BudgetUnreachableError) as here:
        compare(graphprune.load(network), BudgetRequest("flops", 0.0001), CONTEST)
    with pytest.raises(BudgetUnreachableError) as there:
        compare(
            graphprune.load(network),
            BudgetRequest("flops", 0.0001),
            CONTEST,
            workers=workers,
        )
    assert (there.value.message, there.value.hint) == (here.value.message, here.value.hint)


def test_a_process_that_was_killed_is_no_fault_of_graphprune() -> None:
    def killed(_: object, number: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)  # as the system does where memory runs out
        return number

    with pytest.raises(RequestError, match="ended from outside"):
        list(Workers(2).results(killed, "x", [(1,), (2,)]))


def test_an_error_of_a_worker_keeps_its_hint() -> None:
    def failing(shared: str, number: int) -> None:
        raise DataError(f"{shared} {number}", hint="look there")

    with pytest.raises(DataError, match="x 1") as caught:
        list(Workers(2).results(failing, "x", [(1,)]))
    assert caught.value.hint == "look there"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"jobs": 0}, "0 processes"),
        ({"backend": "spark"}, "must be one of loky, dask, ray"),
        ({"address": "tcp://10.0.0.1:8786"}, "loky works on this machine"),
        ({"address": "tcp://10.0.0.1:8786", "backend": "dask", "jobs": 4}, "its own number of processes"),
    ],
)
def test_workers_that_mean_nothing(given: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Workers(**given)  # type: ignore[arg-type]  # a wrong type is one of the cases


def test_a_backend_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphprune.extras.find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        Workers(backend="ray")
    assert caught.value.hint == "pip install 'graphprune[ray]'"


def test_no_scheduler_answers(network: Path) -> None:
    pytest.importorskip("distributed")
    workers = Workers(backend="dask", address="nonsense://nowhere")
    with pytest.raises(UsageError, match="no Dask scheduler answers at 'nonsense://nowhere'"):
        compare(graphprune.load(network), HALF, CONTEST, workers=workers)
