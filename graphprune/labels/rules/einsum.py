# SPDX-License-Identifier: Apache-2.0
"""`Einsum`: indices that operands share keep the same slices, and indices that are summed are contracted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.space import Axes, Role
from graphprune.labels.vector import Labels, stay

__all__ = ["Equation", "parse"]


@dataclass(frozen=True)
class Equation:
    """Indices of every operand and of the result; those that an ellipsis stands for are named ".0", ".1", ...

    An ellipsis is aligned at its last axis, as numpy broadcasts: ".0" is the last axis of each.
    """

    operands: tuple[tuple[str, ...], ...]
    result: tuple[str, ...]


def parse(text: str, ranks: Sequence[int]) -> Equation | None:
    """Read an equation; None where it does not fit the ranks or repeats an index inside one operand."""
    left, arrow, right = re.sub(r"\s", "", text).partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        return None
    operands = [_indices(term, rank) for term, rank in zip(terms, ranks, strict=True)]
    if any(found is None or len(set(found)) != len(found) for found in operands):
        return None
    known = tuple(found for found in operands if found is not None)
    count = Counter(index for found in known for index in found)
    spread = sorted((index for index in count if index.startswith(".")), key=lambda index: -int(index[1:]))
    if arrow:
        head, dots, tail = right.partition("...")
        result = (*head, *(spread if dots else ()), *tail)
    else:
        result = (*spread, *sorted(index for index in count if count[index] == 1 and not index.startswith(".")))
    return Equation(known, result) if set(result) <= set(count) else None


def _indices(term: str, rank: int) -> tuple[str, ...] | None:
    """Name the axes of one operand."""
    head, dots, tail = term.partition("...")
    hidden = rank - len(head) - len(tail)
    if hidden < 0 or (hidden and not dots):
        return None
    return (*head, *(f".{place}" for place in range(hidden - 1, -1, -1)), *tail)


@rule("Einsum")
def einsum(op: Operator) -> None:
    """An index is an axis of every operand that has it; without a place in the result it is summed."""
    slots = range(len(op.node.inputs))
    equation = parse(op.node.attribute("equation"), [len(op.shape(slot)) for slot in slots])
    if equation is None:
        op.barrier("Einsum", "an index is repeated inside one operand, or does not fit it")
        return
    operands = [op.operand(slot, _roles(op, equation, slot)) for slot in slots]
    labels = {
        index: _index(op, equation, operands, index) for index in dict.fromkeys(sum(equation.operands, equation.result))
    }
    if len(operands) > 1:
        _count(op, equation, labels)
    op.set(0, (labels[index] for index in equation.result))


def _roles(op: Operator, equation: Equation, slot: int) -> list[Role]:
    """Roles of the axes of an operand, should it be a weight."""
    others = {
        index
        for at, indices in enumerate(equation.operands)
        if at != slot and not op.is_constant(at)
        for index in indices
    }
    roles: list[Role] = []
    for index in equation.operands[slot]:
        roles.append("in" if index not in equation.result else "per_channel" if index in others else "out")
    return roles


def _index(op: Operator, equation: Equation, operands: Sequence[Axes], index: str) -> Labels:
    """Unite the axes of one index and say where it is summed; axes of length 1 are spread."""
    places = [(slot, indices.index(index)) for slot, indices in enumerate(equation.operands) if index in indices]
    wide = [(slot, axis) for slot, axis in places if len(operands[slot][axis]) != 1]
    if not wide:
        return stay(1)
    axes = [operands[slot][axis] for slot, axis in wide]
    for other in axes[1:]:
        op.unite(axes[0], other)
    chosen = next((vector for vector in axes if not vector.live), axes[0])
    active = [(slot, axis) for slot, axis in wide if not op.is_constant(slot)]
    if index not in equation.result:
        for slot, axis in active:
            op.contract(slot, axis)
        if not active:
            op.contract_weight(*wide[0], chosen)
    if len(active) > 1 and chosen.live:
        found = op.space.batch if index in equation.result else op.space.contracted
        found.append(chosen.base)
    return chosen


def _count(op: Operator, equation: Equation, labels: dict[str, Labels]) -> None:
    """Count one multiply-add per combination of all indices."""
    made = _of_weights(op, equation, equation.result) or equation.result
    summed = [index for index in labels if index not in equation.result]
    inner, outer = summed[:1], list(made[-1:])
    rest = [labels[index] for index in labels if index not in (*inner, *outer)]
    ends = [labels[index] for index in (*inner, *outer)]
    op.cost(rest, ends[0] if inner else stay(1), ends[-1] if outer else stay(1))


def _of_weights(op: Operator, equation: Equation, indices: Iterable[str]) -> tuple[str, ...]:
    """Return those indices that no activation has."""
    active = {index for slot, found in enumerate(equation.operands) if not op.is_constant(slot) for index in found}
    return tuple(index for index in indices if index not in active)
