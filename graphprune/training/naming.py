# SPDX-License-Identifier: Apache-2.0
"""Names of a file become names of a module: harmless in generated code, and still those of the file where possible.

torch.fx writes Python source with the names of values in it, and names of a model are untrusted text.
So every value is renamed before the conversion, and parameters get their own name back only if it is harmless.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import torch
from onnx import GraphProto, ModelProto

from graphprune.model.graph import subgraphs

__all__ = ["module_paths", "renamed"]

_HARMLESS = re.compile(r"[A-Za-z0-9_:/-]{1,200}", re.ASCII)
_TAKEN = frozenset(dir(torch.fx.GraphModule(torch.nn.Module(), torch.fx.Graph())))


def renamed(proto: ModelProto, largest: int = 1 << 10) -> tuple[ModelProto, dict[str, str]]:
    """Copy a model with every value called ``v0``, ``v1``, ...; large initializers are left out of the copy.

    Parameters
    ----------
    proto : ModelProto
        Without local functions.
    largest : int
        Bytes of an initializer that still go along, so that shape inference knows it.

    Returns
    -------
    ModelProto, dict of str to str
        The copy, and the new name of each old one.
    """
    copy = ModelProto()
    copy.opset_import.extend(proto.opset_import)
    copy.ir_version = proto.ir_version
    copy.graph.node.extend(proto.graph.node)
    copy.graph.input.extend(proto.graph.input)
    copy.graph.output.extend(proto.graph.output)
    copy.graph.name = "graph"
    copy.graph.initializer.extend(t for t in proto.graph.initializer if len(t.raw_data) <= largest and _inside(t))
    names: dict[str, str] = {"": ""}
    for tensor in proto.graph.initializer:
        _new(names, tensor.name)
    _rename(copy.graph, names)
    return copy, names


def _inside(tensor: object) -> bool:
    return not getattr(tensor, "external_data", ())


def _new(names: dict[str, str], name: str) -> str:
    return names.setdefault(name, f"v{len(names)}")


def _rename(graph: GraphProto, names: dict[str, str]) -> None:
    """Rename within a graph and its bodies; equal names get equal new ones, so that scopes stay what they are."""
    for value in (*graph.input, *graph.output):
        value.name = _new(names, value.name)
    for tensor in graph.initializer:
        tensor.name = _new(names, tensor.name)
    del graph.value_info[:]
    for node in graph.node:
        inputs, outputs = [_new(names, name) for name in node.input], [_new(names, name) for name in node.output]
        del node.input[:], node.output[:]
        node.input.extend(inputs)
        node.output.extend(outputs)
        for body in subgraphs(node):
            _rename(body, names)


def module_paths(names: Iterable[str]) -> dict[str, str]:
    """Give every stored tensor the path of its parameter within the module: its own name where that is possible.

    ``layer1.0.conv.weight`` becomes nested modules, as torch would have it. A name that torch cannot
    carry, or that would not be harmless in source text, becomes ``tensor_0``, ``tensor_1``, ...
    """
    paths: dict[str, str] = {}
    leaves: set[str] = set()
    inner: set[str] = set()
    for number, name in enumerate(names):
        parts = name.split(".")
        above = set(_prefixes(parts))
        fits = all(_HARMLESS.fullmatch(part) and part not in _TAKEN for part in parts)
        if not fits or name in inner or name in leaves or above & leaves:
            paths[name] = f"tensor_{number}"
        else:
            paths[name] = name
            leaves.add(name)
            inner |= above
    return paths


def _prefixes(parts: list[str]) -> Iterator[str]:
    for end in range(1, len(parts)):
        yield ".".join(parts[:end])
