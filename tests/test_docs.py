# SPDX-License-Identifier: Apache-2.0
"""Pages for people name files, modules and one another; all of them are there."""

from __future__ import annotations

import ast
import re

import pytest
from source_tree import ROOT, modules

import graphprune

DOCS = ROOT / "docs"
PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8")
    for page in sorted((*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob(".github/**/*.md")))
}
BASES = (ROOT, ROOT / "graphprune")
"""Where a path may begin: pages call graphprune/plan/file.py also plan/file.py."""

MADE_UP = {"edge_methods.py"}
"""Files of other packages, in examples."""


def lacking(paths: set[str]) -> list[str]:
    return sorted(path for path in paths - MADE_UP if not any((base / path).exists() for base in BASES))


@pytest.mark.parametrize("page", PAGES)
def test_files_are_there(page: str) -> None:
    text = PAGES[page]
    if page == "docs/architecture.md":  # in its drawings a name stands below that of its folder
        text = "".join(text.split("```")[::2])
    assert lacking(set(re.findall(r"(?<![\w./<*-])([\w.-]+(?:/[\w.-]+)*\.py)\b(?!:)", text))) == []


@pytest.mark.parametrize("page", PAGES)
def test_folders_are_there(page: str) -> None:
    assert lacking(set(re.findall(r"`((?:[\w.-]+/)+)`", PAGES[page]))) == []


NO_MODULES = {"graphprune.toml", "graphprune.criteria", "graphprune.methods", "graphprune.runtimes"}
"""A file, and groups of entry points."""


def defined(module: str) -> set[str]:
    """Return the names that a module defines at its top level."""
    if module == "graphprune":
        return set(graphprune.__all__)
    body = ast.parse(modules()[module].read_text(encoding="utf-8")).body if module in modules() else []
    found = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found.update(target.id for target in targets if isinstance(target, ast.Name))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_modules_are_there(page: str) -> None:
    named = set(re.findall(r"(?<![\w/.-])(graphprune(?:\.\w+)+)(?![\w/])", PAGES[page])) - NO_MODULES
    pairs = {name: name.rpartition(".")[::2] for name in named - set(modules())}
    assert [name for name, (module, last) in pairs.items() if last not in defined(module)] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", PAGES[page])
    folder = (ROOT / page).parent
    assert [target for target in targets if "://" not in target and not (folder / target).exists()] == []


@pytest.mark.parametrize("folder", ["docs", "docs/decisions", "docs/how_to", "docs/papers"])
def test_an_index_names_every_page(folder: str) -> None:
    pages = {page.name for page in (ROOT / folder).glob("*.md")} - {"README.md"}
    links = set(re.findall(r"\]\(([\w.-]+\.md)\)", PAGES[f"{folder}/README.md"]))
    assert links == pages
