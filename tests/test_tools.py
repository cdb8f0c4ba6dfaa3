# SPDX-License-Identifier: Apache-2.0
"""The tools import from one another only what is there; they are read, not run, since what they import is heavy."""

from __future__ import annotations

import ast
import functools

import pytest
from source_tree import ROOT

TOOLS = {path.stem: path for path in sorted((ROOT / "tools").glob("*.py"))}


@functools.cache
def tree(tool: str) -> ast.Module:
    return ast.parse(TOOLS[tool].read_text(encoding="utf-8"))


def names(tool: str) -> set[str]:
    """Return the names that a tool defines or imports at its top level."""
    found: set[str] = set()
    for node in tree(tool).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        else:
            stored = (each for each in ast.walk(node) if isinstance(each, ast.Name))
            found.update(each.id for each in stored if isinstance(each.ctx, ast.Store))
    return found


@pytest.mark.parametrize("tool", TOOLS)
def test_what_a_tool_imports_from_another_is_there(tool: str) -> None:
    missing = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree(tool))
        if isinstance(node, ast.ImportFrom) and node.module in TOOLS
        for alias in node.names
        if alias.name not in names(node.module)
    ]
    assert missing == []
