# SPDX-License-Identifier: Apache-2.0
"""Other packages offer methods by name; a broken one is named, and stands in nobody else's way."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from graphprune.errors import PluginError, UsageError
from graphprune.solvers.registry import Registry, chosen, settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Install = Callable[..., None]

MODULE = """
from graphprune.errors import UsageError
def good(problem, *, strength: float = 1.0):
    return problem, strength
def fails(problem):
    return [].pop()
def refuses(problem):
    raise UsageError("not like this")
def odd(problem, *, callback=None):
    return problem
number = 7
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return what puts a package with entry points on the path, without pip."""
    monkeypatch.syspath_prepend(tmp_path)
    names = []

    def put(name: str, code: str = MODULE, **offers: str) -> None:
        names.append(name)
        (tmp_path / f"{name}.py").write_text(code)
        info = tmp_path / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = [f"{method.replace('_', '-')} = {name}:{place}" for method, place in offers.items()]
        (info / "entry_points.txt").write_text("\n".join(["[tests.toys]", *lines]) + "\n")

    yield put
    for name in names:
        sys.modules.pop(name, None)


def registry() -> Registry[Callable[..., object]]:
    found: Registry[Callable[..., object]] = Registry("toy", "graphprune.solvers.widths", "tests.toys")
    found.register("own")(lambda problem: "own")
    return found


def test_a_method_of_another_package_is_found_by_name(install: Install) -> None:
    install("toybox", very_good="good")
    found = registry()
    assert found.names() == ("own", "very-good")
    assert "toybox" not in sys.modules  # a name alone imports nothing
    method = found.get("very-good")
    assert "toybox" in sys.modules
    assert method(1, strength=2.0) == (1, 2.0)
    assert found.get("very-good") is method
    assert settings(method) == {"strength": 1.0}
    assert chosen({"strength": "3"}, method) == [{"strength": 3.0}]


def test_a_package_without_that_name_is_not_imported(install: Install) -> None:
    install("toybox", code="raise RuntimeError('imported')", good="good")
    found = registry()
    assert found.get("own")(None) == "own"
    with pytest.raises(UsageError, match=r"unknown toy 'goood': there are good, own") as raised:
        found.get("goood")
    assert raised.value.hint == "did you mean good?"


@pytest.mark.parametrize(
    ("code", "offer", "message"),
    [
        ("raise RuntimeError('no')", "good", "the toy 'bad' of toybox 1.2 cannot be loaded: RuntimeError: no"),
        ("import surely_not_installed", "good", "cannot be loaded: ModuleNotFoundError"),
        ("def good(:", "good", "cannot be loaded: SyntaxError"),
        (MODULE, "missing", "cannot be loaded: AttributeError"),
        (MODULE, "number", "cannot be used: it is a int, not a function"),
        (MODULE, "odd", "cannot be used: its setting 'callback' has no default"),
    ],
)
def test_a_broken_package_is_named_and_breaks_nothing_else(
    install: Install, code: str, offer: str, message: str
) -> None:
    install("toybox", code=code, bad=offer)
    install("other", fine="good")
    found = registry()
    with pytest.raises(PluginError) as raised:
        found.get("bad")
    assert message in raised.value.message
    assert raised.value.exit_code == 2
    assert found.get("fine")(1) == (1, 1.0)
    assert found.get("own")(None) == "own"
    assert found.names() == ("bad", "fine", "own")


def test_what_a_method_raises_names_its_package(install: Install) -> None:
    install("toybox", fails="fails", refuses="refuses")
    found = registry()
    with pytest.raises(PluginError, match=r"the toy 'fails' of toybox 1\.2 failed: IndexError") as raised:
        found.get("fails")(None)
    assert isinstance(raised.value.__cause__, IndexError)
    with pytest.raises(UsageError, match="not like this"):
        found.get("refuses")(None)


def test_a_name_that_two_packages_offer_is_refused(install: Install) -> None:
    install("toybox", same="good")
    install("other", same="good")
    with pytest.raises(PluginError, match=r"other 1\.2 and toybox 1\.2 all offer a toy 'same'"):
        registry().get("same")


def test_a_name_of_graphprunes_own_stays_its_own(install: Install) -> None:
    install("toybox", code="raise RuntimeError('imported')", own="good")
    assert registry().get("own")(None) == "own"


def test_a_result_that_cannot_be_used_names_its_package(install: Install) -> None:
    install("pack", good="good")
    found: Registry[Callable[..., object]] = Registry(
        "toy", "graphprune.solvers.widths", "tests.toys", lambda result, first: f"it gave {result} for {first}"
    )
    with pytest.raises(PluginError, match=r"pack 1.2 failed: it gave \(3, 1.0\) for 3"):
        found.get("good")(3)
