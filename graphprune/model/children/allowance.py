# SPDX-License-Identifier: Apache-2.0
"""The allowance: what a child process may use, which follows from the model that it runs.

Memory
    A floor for Python and onnxruntime with its threads, and eight times what the model stores and what all its values
    take for the sizes that it is run with; never more than half of the machine. A value of unknown size counts as much
    as the largest one that is known.
Processor time
    A floor, and what all operators should take at a thousand million steps a second, thirty-two times over. A step is a
    multiply-add of a matrix product; eight are one of an operator that is not known to be fast, and four what an
    operator does that does the same to every element. A loop counts as a hundred iterations.

Both are generous: a comparison goes through two models some ten times. What they stop is what no shape tells, a loop
without an end, texts that double, a regular expression that looks back for ever.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod, sqrt
from typing import Final

from onnx import NodeProto

from graphprune.model.children.bounded import LINEAR, PRODUCTS
from graphprune.model.files.main_memory import main_memory
from graphprune.model.load import Model
from graphprune.model.tensors import count_bytes
from graphprune.model.validity.survey import nodes_below, survey

__all__ = ["Allowance", "allow"]

_FLOOR: Final = 600 << 20
_PER_CORE: Final = 64 << 20
"""Bytes of the stacks and work spaces of a thread in each of several sessions."""
_TIMES: Final = 8
_ELEMENT: Final = 8
"""Bytes of an element: integers and the copies that kernels make in a wider type."""

_SECONDS: Final = 2
_SECONDS_PER_CORE: Final = 1
"""Threads that wait for work use processor time, too."""
_STEPS_PER_SECOND: Final = 1_000_000_000
_RUNS: Final = 32
_STEPS_PER_ELEMENT: Final = 4
_STEPS_OF_OTHERS: Final = 8
_STEPS_PER_NODE: Final = 10_000
_MOST_STEPS_OF_NODES: Final = 30_000_000
"""Steps of all nodes in bodies that do next to nothing, a second's worth with all runs: many short loops make many."""
_STEPS_PER_TENSOR: Final = 30_000
_STEPS_PER_BYTE: Final = 4
_ITERATIONS: Final = 100
_LOOPING: Final = frozenset({"BeamSearch", "GreedySearch", "Loop", "Sampling", "Scan", "WhisperBeamSearch"})
_LONGEST: Final = 1 << 30


@dataclass(frozen=True)
class Allowance:
    """What a child process may use.

    Attributes
    ----------
    patience : float
        Seconds that its parent waits for it.
    seconds : int
        Processor time of all its threads together; 0 for no limit but that of its parent. A child that times networks
        has none: with a limit, Linux counts the processor time of a process in ticks of some milliseconds.
    most_bytes : int
        Memory, without files that are mapped.
    """

    patience: float
    seconds: int
    most_bytes: int


def allow(models: Iterable[Model], dims: Mapping[str, tuple[int, ...]], patience: float) -> Allowance:
    """Return what a child that runs these models may use.

    Parameters
    ----------
    models : iterable of Model
        Versions of one model.
    dims : mapping of str to tuple of int
        Shapes of values, those of the inputs at least.
    patience : float
        Seconds that are waited for it.

    Complexity: O(nodes); no weight is read.
    """
    known = max((_elements(shape) for shape in dims.values()), default=1)
    stored, values, looped, steps = 0, 0, 0, 0.0
    for model in models:
        parts = survey(model.proto)
        sizes = {held.tensor.name: _elements(held.tensor.dims) for held in parts.tensors if held.tensor.name}
        sizes.update({name: _elements(shape) for name, shape in dims.items()})
        stored += sum(count_bytes(held.tensor) for held in parts.tensors)
        values += sum(sizes.get(name, known) for node in parts.nodes for name in node.output if name)
        steps += sum(_steps(node, sizes, known) for node in parts.nodes)
        steps += _STEPS_PER_NODE * len(parts.nodes) + _STEPS_PER_TENSOR * len(parts.tensors)
        again = [node for loop in parts.nodes if loop.op_type in _LOOPING for node in _in_bodies(loop)]
        steps += _ITERATIONS * sum(_steps(node, sizes, known) for node in again)
        looped += len(again)
    steps += min(_ITERATIONS * _STEPS_PER_NODE * looped, _MOST_STEPS_OF_NODES)
    cores = os.cpu_count() or 1
    most = _FLOOR + cores * _PER_CORE + _TIMES * (stored + _ELEMENT * values)
    took = _RUNS * (steps + _STEPS_PER_BYTE * stored) / _STEPS_PER_SECOND
    seconds = _SECONDS + cores * _SECONDS_PER_CORE + took
    return Allowance(patience, int(min(seconds, _LONGEST)), min(most, main_memory() // 2))


def _steps(node: NodeProto, sizes: Mapping[str, int], known: int) -> float:
    """Return multiply-adds: of a product of an m x k with a k x n matrix, m k n = sqrt(m k . k n . m n)."""
    counts = [sizes.get(name, known) for name in (*node.input, *node.output) if name]
    if node.op_type in LINEAR and not node.domain:
        return _STEPS_PER_ELEMENT * float(sum(counts))
    is_fast = node.op_type in PRODUCTS and not node.domain
    return sqrt(prod(sorted(counts)[-3:])) * (1 if is_fast else _STEPS_OF_OTHERS)


def _in_bodies(loop: NodeProto) -> Iterator[NodeProto]:
    for attribute in loop.attribute:
        if attribute.HasField("g"):
            yield from nodes_below(attribute.g)


def _elements(dims: Iterable[int]) -> int:
    return prod(max(size, 0) for size in dims)
