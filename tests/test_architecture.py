# SPDX-License-Identifier: Apache-2.0
"""What docs/architecture.md says of the source: the tree, who imports whom, who prints, how long files are.

The tree and the layers are read from the page, so that there is one place to change.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass

import networkx as nx
import pytest
from architecture_page import folders_and_files, layers
from source_tree import PACKAGE_ROOTS, ROOT, modules, packages

RANK = {name: rank for rank, layer in enumerate(layers()) for name in layer}

# Heavy third-party packages, and the only places that may import them when the module itself is imported.
# Everybody else imports them inside the function that needs them.
TORCH_HOMES = ("graphprune.training", "graphprune.solvers.training", "graphprune.export")
TOP_LEVEL_HOMES = {
    "torch": TORCH_HOMES,
    "torchvision": TORCH_HOMES,
    "accelerate": TORCH_HOMES,
    "onnx2fx": ("graphprune.training",),
    "onnxruntime": ("graphprune.data", "graphprune.verification.passage"),
    "sklearn": (),
    "joblib": (),
    "matplotlib": (),
    "yaml": (),
}

# A solver sees groups, scores and a cost function, never a node of a model.
UNKNOWN_TO_SOLVERS = ("onnx", "onnx_graphsurgeon", "onnxruntime", "graphprune.model", "graphprune.labels")

LONGEST_FILE = 400
LONGEST_FUNCTION = 60
MOST_PARAMETERS = 8


@dataclass(frozen=True)
class Import:
    """One import statement's target in one module."""

    source: str
    target: str
    line: int
    top_level: bool

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


@functools.cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def run_on_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run when the module is imported, those of TYPE_CHECKING blocks left out."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If) and ast.unparse(statement.test).endswith("TYPE_CHECKING"):
            yield from run_on_import(statement.orelse)
        elif isinstance(statement, ast.If | ast.Try | ast.With | ast.ClassDef):
            for field in ("body", "orelse", "finalbody"):
                yield from run_on_import(getattr(statement, field, []))


def targets(module: str, node: ast.Import | ast.ImportFrom) -> list[str]:
    """Return the modules that an import statement names; ``from package import module`` names the module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        package = f"{module}.__init__" if modules()[module].name == "__init__.py" else module
        base = ".".join([*package.split(".")[: -node.level], *base.split(".")]).rstrip(".")
    names = [f"{base}.{alias.name}" for alias in node.names]
    return [name if name in modules() else base for name in names]


@functools.cache
def imports() -> tuple[Import, ...]:
    found = []
    for module in modules():
        on_import = {id(statement) for statement in run_on_import(tree(module).body)}
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                found += [Import(module, name, node.lineno, id(node) in on_import) for name in targets(module, node)]
    return tuple(found)


def inside(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def unit(module: str) -> str:
    """Return the longest name among the layers that holds the module."""
    known = [name for name in RANK if module == name or (name != "graphprune" and module.startswith(f"{name}."))]
    assert known, f"{module} has no layer yet: give it one in docs/architecture.md"
    return max(known, key=len)


def internal() -> list[Import]:
    """Return imports within the library; ``from graphprune import __version__`` is open to everybody."""
    return [found for found in imports() if found.target in modules() and found.target != "graphprune"]


def test_the_whole_library_is_looked_at() -> None:
    assert {"graphprune.errors", "graphprune.solvers", "graphprune.export"} <= set(modules())
    assert internal()


def test_every_name_among_the_layers_stands_for_something() -> None:
    assert sorted(set(RANK) - set(modules())) == []
    assert len(RANK) == sum(len(layer) for layer in layers())


def test_the_tree_on_the_page_is_the_tree_on_disk() -> None:
    roots = tuple(PACKAGE_ROOTS.values())
    drawn = {entry for entry in folders_and_files() if entry.split("/")[0] in roots}
    folders = {f"{folder.relative_to(ROOT).as_posix()}/" for folder in packages().values()}
    loose = {
        path.relative_to(ROOT).as_posix()
        for path in modules().values()
        if path.parent.name in roots and path.parent.parent == ROOT and path.name != "__init__.py"
    }
    assert drawn == folders | loose


def test_what_else_the_tree_names_is_there() -> None:
    assert [entry for entry in folders_and_files() if not (ROOT / entry).exists()] == []


def test_imports_point_one_way() -> None:
    upwards = [str(found) for found in internal() if RANK[unit(found.target)] < RANK[unit(found.source)]]
    assert upwards == []


def test_no_import_cycles() -> None:
    graph = nx.DiGraph(
        (found.source, found.target) for found in internal() if not found.source.startswith(f"{found.target}.")
    )
    graph.remove_edges_from([(package, module) for package, module in graph.edges if module.startswith(f"{package}.")])
    assert list(nx.simple_cycles(graph)) == []


def test_the_package_itself_offers_only_its_version_to_its_modules() -> None:
    names = [
        f"{module}:{node.lineno} {alias.name}"
        for module in modules()
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ImportFrom) and node.module == "graphprune"
        for alias in node.names
        if alias.name != "__version__" and f"graphprune.{alias.name}" not in modules()
    ]
    assert names == []


@pytest.mark.parametrize("package", TOP_LEVEL_HOMES)
def test_heavy_packages_are_imported_lazily(package: str) -> None:
    eager = [
        str(found)
        for found in imports()
        if found.top_level and inside(found.target, (package,)) and not inside(found.source, TOP_LEVEL_HOMES[package])
    ]
    assert eager == []


def test_solvers_never_see_a_model() -> None:
    seen = [
        str(found)
        for found in imports()
        if inside(found.source, ("graphprune.solvers",)) and inside(found.target, UNKNOWN_TO_SOLVERS)
    ]
    assert seen == []


def test_only_the_command_line_talks_to_the_terminal() -> None:
    forbidden = {"print", "typer.echo", "rich.print", "sys.stdout", "sys.stderr"}
    talk = [
        f"{module}:{node.lineno} {ast.unparse(node)}"
        for module in modules()
        if not inside(module, ("graphprune.cli", "graphprune.__main__"))
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in forbidden
    ]
    assert talk == []
    assert [
        str(found) for found in imports() if found.target == "typer" and unit(found.source) != "graphprune.cli"
    ] == []


@pytest.mark.parametrize("module", sorted(modules()))
def test_a_file_has_licence_concept_and_bounded_length(module: str) -> None:
    text = modules()[module].read_text(encoding="utf-8")
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n")
    assert ast.get_docstring(tree(module))
    assert len(text.splitlines()) <= LONGEST_FILE


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines of a function without its docstring."""
    assert function.end_lineno is not None
    first = function.body[0]
    docstring = first if ast.get_docstring(function, clean=False) is not None else None
    documented = 0 if docstring is None else (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return function.end_lineno - function.lineno + 1 - documented


def test_functions_are_short() -> None:
    long = [
        f"{module}:{node.lineno} {node.name}: {code_lines(node)} lines"
        for module in modules()
        for node in ast.walk(tree(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and code_lines(node) > LONGEST_FUNCTION
    ]
    assert long == []


def test_values_are_passed_by_name_not_swept_up() -> None:
    """A reader sees where a value goes: no ``locals()``, and no ``vars(self)``."""
    forbidden = {"locals()", "vars(self)", "self.__dict__"}
    swept = [
        f"{module}:{node.lineno} {ast.unparse(node)}"
        for module in modules()
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call | ast.Attribute) and ast.unparse(node) in forbidden
    ]
    assert swept == []


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = function.args
    return len(given.posonlyargs + given.args + given.kwonlyargs)


def test_commands_take_few_parameters() -> None:
    """Options that belong together come in one dataclass."""
    commands = [module for module in modules() if module.startswith("graphprune.cli.")]
    assert commands
    many = [
        f"{module}:{node.lineno} {node.name}: {parameters(node)}"
        for module in commands
        for node in ast.walk(tree(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and parameters(node) > MOST_PARAMETERS
    ]
    assert many == []


def test_tests_and_tools_are_not_imported_by_the_library() -> None:
    outside = {path.stem for folder in ("tests", "tools") for path in (ROOT / folder).rglob("*.py")}
    assert [str(found) for found in imports() if found.target.split(".")[0] in outside | {"tests", "tools"}] == []
