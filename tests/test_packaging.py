# SPDX-License-Identifier: Apache-2.0
"""What pyproject.toml says about the package is what the tree holds."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
import tomllib

import pytest
from source_tree import PACKAGE_ROOTS, ROOT, packages

import graphprune

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]


def test_listed_packages_equal_the_tree() -> None:
    assert sorted(SETUPTOOLS["packages"]) == sorted(packages())


def test_folders_outside_the_namespace_are_mapped_into_it() -> None:
    mapped = {package: folder for package, folder in PACKAGE_ROOTS.items() if package != folder}
    assert SETUPTOOLS["package-dir"] == mapped


@pytest.mark.parametrize("package", sorted(packages()))
def test_every_package_is_installed(package: str) -> None:
    assert (packages()[package] / "__init__.py").is_file()
    assert importlib.import_module(package).__name__ == package


def test_version_is_the_same_everywhere() -> None:
    assert graphprune.__version__ == PYPROJECT["project"]["version"]
    assert importlib.metadata.version("graphprune") == graphprune.__version__


def test_type_information_is_shipped() -> None:
    assert (ROOT / "graphprune" / "py.typed").is_file()
    assert "py.typed" in SETUPTOOLS["package-data"]["graphprune"]


def test_console_script_points_to_the_command_line() -> None:
    (script,) = (
        entry
        for entry in importlib.metadata.distribution("graphprune").entry_points
        if entry.group == "console_scripts"
    )
    assert script.name == "graphprune"
    assert callable(script.load())


def test_a_process_started_in_the_checkout_finds_every_package() -> None:
    code = "import graphprune.solvers.problem, graphprune.export; print(graphprune.solve.__name__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "solve\n"), done.stderr
