# SPDX-License-Identifier: Apache-2.0
"""The reference of the Python API, docs/reference.md, from signatures and docstrings.

::

    python tools/api_reference.py            # writes the page
    python tools/api_reference.py --check    # exit status 1 if the page is not what would be written

Docstrings are read by griffe (``pip install '.[test]'``) without importing anything.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import griffe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference.md"
LONGEST_LINE = 100

TASKS = {
    "From file to file": (
        "load",
        "analyze",
        "solve",
        "apply",
        "verify",
        "save",
        "normalize",
        "reconcile",
        "check_consistency",
    ),
    "Samples and accuracy": ("samples", "open_data", "from_arrays", "evaluate", "recover", "train"),
    "Trying things side by side": ("compare", "sweep"),
    "Looking": ("explain", "group_graph", "save_drawing", "read_plan", "write_plan"),
    "Widening": ("widen",),
    "After pruning": ("quantize", "deploy"),
    "Watching": ("listening", "examine_installation"),
    "What is asked for": (
        "BudgetRequest",
        "AnalyzeOptions",
        "SolveOptions",
        "Constraints",
        "RecoverOptions",
        "WidenOptions",
        "QuantizeOptions",
        "DeployOptions",
        "Preprocessing",
        "Contest",
        "Sweep",
        "Workers",
    ),
    "What comes back": (
        "Model",
        "Analysis",
        "Plan",
        "Verification",
        "Recovery",
        "Evaluation",
        "Explanation",
        "Widened",
        "Quantized",
        "Deployment",
        "Event",
        "Finding",
        "Source",
        "Batch",
    ),
    "Errors": ("GraphPruneError",),
}
"""Every public name, below the heading where somebody looks for it; `graphprune.__all__` says which there are."""

INTRODUCTION = """# Reference of the Python API

Everything that `import graphprune` offers, by task. This page is made from the docstrings by `tools/api_reference.py`;
the [tutorial](tutorial.md) shows how the parts go together.
"""


def main(argv: list[str] | None = None) -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description="Write the reference of the Python API.")
    parser.add_argument("--check", action="store_true", help="only look whether the page is up to date")
    if wrong := misplaced(public_names()):
        print(wrong, file=sys.stderr)
        return 1
    written = page(public_objects())
    if parser.parse_args(argv).check:
        return int(PAGE.read_text(encoding="utf-8") != written)
    PAGE.write_text(written, encoding="utf-8")
    return 0


def public_names() -> set[str]:
    """Return the names that the package itself says it offers."""
    tree = ast.parse((ROOT / "graphprune" / "__init__.py").read_text(encoding="utf-8"))
    lists = (
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets) == "__all__"
    )
    return {name for names in lists for name in ast.literal_eval(names) if not name.startswith("_")}


def misplaced(names: set[str]) -> str:
    """Say which names stand below no heading, and which of TASKS are not public; empty if all is well."""
    placed = {name for task in TASKS.values() for name in task}
    sides = (("stand below no heading of TASKS", names - placed), ("are not public", placed - names))
    return "; ".join(f"{', '.join(sorted(some))} {what}" for what, some in sides if some)


def public_objects() -> dict[str, griffe.Object]:
    """Return what every public name stands for, as the package itself says where it is defined."""
    folders = {f"graphprune.{name}": name for name in ("export", "solvers")}  # beside the package in the checkout
    packages = {
        name: griffe.load(folder, search_paths=[ROOT], docstring_parser=griffe.Parser.numpy)
        for name, folder in {**folders, "graphprune": "graphprune"}.items()
    }
    homes = {}
    for node in ast.walk(ast.parse((ROOT / "graphprune" / "__init__.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("graphprune"):
            homes |= {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    objects = {}
    for name in (name for names in TASKS.values() for name in names):
        package = next(each for each in packages if homes[name].startswith(f"{each}."))
        entry = packages[package][homes[name].removeprefix(f"{package}.")]
        objects[name] = entry.final_target if isinstance(entry, griffe.Alias) else entry
    return objects


def page(objects: dict[str, griffe.Object]) -> str:
    """Return the page as text."""
    parts = [INTRODUCTION, "\n".join(contents())]
    for task, names in TASKS.items():
        parts.append(f"## {task}")
        for name in names:
            parts += described(name, objects[name])
    parts.append(plain(ast.get_docstring(ast.parse((ROOT / "graphprune" / "errors.py").read_text("utf-8"))) or ""))
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def contents() -> Iterator[str]:
    """Yield a line per task that links to its names; of equal anchors the second one ends with -1."""
    anchors: Counter[str] = Counter()
    for task, names in TASKS.items():
        links = []
        for name in names:
            number = anchors[name.lower()]
            links.append(f"[`{name}`](#{name.lower()}{f'-{number}' if number else ''})")
            anchors[name.lower()] += 1
        yield f"- {task}: {', '.join(links)}"


def described(name: str, entry: griffe.Object) -> Iterator[str]:
    """Yield a heading, the signature and the docstring of something, and the same of its public methods."""
    yield f"### `{name}`"
    if isinstance(entry, griffe.Class):
        yield f"```python\n{signature(name, entry.parameters)}\n```"
    elif isinstance(entry, griffe.Function):
        yield f"```python\n{signature(name, entry.parameters, entry.returns)}\n```"
    yield from documented(entry)
    methods = [*members(entry)] if isinstance(entry, griffe.Class) else []
    if methods:
        yield "Methods and properties:"
        yield "\n".join(methods)


def signature(name: str, parameters: Iterable[griffe.Parameter], returned: object = None) -> str:
    """Return a call as Python, one parameter a line where a line would be too long."""
    shown: list[str] = []
    for parameter in parameters:
        if parameter.name in ("self", "cls"):
            continue
        kind = parameter.kind
        if kind is griffe.ParameterKind.keyword_only and "*" not in shown:
            shown.append("*")
        stars = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}.get(kind, "")
        default = "" if parameter.default is None or stars else f" = {parameter.default}"
        shown.append(f"{stars}{parameter.name}: {parameter.annotation}{default}")
    end = f") -> {returned}" if returned is not None else ")"
    line = f"{name}({', '.join(shown)}{end}"
    if len(line) <= LONGEST_LINE:
        return line
    return "\n".join((f"{name}(", *(f"    {each}," for each in shown), end))


def documented(entry: griffe.Object) -> Iterator[str]:
    """Yield the sections of a docstring."""
    if entry.docstring is None:
        return
    for section in entry.docstring.parsed:
        value = section.value
        match section.kind:
            case griffe.DocstringSectionKind.text:
                yield plain(value)
            case griffe.DocstringSectionKind.examples:
                yield "\n\n".join(example(kind, text) for kind, text in value)
            case griffe.DocstringSectionKind.parameters | griffe.DocstringSectionKind.attributes:
                yield f"{section.kind.value.capitalize()}:"
                yield "\n".join(f"- `{each.name}`{of_type(each)}{says(each)}" for each in value)
            case griffe.DocstringSectionKind.returns | griffe.DocstringSectionKind.raises:
                yield f"{section.kind.value.capitalize()}:"
                yield "\n".join(f"- {unmarked(each.annotation)}{says(each)}" for each in value)
            case _:
                raise ValueError(f"{entry.path}: no way to show a section of kind {section.kind}")


def members(entry: griffe.Class) -> Iterator[str]:
    """Yield a line per public method and property that has something to say."""
    for name, member in entry.members.items():
        shown = member.is_function or (member.is_attribute and "property" in member.labels)
        if name.startswith("_") or member.is_alias or member.docstring is None or not shown:
            continue
        call = "" if member.is_attribute else "()"
        yield f"- `.{name}{call}`: {plain(member.docstring.value.split(chr(10) * 2)[0])}"


def of_type(element: griffe.DocstringNamedElement) -> str:
    """Return the type of something in brackets, if it has one."""
    return "" if element.annotation is None else f" ({unmarked(element.annotation)})"


def unmarked(annotation: object) -> str:
    """Return types as code, without the brackets of several."""
    text = str(annotation)
    return f"`{text[1:-1] if text.startswith('(') and text.endswith(')') else text}`"


def says(element: griffe.DocstringElement) -> str:
    """Return what a docstring says of something, on one line."""
    text = plain(element.description).replace("\n", " ")
    return f": {text}" if text else ""


def example(kind: object, text: str) -> str:
    """Return a part of an examples section: words, or a session."""
    return plain(text) if kind is griffe.DocstringSectionKind.text else f"```pycon\n{text}\n```"


def plain(text: str) -> str:
    """Return reStructuredText of docstrings as Markdown: roles, literals and literal blocks."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    lines, block = [], False
    for line in text.split("\n"):
        if not block and line.strip() == "::":
            lines.append("```python" if "───" not in text and "└──" not in text else "```")
            block = True
        elif block and line.strip() and not line.startswith("    "):
            lines += ["```", "", line]
            block = False
        elif not block or line.strip() or not lines[-1].startswith("```"):
            lines.append(line.removeprefix("    ") if block else line)
    return "\n".join([*lines, "```"] if block else lines).strip("\n")


if __name__ == "__main__":
    sys.exit(main())
