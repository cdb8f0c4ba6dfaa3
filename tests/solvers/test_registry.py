# SPDX-License-Identifier: Apache-2.0
"""Methods are found by name, and a new one is one new file."""

from __future__ import annotations

import importlib
import sys

import pytest

from graphprune.errors import InternalError, UsageError
from graphprune.solvers import criteria, widths
from graphprune.solvers.registry import Registry


def test_the_methods_in_the_folders_are_found():
    assert set(criteria.names()) >= {"bn-scale", "l1", "l2", "random"}
    assert set(widths.names()) >= {"bisection", "uniform"}
    assert list(criteria.names()) == sorted(criteria.names())


def test_a_name_gives_the_function():
    assert widths.get("bisection") is importlib.import_module("graphprune.solvers.widths.bisection").solve
    assert criteria.get("bn-scale") is importlib.import_module("graphprune.solvers.criteria.bn_scale").score


@pytest.mark.parametrize(
    ("wrong", "near"), [("bnscale", "bn-scale"), ("BN_scale", "bn-scale"), ("ramdom", "random"), ("L2", "l2")]
)
def test_an_unknown_name_gets_the_list_and_the_nearest(wrong, near):
    with pytest.raises(UsageError) as raised:
        criteria.get(wrong)
    assert f"unknown criterion '{wrong}'" in raised.value.message
    assert ", ".join(criteria.names()) in raised.value.message
    assert raised.value.hint == f"did you mean {near}?"


def test_nothing_is_suggested_for_a_name_like_no_other():
    with pytest.raises(UsageError, match="unknown solver 'zzz'") as raised:
        widths.get("zzz")
    assert raised.value.hint is None


def test_a_new_file_is_a_new_method(tmp_path, monkeypatch):
    package = tmp_path / "made_for_this_test"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from graphprune.solvers.registry import Registry\nregistry = Registry('toy', __name__)\n"
    )
    (package / "one.py").write_text(
        "from made_for_this_test import registry\n@registry.register('one')\ndef f():\n    return 1\n"
    )
    (package / "_helper.py").write_text("raise RuntimeError('helpers are not methods')\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry = importlib.import_module("made_for_this_test").registry
    assert registry.names() == ("one",)
    assert registry.get("one")() == 1
    for name in [name for name in sys.modules if name.startswith("made_for_this_test")]:
        monkeypatch.delitem(sys.modules, name)


def test_a_name_is_given_once():
    registry: Registry[object] = Registry("toy", __name__)
    first = registry.register("same")(object())
    assert registry.register("same")(first) is first
    with pytest.raises(InternalError, match="two methods are registered as toy 'same'"):
        registry.register("same")(object())
