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

# Folders in which every module is one more implementation of an interface, under the name of what it implements: a
# command, an operator family, a method. What does the work behind a command has the command's name.
INTERFACES = (
    "graphprune.cli.commands",
    "graphprune.export.runtimes",
    "graphprune.labels.rules",
    "graphprune.rewrites.ranges",
    "graphprune.solvers.criteria",
    "graphprune.solvers.training",
    "graphprune.solvers.widths",
    "graphprune.trials.backends",
)
# File names that several other modules may have, and why.
SHARED_FILE_NAMES = {
    "__init__": "says what its package is",
    "registry": "plugins and rules are registered alike: graphprune.labels.registry, graphprune.solvers.registry",
}
# Public classes that several modules may define under one name, and why.
SHARED_CLASS_NAMES: dict[str, str] = {}

LONGEST_FILE = 400
LONGEST_FUNCTION = 60
MOST_PARAMETERS = 8

# What modules may change of their own: registries that rules enter themselves into when they are imported, and what a
# worker process of a sweep keeps from one trial to the next.
CHANGING_GLOBALS = {
    "graphprune.labels.adapt": {"_ADAPTERS"},
    "graphprune.recovery.methods": {"BY_NAME"},
    "graphprune.labels.registry": {"_BLIND", "_RULES"},
    "graphprune.rewrites.ranges.range_rules": {"_RULES"},
    "graphprune.trials.trier": {"_kept"},
}
CHANGING_METHODS = {
    *("add", "append", "appendleft", "clear", "discard", "extend", "insert"),
    *("move_to_end", "pop", "popitem", "popleft", "remove", "reverse", "setdefault", "sort", "update"),
}
MEMORIES = {"WeakKeyDictionary", "WeakValueDictionary", "WeakSet", "defaultdict", "OrderedDict", "Counter", "deque"}


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
    statements = []
    for module in modules():
        on_import = {id(statement) for statement in run_on_import(tree(module).body)}
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                statements += [
                    Import(module, name, node.lineno, id(node) in on_import) for name in targets(module, node)
                ]
    return tuple(statements)


def inside(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def unit(module: str) -> str:
    """Return the longest name among the layers that holds the module."""
    known = [name for name in RANK if module == name or (name != "graphprune" and module.startswith(f"{name}."))]
    assert known, f"{module} has no layer yet: give it one in docs/architecture.md"
    return max(known, key=len)


def internal() -> list[Import]:
    """Return imports within the library; ``from graphprune import __version__`` is open to everybody."""
    return [each for each in imports() if each.target in modules() and each.target != "graphprune"]


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
    upwards = [str(each) for each in internal() if RANK[unit(each.target)] < RANK[unit(each.source)]]
    assert upwards == []


def test_no_import_cycles() -> None:
    graph = nx.DiGraph(
        (each.source, each.target) for each in internal() if not each.source.startswith(f"{each.target}.")
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
        str(each)
        for each in imports()
        if each.top_level and inside(each.target, (package,)) and not inside(each.source, TOP_LEVEL_HOMES[package])
    ]
    assert eager == []


def test_solvers_never_see_a_model() -> None:
    seen = [
        str(each)
        for each in imports()
        if inside(each.source, ("graphprune.solvers",)) and inside(each.target, UNKNOWN_TO_SOLVERS)
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
    assert [str(each) for each in imports() if each.target == "typer" and unit(each.source) != "graphprune.cli"] == []


@pytest.mark.parametrize("module", sorted(modules()))
def test_a_file_has_licence_concept_and_bounded_length(module: str) -> None:
    text = modules()[module].read_text(encoding="utf-8")
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n")
    assert ast.get_docstring(tree(module))
    assert len(text.splitlines()) <= LONGEST_FILE


def repeated(names: dict[str, list[str]], allowed: dict[str, str]) -> dict[str, list[str]]:
    """Return the names that stand for several things, without those that may."""
    return {name: places for name, places in names.items() if len(places) > 1 and name not in allowed}


def test_a_file_name_says_which_file_it_is() -> None:
    names: dict[str, list[str]] = {}
    for module, path in modules().items():
        if not inside(module, INTERFACES):
            names.setdefault(path.stem, []).append(module)
    assert set(SHARED_FILE_NAMES) <= set(repeated(names, {}))
    assert repeated(names, SHARED_FILE_NAMES) == {}


def test_a_public_class_name_has_one_meaning() -> None:
    names: dict[str, list[str]] = {}
    for module in modules():
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                names.setdefault(node.name, []).append(f"{module}:{node.lineno}")
    assert set(SHARED_CLASS_NAMES) <= set(repeated(names, {}))
    assert repeated(names, SHARED_CLASS_NAMES) == {}


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


def test_functions_take_few_parameters() -> None:
    """Options that belong together come in one dataclass, those of the command line, too."""
    wide = [
        f"{module}:{node.lineno} {node.name}: {parameters(node)} parameters"
        for module in modules()
        for node in ast.walk(tree(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and parameters(node) > MOST_PARAMETERS
    ]
    assert wide == []


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of parameters of a function without ``self``."""
    spec = function.args
    names = [argument.arg for argument in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


@functools.cache
def global_statements(module: str) -> tuple[ast.stmt, ...]:
    """Return the statements that run when a module is imported and bind names of the module itself."""
    classes = {id(inner) for outer in ast.walk(tree(module)) if isinstance(outer, ast.ClassDef) for inner in outer.body}
    return tuple(statement for statement in run_on_import(tree(module).body) if id(statement) not in classes)


@functools.cache
def global_names(module: str) -> set[str]:
    """Return the names that a module binds to values or imports when it is imported."""
    names: set[str] = set()
    for statement in global_statements(module):
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            bound = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names |= {target.id for target in bound if isinstance(target, ast.Name)}
        elif isinstance(statement, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in statement.names}
    return names


def changed_names(node: ast.AST) -> set[str]:
    """Return the names whose values a statement or expression changes in place, or that it declares global."""
    if isinstance(node, ast.Global):
        return set(node.names)
    changed: list[ast.expr] = []
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGING_METHODS:
        changed = [node.func.value]
    elif isinstance(node, ast.Assign | ast.Delete):
        changed = [target.value for target in node.targets if isinstance(target, ast.Subscript | ast.Attribute)]
    elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Subscript | ast.Attribute):
        changed = [node.target.value]
    return {value.id for value in changed if isinstance(value, ast.Name)}


def test_no_module_keeps_state() -> None:
    """What is remembered between calls is passed, or belongs to an object: a global is invisible, and frees nothing."""
    changed = {
        module: {name for node in ast.walk(tree(module)) for name in changed_names(node) & global_names(module)}
        for module in modules()
    }
    assert {module: names for module, names in changed.items() if names} == CHANGING_GLOBALS
    memories = [
        f"{module}:{statement.lineno} {ast.unparse(statement)}"
        for module in modules()
        for statement in global_statements(module)
        if isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(statement.value, ast.Call)
        if ast.unparse(statement.value.func).split(".")[-1] in MEMORIES
    ]
    assert memories == []


def test_only_functions_without_parameters_are_cached() -> None:
    """A cache of a function of something holds on to that as long as the process lives."""
    cached = [
        f"{module}:{node.lineno} {node.name}"
        for module in modules()
        for node in ast.walk(tree(module))
        if isinstance(node, ast.FunctionDef) and (node.args.args or node.args.kwonlyargs)
        for decorator in node.decorator_list
        if ast.unparse(decorator).split("(")[0].split(".")[-1] in ("cache", "lru_cache")
    ]
    assert cached == []


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


def test_tests_and_tools_are_not_imported_by_the_library() -> None:
    outside = {path.stem for folder in ("tests", "tools") for path in (ROOT / folder).rglob("*.py")}
    assert [str(each) for each in imports() if each.target.split(".")[0] in outside | {"tests", "tools"}] == []
