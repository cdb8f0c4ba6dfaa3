# SPDX-License-Identifier: Apache-2.0
"""`Gemm` and `MatMul`: matrix products with a weight, or of two activations."""

from __future__ import annotations

from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.rules.elementwise import broadcast, keep_where_spread, tail
from graphprune.labels.space import Axes, Role
from graphprune.labels.vector import Labels, stay

_MATRIX = 2


@rule("Gemm")
def gemm(op: Operator) -> None:
    """Y = alpha A' B' + beta C: the inner axes are contracted, the outer ones become those of Y."""
    a_rows, a_inner = (1, 0) if op.node.attribute("transA", 0) else (0, 1)
    b_inner, b_columns = (1, 0) if op.node.attribute("transB", 0) else (0, 1)
    a_roles: list[Role] = ["in", "in"]
    a_roles[a_rows] = "out"
    b_roles: list[Role] = ["in", "in"]
    b_roles[b_columns] = "out"
    a, b = op.operand(0, a_roles), op.operand(1, b_roles)
    _contract(op, a, b, a_inner, b_inner)
    y = (a[a_rows], b[b_columns])
    if op.has(2):
        op.tie(2, tail(y, op.shape(2)))
        if not op.is_constant(2):
            keep_where_spread(op, 2, y)
    op.cost((y[0],), a[a_inner], y[1])
    op.set(0, y)


@rule("MatMul")
def matmul(op: Operator) -> None:
    """As numpy's matmul: the last axis of A is contracted with the last but one of B, leading axes broadcast."""
    multiply(op, transposed=(False, False))


def multiply(op: Operator, *, transposed: tuple[bool, bool]) -> None:
    """State what holds for a `MatMul` of which an operand may be transposed in its last two axes."""
    rank_a, rank_b = len(op.shape(0)), len(op.shape(1))
    turn_a, turn_b = transposed[0] and rank_a > 1, transposed[1] and rank_b > 1
    a = op.operand(0, _roles(rank_a, "in", "out") if turn_a else _roles(rank_a, "out", "in"))
    b = op.operand(1, _roles(rank_b, "out", "in") if turn_b else _roles(rank_b, "in", "out"))
    _contract(op, a, b, rank_a - 2 if turn_a else rank_a - 1, rank_b - 1 if turn_b else max(rank_b - 2, 0))
    a = (*a[:-2], a[-1], a[-2]) if turn_a else a
    b = (*b[:-2], b[-1], b[-2]) if turn_b else b
    size = len(op.out_shape()) - (rank_a > 1) - (rank_b > 1)
    batch = broadcast(op, [a[:-2] if rank_a > 1 else (), b[:-2] if rank_b > 1 else ()], op.out_shape()[:size])
    for slot, rank in enumerate((rank_a, rank_b)):
        if rank > _MATRIX and not op.is_constant(slot):
            keep_where_spread(op, slot, (*batch, stay(1), stay(1)))
    if not (op.is_constant(0) or op.is_constant(1)):
        op.space.batch.extend(axis.base for axis in batch if axis.live)
    y = (*batch, *((a[-2],) if rank_a > 1 else ()), *((b[-1],) if rank_b > 1 else ()))
    op.cost(y[:-1], a[-1], y[-1] if y else stay(1))
    op.set(0, y)


def _roles(rank: int, rows: Role, columns: Role) -> list[Role]:
    """Roles of the axes of a `MatMul` operand; a vector has its inner axis only."""
    if rank == 1:
        return ["in"]
    batch: list[Role] = ["per_channel"] * (rank - 2)
    return [*batch, rows, columns]


def _contract(op: Operator, a: Axes, b: Axes, a_inner: int, b_inner: int) -> None:
    """Unite and contract the inner axes; for two activations remember them as head dimensions."""
    inner: Labels = a[a_inner]
    op.unite(inner, b[b_inner])
    op.contract(0, a_inner)
    op.contract(1, b_inner)
    if not (op.is_constant(0) or op.is_constant(1)):
        op.space.contracted.append(inner.base)
