# SPDX-License-Identifier: Apache-2.0
"""The widths file: by id or name of a group, or by node, the width in channels; YAML or JSON, read strictly.

::

    g003: 64
    /layer2/layer2.0/conv1/Conv: 96
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from graphprune.errors import PlanError, UsageError, quote
from graphprune.plan import strict_json
from graphprune.regular_file import check_regular

if TYPE_CHECKING:
    import yaml

__all__ = ["read_widths"]

_MOST_BYTES = 2**20
_WIDEST = 2**31 - 1
_WHOLE = re.compile(r"[1-9]\d{0,9}", re.ASCII)
_FORM = "give one width in channels per group, e.g. `g003: 64`"


def read_widths(path: str | Path) -> dict[str, int]:
    """Read a widths file.

    A name that ends with ``.json`` means JSON, ``.yaml`` or ``.yml`` YAML, of which plain scalars in one mapping are
    allowed and nothing else.

    Raises
    ------
    UsageError
        If the file cannot be read, is larger than 1 MiB, has another form, or gives a name twice.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".json", ".yaml", ".yml"):
        raise UsageError(f"the widths file {quote(str(path))} is neither .yaml nor .json", hint=_FORM)
    text, source = _text(path), quote(path.name)
    if suffix != ".json":
        return _from_yaml(text, source)
    try:
        entries = strict_json.loads(text, source).entries()
        return {name: value.integer(1, _WIDEST) for name, value in entries.items()}
    except PlanError as error:
        raise UsageError(error.message, hint=_FORM) from None


def _text(path: Path) -> str:
    try:
        check_regular(path, UsageError)
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"cannot read the widths file {quote(str(path))}: {reason}") from None
    if len(data) > _MOST_BYTES:
        raise UsageError(f"the widths file {quote(str(path))} is larger than {_MOST_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"the widths file {quote(str(path))} is not UTF-8 text (byte {error.start})") from None


def _from_yaml(text: str, source: str) -> dict[str, int]:
    """Read the nodes of a YAML document; no object is ever made of a tag."""
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        raise UsageError(f"{source} is not YAML: {said}", hint=_FORM) from None
    except RecursionError:
        raise UsageError(f"{source} is nested too deeply", hint=_FORM) from None
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(f"{source} is no mapping of names to widths", hint=_FORM)
    widths: dict[str, int] = {}
    for key, value in root.value:
        name = _scalar(key, source)
        if name in widths:
            raise UsageError(f"{source}, line {key.start_mark.line + 1}: {quote(name)} appears twice")
        widths[name] = _width(name, value, source)
    return widths


def _scalar(node: yaml.Node, source: str) -> str:
    text = node.value
    if not isinstance(text, str):
        raise UsageError(f"{source}, line {node.start_mark.line + 1}: a name is expected", hint=_FORM)
    return text


def _width(name: str, node: yaml.Node, source: str) -> int:
    text = node.value
    plain = node.tag == "tag:yaml.org,2002:int" and isinstance(text, str) and _WHOLE.fullmatch(text)
    if not plain or int(text) > _WIDEST:
        shown = quote(text) if isinstance(text, str) else "a structure"
        raise UsageError(
            f"{source}, line {node.start_mark.line + 1}: the width of {quote(name)} is {shown}, "
            "but must be a positive whole number",
            hint=_FORM,
        )
    return int(text)
