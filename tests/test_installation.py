# SPDX-License-Identifier: Apache-2.0
"""What `doctor` says: what is missing is told from what is wrong, each with the command that mends it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

from graphprune import extras, installation
from graphprune.installation import Finding, examine_installation

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _installed_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say what the metadata asks for, wherever these tests run."""
    monkeypatch.setattr(metadata, "requires", lambda _: ["numpy>=1.26", "onnx>=1.21", 'altair>=5.5; extra == "report"'])


def of(name: str) -> Finding:
    return next(finding for finding in examine_installation() if finding.name == name and finding.part != "runtime")


def test_what_is_installed_is_ok() -> None:
    assert of("numpy") == Finding("package", "numpy", metadata.version("numpy"))
    assert of("python").state == of("processor").state == of("in use").state == "ok"
    assert not [finding for finding in examine_installation() if finding.name == "altair"]


def test_an_extra_that_is_not_there_is_missing_and_not_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    found = of("report")
    assert (found.state, found.found) == ("missing", "not installed")
    assert found.advice.startswith("pip install 'graphprune[report]'")


def test_a_part_of_an_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "jinja2" else True)
    assert of("report").found == "jinja2 missing"


@pytest.mark.parametrize(
    ("version", "said"), [("1.20.3", "1.20.3, needed >=1.26"), (metadata.PackageNotFoundError(), "not installed")]
)
def test_a_package_that_is_old_or_gone_is_wrong(
    version: str | Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = metadata.version

    def answered(name: str) -> str:
        if name != "numpy":
            return real(name)
        if isinstance(version, Exception):
            raise version
        return version

    monkeypatch.setattr(metadata, "version", answered)
    assert of("numpy") == Finding("package", "numpy", said, "wrong", "pip install 'numpy>=1.26'")


def test_the_plain_runtime_does_for_that_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"onnxruntime": "1.31.1"}

    def answered(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError
        return versions[name]

    monkeypatch.setattr(metadata, "requires", lambda _: ["onnxruntime-gpu>=1.20"])
    monkeypatch.setattr(metadata, "version", answered)
    monkeypatch.setattr(extras, "installed", lambda name: name in versions)
    assert of("onnxruntime") == Finding("package", "onnxruntime", "1.31.1, in place of onnxruntime-gpu")


def test_two_runtimes_over_one_another_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "installed", lambda _: True)
    found = of("onnxruntime twice")
    assert found.state == "wrong"
    assert found.advice.startswith("keep one: pip uninstall")


def test_runtimes_of_deploy_are_listed() -> None:
    from graphprune.export.runtime import RUNTIMES

    listed = {finding.name: finding for finding in examine_installation() if finding.part == "runtime"}
    assert set(listed) == set(RUNTIMES.names())
    assert listed["onnxruntime"].state == "ok"
    assert all(finding.state == "ok" or "not here" in finding.found for finding in listed.values())


def test_a_device_that_does_not_work_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHPRUNE_DEVICE", "gpu")
    assert of("in use").state == "wrong"


def test_little_space_for_verification_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    usage: Iterator[int] = iter((10, 10, 5))
    monkeypatch.setattr(installation.shutil, "disk_usage", lambda _: type("Usage", (), {"free": next(usage)})())
    assert "TMPDIR" in of("scratch").advice


def test_the_command_ends_with_0_where_nothing_is_wrong() -> None:
    command = [sys.executable, "-m", "graphprune", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    told = json.loads(done.stdout)
    assert done.returncode == (0 if told["ok"] else 1)
    assert {finding["part"] for finding in told["findings"]} == {"machine", "package", "extra", "runtime", "device"}
