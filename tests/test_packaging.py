# SPDX-License-Identifier: Apache-2.0
"""What pyproject.toml says about the package is what the tree holds."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from source_tree import PACKAGE_ROOTS, ROOT, packages

import graphprune
from graphprune.checkout import find_neighbours

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


def test_the_version_is_said_in_one_place() -> None:
    assert "version" not in PYPROJECT["project"]
    assert SETUPTOOLS["dynamic"]["version"] == {"attr": "graphprune.__version__"}
    assert importlib.metadata.version("graphprune") == graphprune.__version__


def test_what_is_no_source_is_shipped_too() -> None:
    files = {
        package: sorted(file.name for file in folder.iterdir() if file.is_file() and file.suffix != ".py")
        for package, folder in packages().items()
    }
    assert SETUPTOOLS["package-data"] == {package: names for package, names in files.items() if names}
    assert "py.typed" in files["graphprune"]


def test_console_script_points_to_the_command_line() -> None:
    (script,) = (
        entry
        for entry in importlib.metadata.distribution("graphprune").entry_points
        if entry.group == "console_scripts"
    )
    assert script.name == "graphprune"
    assert callable(script.load())


# What a process reports of the packages that it can import, and of where they are.
REPORT = """
import importlib

def whereabouts(names):
    report = {}
    for name in names:
        try:
            report[name] = importlib.import_module(name).__file__
        except ModuleNotFoundError as error:
            report[name] = str(error)
    return report
"""
EXPOSED = ("graphprune", "graphprune.solvers", "graphprune.export")
HIDDEN = ("graphprune.graphprune", "graphprune.tests", "graphprune.tools", "graphprune.docs", "graphprune.examples")


def whereabouts(code: str, *options: str) -> dict[str, str]:
    """Run code in the checkout, the current folder first on its path, and return what it prints."""
    command = [sys.executable, *options, "-c", REPORT + code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    answer = ast.literal_eval(done.stdout)
    assert isinstance(answer, dict)
    return answer


@pytest.mark.parametrize(
    ("code", "options"),
    [
        pytest.param("print(whereabouts({names}))", [], id="a process"),
        pytest.param("print(whereabouts({names}))", ["-S"], id="a process without any installed package"),
        pytest.param(
            "from joblib import Parallel, delayed\n"
            "print(Parallel(n_jobs=2)(delayed(whereabouts)({names}) for _ in range(2))[1])",
            [],
            id="a worker of joblib",
        ),
    ],
)
def test_in_a_checkout_its_two_neighbours_belong_to_the_package_and_nothing_else_does(
    code: str, options: list[str]
) -> None:
    found = whereabouts(code.format(names=[*EXPOSED, *HIDDEN]), *options)
    assert found == {
        **{name: str(ROOT / PACKAGE_ROOTS[name] / "__init__.py") for name in EXPOSED},
        **{name: f"No module named {name!r}" for name in HIDDEN},
    }


def test_nothing_is_looked_for_beside_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = list(sys.meta_path)
    for folder in ("graphprune/solvers", "solvers", "export"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "__init__.py").touch()
    find_neighbours(tmp_path / "graphprune")
    assert sys.meta_path == before
    (tmp_path / "graphprune" / "solvers").rename(tmp_path / "elsewhere")
    find_neighbours(tmp_path / "graphprune")
    assert len(sys.meta_path) == len(before) + 1


def test_the_package_lists_its_public_names_only() -> None:
    assert dir(graphprune) == sorted(graphprune.__all__)


def test_the_workflow_runs_every_python_that_is_named() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    named = re.findall(r"Python :: (3\.\d+)$", "\n".join(PYPROJECT["project"]["classifiers"]), re.MULTILINE)
    assert job["strategy"]["matrix"]["python-version"] == named
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert PYPROJECT["project"]["requires-python"] == f">={named[0]}"


def test_a_commit_is_checked_by_what_make_check_runs() -> None:
    recipes = re.findall(r"^\t(.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    tools = {tuple(hook["entry"].split()[:4]) for hook in local["hooks"]}
    assert tools == {
        ("python", "-m", "ruff", "format"),
        ("python", "-m", "ruff", "check"),
        ("make", "types"),
    }
    assert {
        "$(PYTHON) -m ruff format --check .",
        "$(PYTHON) -m ruff check .",
        "@$(MAKE) --no-print-directory types",
    } <= set(recipes)
