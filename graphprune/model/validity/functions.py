# SPDX-License-Identifier: Apache-2.0
"""Local functions, counted before anything expands them.

A model of 2 KB with 30 functions, each calling the next twice, stands for a billion nodes: checkers, shape
inference and runtimes hang on it. Counting the expansion needs one memoised pass over the call graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import onnx
from onnx import defs

from graphprune.errors import ModelFileError, UnsafeModelError, UnsupportedModelError, quote
from graphprune.model.validity.survey import nodes_below

__all__ = ["check_functions", "expanded_size"]

_Key = tuple[str, str, str]
# Larger than any limit; sizes are cut here, or a chain of doublings would make numbers of thousands of digits.
_ENOUGH: Final = 2**62


def check_functions(proto: onnx.ModelProto, *, max_calls: int) -> None:
    """Raise unless the local functions of `proto` are distinct, not recursive and of bearable size.

    Raises
    ------
    ModelFileError
        If a function is defined twice or calls itself.
    UnsupportedModelError
        If a function redefines a standard operator.
    UnsafeModelError
        If the model has more than `max_calls` nodes once all functions are expanded.
    """
    if not proto.functions:
        return
    bodies: dict[_Key, list[onnx.NodeProto]] = {}
    for function in proto.functions:
        key = (_domain(function.domain), function.name, function.overload)
        if key in bodies:
            raise ModelFileError(f"function {_show(key)} is defined twice")
        if defs.has(function.name, key[0]):
            raise UnsupportedModelError(f"function {_show(key)} redefines a standard operator")
        bodies[key] = nodes_below(function)
    if expanded_size(nodes_below(proto.graph), bodies) > max_calls:
        raise UnsafeModelError(f"the model has more than {max_calls} nodes once its functions are expanded, the limit")


def expanded_size(nodes: Iterable[onnx.NodeProto], bodies: dict[_Key, list[onnx.NodeProto]]) -> int:
    """Return how many nodes `nodes` become when every call is replaced by its body, in O(nodes of all bodies).

    Raises
    ------
    ModelFileError
        If a function calls itself, directly or through others.
    """
    calls = {key: _calls(body, bodies) for key, body in bodies.items()}
    sizes: dict[_Key, int] = {}
    for root in bodies:
        stack, path = [root], set[_Key]()
        while stack:
            key = stack[-1]
            if key not in path and key not in sizes:
                path.add(key)
                missing = [called for called in calls[key] if called not in sizes]
                looped = next((called for called in missing if called in path), None)
                if looped is not None:
                    raise ModelFileError(f"function {_show(looped)} calls itself")
                stack.extend(missing)
                if missing:
                    continue
            stack.pop()
            if key not in sizes:
                path.discard(key)
                size = len(bodies[key]) + sum(count * sizes[called] for called, count in calls[key].items())
                sizes[key] = min(size, _ENOUGH)
    top = list(nodes)
    return len(top) + sum(count * sizes[called] for called, count in _calls(top, bodies).items())


def _calls(nodes: Iterable[onnx.NodeProto], bodies: dict[_Key, list[onnx.NodeProto]]) -> dict[_Key, int]:
    """Return how often `nodes` call each function."""
    counts: dict[_Key, int] = {}
    for node in nodes:
        key = (_domain(node.domain), node.op_type, node.overload)
        if key in bodies:
            counts[key] = counts.get(key, 0) + 1
    return counts


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _show(key: _Key) -> str:
    return quote("::".join(part for part in key if part))
