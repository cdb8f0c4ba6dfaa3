# SPDX-License-Identifier: Apache-2.0
"""What works without torch, and what is said where something does not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from source_tree import ROOT

import graphprune
from graphprune.extras import EXTRAS

EXAMPLE = ROOT / "examples" / "digits.onnx"
IMAGES = ROOT / "examples" / "digits_test.npz"

# Runs the command line as on a machine where these packages are not installed.
WITHOUT = """
import sys
for name in {missing}:
    sys.modules[name] = None
from graphprune.cli import main
sys.exit(main(sys.argv[1:]))
"""


def without(missing: tuple[str, ...], *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a process that cannot import some packages."""
    command = [sys.executable, "-P", "-c", WITHOUT.format(missing=missing), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=cwd)


@pytest.fixture(scope="module")
def few_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "few.npz"
    with np.load(IMAGES) as arrays:
        np.savez(path, **{name: arrays[name][:64] for name in arrays.files})
    return path


def test_pruning_looking_measuring_and_recovering_need_no_torch(few_images: Path, tmp_path: Path) -> None:
    commands = (
        ("solve", EXAMPLE, "--flops", "0.5", "-o", "small.onnx", "--plan", "plan.json"),
        ("inspect", EXAMPLE),
        ("compare", EXAMPLE, "--flops", "0.5", "--solver", "bisection,uniform"),
        ("eval", "small.onnx", "--data", few_images, "--teacher", EXAMPLE),
        ("recover", "small.onnx", "--teacher", EXAMPLE, "--plan", "plan.json", "--calib", few_images),
    )
    for command in commands:
        done = without(EXTRAS["train"], *command, cwd=tmp_path)
        assert done.returncode == 0, (command, done.stderr)


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        (EXTRAS["train"], ("finetune", EXAMPLE, "--data", IMAGES, "-o", "x.onnx")),
        (EXTRAS["train"], ("train", EXAMPLE, "--data", IMAGES, "--flops", "0.5", "-o", "x.onnx")),
        (EXTRAS["train"], ("export", "torchvision:resnet18", "-o", "x.onnx")),
        (EXTRAS["train"], ("solve", EXAMPLE, "--flops", "0.5", "--calib", IMAGES, "--finetune", "-o", "x.onnx")),
        (
            EXTRAS["train"],
            ("solve", EXAMPLE, "--flops", "0.5", "--calib", IMAGES, "--recover", "blocks", "-o", "x.onnx"),
        ),
        (
            EXTRAS["train"],
            ("solve", EXAMPLE, "--flops", "0.5", "--calib", IMAGES, "--criterion", "taylor", "--dry-run"),
        ),
        (EXTRAS["train"], ("solve", EXAMPLE, "--flops", "0.5", "--calib", "synthetic:fine", "--dry-run")),
        (EXTRAS["train"], ("synthesize", EXAMPLE, "--quality", "fine", "-o", "x.npz")),
        (EXTRAS["train"], ("eval", EXAMPLE, "--data", "torchvision:MNIST:test")),
        (("torchvision",), ("eval", EXAMPLE, "--data", "torchvision:MNIST:test")),
        (("onnx2fx",), ("finetune", EXAMPLE, "--data", IMAGES, "-o", "x.onnx")),
        (("safetensors",), ("finetune", EXAMPLE, "--data", IMAGES, "-o", "x.onnx")),
        (("onnxscript",), ("export", "torchvision:resnet18", "-o", "x.onnx")),
        (("MNN",), ("deploy", EXAMPLE, "--check", "mnn")),
        (("pnnx",), ("deploy", EXAMPLE, "--to", "ncnn", "out")),
        (("accelerate",), ("train", EXAMPLE, "--data", IMAGES, "--flops", "0.5", "-o", "x.onnx")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_what_needs_more_says_what_to_install(
    missing: tuple[str, ...], command: tuple[object, ...], tmp_path: Path
) -> None:
    done = without(missing, *command, cwd=tmp_path)
    *_, error, hint = done.stderr.splitlines()
    assert done.returncode == 2
    assert error.startswith(f"error: {', '.join(missing)} ")
    assert "not installed, but needed for " in error
    extra = next(name for name, packages in EXTRAS.items() if set(missing) <= set(packages))
    assert hint == f"hint: pip install 'graphprune[{extra}]'"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "module", ["graphprune.training.finetune", "graphprune.export.from_torch", "graphprune.solvers.training"]
)
def test_importing_from_python_says_it_too(module: str) -> None:
    script = f"import sys; sys.modules['torch'] = None; import {module}"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert "graphprune.errors.UsageError: torch is not installed" in done.stderr
    assert "graphprune[train]" in done.stderr


def test_the_extra_installs_what_is_asked_for_and_tests_have_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert {re.split(r"[=>]", line)[0] for line in extras["train"]} == set(EXTRAS["train"])
    assert {re.split(r"[=>]", line)[0].replace("vl-convert-python", "vl_convert") for line in extras["report"]} == set(
        EXTRAS["report"]
    )
    known = {"opencv-python-headless": "cv2"}
    names = [re.split(r"[=>]", line)[0] for line in extras["runtimes"]]
    assert {known.get(name, name) for name in names} == set(EXTRAS["runtimes"])
    assert {"graphprune[train]", "graphprune[report]", "graphprune[runtimes]"} <= set(extras["test"])
    assert "graphprune[test]" in extras["dev"]
    assert not {re.split(r"[=>]", line)[0] for line in project["dependencies"]} & set(EXTRAS["train"])


@pytest.mark.parametrize(("packages", "said"), [(("onnxruntime", "onnxruntime-gpu"), 1), (("onnxruntime_gpu",), 0)])
def test_two_runtimes_in_one_folder_are_mentioned_once(packages: tuple[str, ...], said: int, tmp_path: Path) -> None:
    for name in packages:
        folder = tmp_path / "site" / f"{name.replace('-', '_')}-1.30.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.30.0\n")
    done = subprocess.run(
        [sys.executable, "-m", "graphprune", "inspect", str(EXAMPLE)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu") == said
    assert "onnxruntime and" not in done.stdout


def test_public_names_are_there_without_torch() -> None:
    script = (
        "import sys; sys.modules['torch'] = None; import graphprune; [getattr(graphprune, n) for n in dir(graphprune)]"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert graphprune.__version__


BROKEN = {
    "torch": "OSError('libcudart.so.12: cannot open shared object file')",
    "onnxruntime": "ImportError('DLL load failed while importing onnxruntime_pybind11_state')",
}


def with_broken(package: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command where a package is installed, but cannot be imported."""
    folder = cwd / "broken" / package
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(f"raise {BROKEN[package]}\n")
    command = [sys.executable, "-m", "graphprune", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(folder.parent)}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=cwd, env=environment)


@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("torch", ("finetune", EXAMPLE, "--data", IMAGES, "--teacher", EXAMPLE, "-o", "x.onnx")),
        ("torch", ("export", "torchvision:resnet18", "-o", "x.onnx")),
        ("onnxruntime", ("solve", EXAMPLE, "--flops", "0.5", "-o", "x.onnx", "--plan", "x.json")),
        ("onnxruntime", ("eval", EXAMPLE, "--data", IMAGES)),
    ],
)
def test_what_is_installed_and_broken_is_named(package: str, command: tuple[object, ...], tmp_path: Path) -> None:
    done = with_broken(package, *command, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith(f"error: {package} is installed, but cannot be imported: ")
    assert hint.startswith(f"hint: pip install --force-reinstall {package}")


def test_the_doctor_looks_at_what_is_broken(tmp_path: Path) -> None:
    done = with_broken("onnxruntime", "doctor", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert re.search(r"runtime +onnxruntime +onnxruntime is installed, but cannot be imported: DLL load", done.stdout)
    assert "to mend" in done.stdout
