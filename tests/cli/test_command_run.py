# SPDX-License-Identifier: Apache-2.0
"""`graphprune run`: recipes are checked as a whole before anything runs, recorded, and gone on with."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import pytest
import typer

from graphprune.cli.app import app
from graphprune.cli.recipes.command_lines import command_lines
from graphprune.cli.recipes.recipe import read_recipe
from graphprune.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

    Command = Callable[..., Outcome]

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # the app is a group
CHAIN = """
model: net.onnx
folder: built
steps:
  - solve: {flops: 0.5, quick: true}
  - check
  - inspect
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def steps(folder: Path) -> list[dict[str, str]]:
    content: dict[str, list[dict[str, str]]] = json.loads((folder / "built" / "run.json").read_text())
    return content["steps"]


def test_a_chain_runs_is_recorded_and_goes_on_where_something_changed(quick: Command, model: Path) -> None:
    recipe = write(model.parent, CHAIN)
    done = quick("run", recipe)
    assert done.code == 0, done.err
    assert (
        (model.parent / "built" / "02-check.txt").read_text().startswith("ok  built/01-solve.plan.json fits net.onnx")
    )
    first = steps(model.parent)
    assert [step["command"].split()[1] for step in first] == ["solve", "check", "inspect"]

    assert quick("run", recipe).err.count("done before, nothing changed") == 3
    assert steps(model.parent) == first

    write(model.parent, CHAIN.replace("- check", "- verify"))
    told = quick("run", recipe).err
    assert (told.count("done before"), "step 2 of 3  graphprune verify net.onnx" in told) == (2, True)
    assert steps(model.parent)[0] == first[0]


def test_a_result_that_was_changed_is_made_anew(quick: Command, model: Path) -> None:
    recipe = write(model.parent, CHAIN)
    assert quick("run", recipe).code == 0
    made = (model.parent / "built" / "01-solve.onnx").read_bytes()
    (model.parent / "built" / "01-solve.onnx").write_bytes(b"something else")
    assert "done before" not in quick("run", recipe).err.splitlines()[0]
    assert (model.parent / "built" / "01-solve.onnx").read_bytes() == made


def test_a_step_that_fails_ends_the_chain_with_its_code(quick: Command, model: Path) -> None:
    recipe = write(model.parent, CHAIN.replace("0.5", "0.0001"))
    done = quick("run", recipe)
    assert (done.code, "step 1, solve, ended with exit code 1" in done.err) == (1, True)
    assert not (model.parent / "built" / "02-check.txt").exists()


def test_a_dry_run_shows_commands_and_writes_nothing(quick: Command, model: Path) -> None:
    done = quick("run", write(model.parent, CHAIN), "--dry-run")
    assert done.out.splitlines()[1] == "graphprune check built/01-solve.plan.json net.onnx built/01-solve.onnx"
    assert not (model.parent / "built").exists()


def test_files_follow_from_the_steps_before(tmp_path: Path) -> None:
    text = "{model: a.onnx, steps: [{train: {method: cac, flops: 0.5, data: d}}, {finetune: {data: d}}, report]}"
    lines = command_lines(read_recipe(write(tmp_path, text)), COMMANDS)
    trained, finetuned, report = (" ".join(line.arguments) for line in lines)
    assert "--trained=recipe.run/01-train.trained.onnx" in trained
    assert finetuned.startswith("recipe.run/01-train.onnx --output=recipe.run/02-finetune.onnx --force")
    assert "--teacher=recipe.run/01-train.trained.onnx" in finetuned
    assert "--pruned=recipe.run/02-finetune.onnx" in report


def test_values_become_what_is_typed(tmp_path: Path) -> None:
    steps = "[{solve: {flops: 0.5, quick: true, skip: [a, b]}}, {quantize: {calib: c}}, "
    steps += "{deploy: {check: [x, y], timing: false}}]"
    solve, quantize, deploy = command_lines(
        read_recipe(write(tmp_path, f"{{model: m.onnx, steps: {steps}}}")), COMMANDS
    )
    assert solve.arguments[-4:] == ("--flops=0.5", "--quick", "--skip=a", "--skip=b")
    assert quantize.arguments[0] == solve.outputs[0] and quantize.outputs == ("recipe.run/02-quantize.onnx",)
    (one,) = command_lines(
        read_recipe(write(tmp_path, "{model: m.onnx, steps: [{eval: {data: d, limit: 1}}]}")), COMMANDS
    )
    assert one.arguments == ("m.onnx", "--data=d", "--limit=1")
    assert deploy.arguments == (quantize.outputs[0], "--original=m.onnx", "--check=x,y", "--no-timing")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{steps: [check]}", "names no model"),
        ("{model: a.onnx}", "has no steps"),
        ("{model: a.onnx, step: [check]}", "did you mean steps?"),
        ("{model: a.onnx, steps: [slove]}", "did you mean solve?"),
        ("{model: a.onnx, steps: [{solve: {flop: 1}}]}", "did you mean flops?"),
        ("{model: a.onnx, steps: [{solve: {output: x.onnx}}]}", "follows from `folder:`"),
        ("{model: a.onnx, steps: [{solve: {flops: {a: 1}}}]}", "is a mapping"),
        ("{model: a.onnx, steps: [{solve: {}, check: {}}]}", "has 2 commands"),
        ("{model: a.onnx, steps: [report]}", "needs a plan, which no step before it makes"),
        ("{model: a.onnx, steps: [recover]}", "needs a pruned model"),
        ("{model: a.onnx, steps: [", "is no YAML"),
        ("[]", "is a list"),
        ("a: " * 30000, "bytes long"),
    ],
)
def test_what_is_no_recipe_is_said_before_anything_runs(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as told:
        command_lines(read_recipe(write(tmp_path, text)), COMMANDS)
    assert said in str(told.value)


def test_a_wrong_value_is_said_before_anything_runs(quick: Command, model: Path) -> None:
    done = quick("run", write(model.parent, CHAIN.replace("- check", "- finetune: {data: x, epochs: many}")))
    assert (done.code, "epochs" in done.err) == (2, True)
    assert not (model.parent / "built").exists()


def test_a_first_step_that_failed_is_mended_and_run_again(quick: Command, model: Path) -> None:
    assert quick("run", write(model.parent, CHAIN.replace("0.5", "0.0001"))).code == 1
    done = quick("run", write(model.parent, CHAIN))
    assert done.code == 0, done.err
    assert len(steps(model.parent)) == 3


NAMED = """
model: net.onnx
folder: built
steps:
  - solve: {flops: 0.5, quick: true, calib: samples.npy, quantize: fp16, log: solve.log}
  - inspect: {graph: groups.svg}
  - eval: {data: samples.npy, teacher: net.onnx}
"""


def test_all_that_a_step_wrote_has_to_be_there(quick: Command, model: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(model.with_name("samples.npy"), rng.normal(0, 1, (16, 3, 12, 12)).astype(np.float32))
    recipe = write(model.parent, NAMED)
    done = quick("run", recipe)
    assert done.code == 0, done.err
    assert {name for step in steps(model.parent) for name in step["outputs"]} == {
        "solve.log",
        "groups.svg",
        "built/01-solve.onnx",
        "built/01-solve.plan.json",
        "built/01-solve.fp16.onnx",
    }
    assert "built/01-solve.fp16.onnx" in steps(model.parent)[2]["command"]  # the latest file is measured
    for name, number in (("built/01-solve.fp16.onnx", 1), ("groups.svg", 2)):
        (model.parent / name).unlink()
        done = quick("run", recipe)  # a drawing that is there is replaced
        assert (done.code, f"step {number} of 3  graphprune" in done.err) == (0, True), done.err
        assert (model.parent / name).exists()


@pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO has no package for this Python")
def test_a_converted_network_is_written_and_written_anew(quick: Command, model: Path) -> None:
    chain = CHAIN.replace("inspect", "deploy: {check: onnxruntime, to: {openvino: ov}, timing: false, samples: 1}")
    recipe = write(model.parent, chain)
    for _ in range(2):
        done = quick("run", recipe, "--again")
        assert done.code == 0, done.err
    assert {*steps(model.parent)[2]["outputs"]} == {"ov/model.xml", "ov/model.bin"}
    (model.parent / "ov" / "mine.txt").write_text("of somebody else")
    assert quick("run", recipe, "--again").code == 2
    assert (model.parent / "ov" / "mine.txt").exists()


def test_for_machines_there_is_one_object_whatever_happens(quick: Command, model: Path) -> None:
    recipe = write(model.parent, CHAIN.replace("0.5", "0.0001"))
    planned = json.loads(quick("run", recipe, "--json", "--dry-run").out)
    assert len(planned["commands"]) == 3 and planned["commands"][1].startswith("graphprune check built/01-solve.plan")
    failed = json.loads(quick("run", recipe, "--json").out)
    assert failed["error"]["exit_code"] == 1 and "cannot reach flops" in failed["error"]["message"]
    assert failed["steps"] == [] and failed["failed"].startswith("graphprune solve net.onnx")


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("solve: {flops: abc}", "step 1, solve: "),
        ("solve: {flops: 0.5, solver: nosuch}", "unknown solver 'nosuch'"),
        ("solve: {flops: 0.5, criterion: nosuch}", "unknown criterion 'nosuch'"),
        ("solve: {flops: 0.5, calib: nothing.npz}", "'nothing.npz' does not exist"),
        ("solve: {flops: 0.5, widths: nothing.yaml}", "'nothing.yaml' does not exist"),
        ("solve: {flops: 0.5, min-keep: many}", "step 1, solve: "),
        ("solve: {flops: 0.5, input-shape: {image: odd}}", "--input-shape cannot be 'image=odd'"),
        ("eval", "step 1, eval: "),
        ("eval: {data: photos, teacher: other.onnx}", "'photos' does not exist"),
        ("deploy: {check: openvin}", "unknown runtime 'openvin'"),
        ("deploy: {to: [openvino]}", "step 1, deploy: "),
        ("inspect: {graph: net.onnx}", "'net.onnx' would be replaced"),
        ("inspect: {graph: recipe.yaml}", "'recipe.yaml' would be replaced"),
        ("solve: {flops: 0.5, log: built/01-solve.onnx}", "'built/01-solve.onnx' is written by step 1, solve"),
    ],
)
def test_what_is_known_to_fail_is_said_before_anything_runs(quick: Command, model: Path, step: str, said: str) -> None:
    before = model.read_bytes()
    done = quick("run", write(model.parent, f"{{model: net.onnx, folder: built, steps: [{step}]}}"), "--dry-run")
    assert (done.code, said in done.err, "step 1, " in done.err) == (2, True, True), done.err
    assert not (model.parent / "built").exists() and model.read_bytes() == before


def test_a_model_that_is_missing_is_said_before_anything_runs(quick: Command, model: Path) -> None:
    done = quick("run", write(model.parent, CHAIN.replace("net.onnx", "nat.onnx")), "--dry-run")
    assert (done.code, "'nat.onnx' does not exist" in done.err, "net.onnx" in done.err) == (2, True, True)


def test_a_folder_of_something_else_is_left_alone(quick: Command, model: Path) -> None:
    (model.parent / "built").mkdir()
    (model.parent / "built" / "letter.txt").write_text("dear")
    done = quick("run", write(model.parent, CHAIN))
    assert (done.code, "holds files of something else" in done.err) == (2, True)
