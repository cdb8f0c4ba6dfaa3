# SPDX-License-Identifier: Apache-2.0
"""The tools import from one another and from the library only what is there.

They are read, not run, since what they import is heavy.
"""

from __future__ import annotations

import ast
import functools

import pytest
from source_tree import ROOT, modules

import graphprune

TOOLS = {
    ".".join(path.relative_to(ROOT / "tools").with_suffix("").parts): path
    for path in sorted((ROOT / "tools").rglob("*.py"))
}


SOURCES = {**modules(), **TOOLS}


@functools.cache
def tree(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text(encoding="utf-8"))


@functools.cache
def names(module: str) -> set[str]:
    """Return the names that a tool or a module of the library defines or imports at its top level."""
    if module == "graphprune":
        return set(graphprune.__all__)
    found: set[str] = set()
    for node in tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        else:
            stored = (each for each in ast.walk(node) if isinstance(each, ast.Name))
            found.update(each.id for each in stored if isinstance(each.ctx, ast.Store))
    return found


@pytest.mark.parametrize("tool", TOOLS)
def test_what_a_tool_imports_is_there(tool: str) -> None:
    missing = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree(tool))
        if isinstance(node, ast.ImportFrom) and node.module
        if node.module in SOURCES or node.module.split(".")[0] == "graphprune"
        for alias in node.names
        if f"{node.module}.{alias.name}" not in SOURCES
        and (node.module not in SOURCES or alias.name not in names(node.module))
    ]
    assert missing == []


@pytest.mark.parametrize("tool", TOOLS)
def test_what_a_tool_takes_from_a_module_is_there(tool: str) -> None:
    """``api.solve`` of ``from graphprune import api`` is looked up like ``from graphprune.api import solve``."""
    bound = {
        alias.asname or alias.name: name
        for node in ast.walk(tree(tool))
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
        if (name := f"{node.module}.{alias.name}") in SOURCES
    } | {"graphprune": "graphprune"}
    missing = [
        f"{bound[node.value.id]}.{node.attr}"
        for node in ast.walk(tree(tool))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in bound
        if node.attr not in names(bound[node.value.id])
    ]
    assert missing == []
