# SPDX-License-Identifier: Apache-2.0
"""The site: it builds without a warning, every page is in its navigation, and links lead to pages of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from source_tree import ROOT

mkdocs = pytest.importorskip("mkdocs", reason="builds the site; it comes with the extra `docs`")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_built_and_in_the_navigation(site: Path) -> None:
    pages = {page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")} - {Path("README.md")}
    listed = set()

    def walk(entry: object) -> None:
        if isinstance(entry, str):
            listed.add(Path(entry))
        elif isinstance(entry, dict | list):
            for each in entry.values() if isinstance(entry, dict) else entry:
                walk(each)

    walk(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert pages <= listed
    for page in listed:
        name = page.parent / "index.html" if page.name == "README.md" else page.with_suffix(".html")
        assert (site / name).exists(), page


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    text = (site / "index.html").read_text(encoding="utf-8")
    loaded = [part.split('"')[1] for part in text.split("src=")[1:]]
    assert not [address for address in loaded if address.startswith(("http", "//"))]


def test_links_out_of_the_pages_lead_into_the_repository_or_to_the_page_that_was_made() -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        from site_hooks import relinked
    finally:
        sys.path.remove(str(ROOT / "tools"))
    page = "[a](../README.md) [b](../CONTRIBUTING.md#x) [c](../Makefile) [d](https://e.org) [e](#here-1) [f](llm.md)"
    assert relinked(page, "docs/tutorial.md", "tutorial.md", "R") == (
        "[a](index.md) [b](contributing.md#x) [c](R/blob/main/Makefile) [d](https://e.org) [e](#here_1) [f](llm.md)"
    )
    assert relinked("[c](../Makefile)", "docs/tutorial.md", "tutorial.md", "") == "c"
    assert relinked("[g](docs/llm.md)", "README.md", "index.md", "R") == "[g](llm.md)"
    assert relinked("[h](../README.md)", "docs/how_to/no_data.md", "how_to/no_data.md", "R") == "[h](../index.md)"
