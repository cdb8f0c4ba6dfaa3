# SPDX-License-Identifier: Apache-2.0
"""What pages show is what their commands print, and what is made from the code is up to date."""

from __future__ import annotations

import subprocess
import sys

import pytest
from source_tree import ROOT

import graphprune

PAGES = ["docs/tutorial.md", *(f"docs/how_to/{page.name}" for page in sorted((ROOT / "docs/how_to").glob("*.md")))]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
    )


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_and_prints_what_it_shows(page: str) -> None:
    done = run("tools/run_page.py", page, "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_reference_is_what_the_docstrings_say() -> None:
    pytest.importorskip("griffe", reason="reads the docstrings; it comes with the extra `test`")
    done = run("tools/api_reference.py", "--check")
    assert done.returncode == 0, "`python tools/api_reference.py` writes the page anew\n" + done.stderr
    assert "griffe" not in done.stderr and "api.py" not in done.stderr, done.stderr


def test_the_reference_has_every_public_name_and_no_other() -> None:
    pytest.importorskip("griffe", reason="reads the docstrings; it comes with the extra `test`")
    page = (ROOT / "docs" / "reference.md").read_text("utf-8")
    headings = {line.removeprefix("### ").strip("`") for line in page.splitlines() if line.startswith("### ")}
    assert headings == {name for name in graphprune.__all__ if not name.startswith("_")}
    code = "import sys; sys.path.insert(0, 'tools'); import api_reference as r; "
    code += "print(r.misplaced({*r.public_names()} - {'solve'} | {'brand_new'})); "
    code += "r.public_names = lambda: {'brand_new'}; sys.exit(r.main(['--check']))"
    done = run("-c", code)
    assert done.stdout.strip() == "brand_new stand below no heading of TASKS; solve are not public"
    assert done.returncode == 1 and "brand_new" in done.stderr


@pytest.mark.parametrize(
    ("block", "shown"),
    [("echo 12 cats", "```\n12 cats\n```"), ("printf 'a\\n'", "```\na\n```")],
)
def test_outputs_are_replaced_where_they_stand(block: str, shown: str) -> None:
    tool = "import sys; sys.path.insert(0, 'tools'); import run_page, pathlib, tempfile; "
    page = f"```sh\n{block}\n```\n\n```\nstale\n```\n"
    code = f"{tool}print(run_page.refreshed({page!r}, run_page.Runner(pathlib.Path(tempfile.gettempdir()))))"
    assert run("-c", code).stdout.strip() == f"```sh\n{block}\n```\n\n{shown}"


def test_a_failing_block_and_other_words_fail() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tools'); import run_page, pathlib; "
        "run_page.Runner(pathlib.Path('.')).run('sh', 'exit 3')"
    )
    assert "exit status 3" in run("-c", code).stderr
    code = "import sys; sys.path.insert(0, 'tools'); import run_page; "
    code += "assert run_page.words('a 1.5 %') == run_page.words('a 22 %') != run_page.words('b 22 %')"
    assert run("-c", code).returncode == 0
