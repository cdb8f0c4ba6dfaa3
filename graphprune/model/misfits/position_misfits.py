# SPDX-License-Identifier: Apache-2.0
"""Positions that an axis does not have, and lists that are not as long as what they are for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Final

from graphprune.model.misfits.reads import Dims, Reads, Rule, first_of

__all__ = ["POSITION_RULES"]


def _gathered(reads: Reads) -> str | None:
    dims, axis, values = reads.dims(0), reads.axis(0), reads.numbers(1)
    if dims is None or axis is None or values is None:
        return None
    return reads.in_range(1, values, dims[axis], axis)


def _gathered_elements(reads: Reads) -> str | None:
    dims, axis, values = reads.dims(0), reads.axis(0), reads.numbers(1)
    if dims is None or axis is None:
        return None
    return first_of(_within(reads, dims, but=axis), reads.in_range(1, values or (), dims[axis], axis))


def _scattered_elements(reads: Reads) -> str | None:
    places = reads.dims(1)
    return first_of(None if places is None else reads.has_shape(2, places), _gathered_elements(reads))


def _within(reads: Reads, dims: Dims, but: int) -> str | None:
    """Object to positions for more places than data has along the other axes."""
    places = reads.dims(1)
    if places is None:
        return None
    if len(places) != len(dims):
        return reads.objection(1, f"has {len(places)} axes, but input 0 has {len(dims)}")
    for axis, (size, other) in enumerate(zip(places, dims, strict=True)):
        if axis != but and size > other:
            return reads.objection(1, f"has the shape {list(places)}, but axis {axis} of input 0 has {other}")
    return None


def _gathered_slices(reads: Reads) -> str | None:
    return _slices(reads, int(reads.node.attribute("batch_dims", 0)))


def _scattered_slices(reads: Reads) -> str | None:
    dims, places = reads.dims(0), reads.dims(1)
    if dims is None or not places:
        return None
    wanted = (*places[:-1], *dims[places[-1] :])
    return first_of(_slices(reads, 0), reads.has_shape(2, wanted))


def _slices(reads: Reads, batch: int) -> str | None:
    """Hold lists of positions, one for each leading axis, against these axes."""
    dims, places, values = reads.dims(0), reads.dims(1), reads.numbers(1)
    if dims is None or not places:
        return None
    named = places[-1]
    if not 0 < named <= len(dims) - batch:
        return reads.objection(1, f"names {named} axes, but input 0 has {len(dims) - batch}")
    columns = ((values or ())[at::named] for at in range(named))
    return first_of(*(reads.in_range(1, column, dims[batch + at], batch + at) for at, column in enumerate(columns)))


def _cumulated(reads: Reads) -> str | None:
    dims, axes = reads.dims(0), reads.numbers(1)
    beyond = [axis for axis in axes or () if dims is not None and not -len(dims) <= axis < len(dims)]
    return reads.objection(1, f"is axis {beyond[0]}, but input 0 has {len(dims or ())} axes") if beyond else None


def _resized(reads: Reads) -> str | None:
    scales, sizes = (1, 2) if len(reads.node.inputs) < 3 and reads.opset < 11 else (2, 3)
    dims = reads.dims(0)
    if dims is None or (reads.node.op_type == "Upsample" and len(reads.node.inputs) < 2):
        return None
    axes: Sequence[int] = reads.node.attribute("axes", range(len(dims)))
    if reads.node.op_type == "Upsample":
        scales = 1
    for slot in (scales, sizes):
        numbers = reads.numbers(slot)
        if not numbers:
            continue
        if len(numbers) != len(axes):
            return reads.objection(slot, f"has {len(numbers)} numbers, but {len(axes)} axes are resized")
        if min(numbers) <= 0:
            return reads.objection(slot, f"asks for {min(numbers)} of axis {axes[numbers.index(min(numbers))]}")
    return None


def _reflected(reads: Reads) -> str | None:
    """Object to more in front of or behind an axis than there is of it to be mirrored."""
    dims, amounts, axes = reads.dims(0), reads.numbers(1), reads.numbers(3)
    if dims is None or amounts is None or reads.node.attribute("mode", "constant") != "reflect":
        return None
    padded = [axis % len(dims) for axis in axes] if axes else list(range(len(dims)))
    for at, amount in enumerate(amounts):
        axis = padded[at % len(padded)]
        if amount > max(dims[axis] - 1, 0):
            return reads.objection(1, f"asks for {amount} at axis {axis} of input 0, of which {dims[axis]} are there")
    return None


def _rearranged(reads: Reads) -> str | None:
    dims, block = reads.dims(0), int(reads.node.attribute("blocksize", 1))
    if dims is None or len(dims) != 4 or block < 1:
        return None
    apart = [axis for axis in (2, 3) if dims[axis] % block]
    what = f"has the shape {list(dims)}, but blocksize {block} does not divide axis"
    return reads.objection(0, f"{what} {apart[0]}") if apart else None


def _summed(reads: Reads) -> str | None:
    """Hold the operands of an `Einsum` against its letters, and against one another."""
    terms = str(reads.node.attribute("equation", "")).replace(" ", "").partition("->")[0].split(",")
    if len(terms) != len(reads.node.inputs) or any("." in term for term in terms):
        return None
    sizes: dict[str, int] = {}
    for slot, letters in enumerate(terms):
        dims = reads.dims(slot)
        if dims is None:
            continue
        if len(dims) != len(letters):
            return reads.objection(slot, f"has {len(dims)} axes, but {letters!r} names {len(letters)}")
        for letter, size in zip(letters, dims, strict=True):
            if size != 1 and sizes.setdefault(letter, size) != size:
                return reads.objection(slot, f"has {size} of {letter!r}, of which another has {sizes[letter]}")
    return None


def _one_number(slot: int) -> Rule:
    def rule(reads: Reads) -> str | None:
        dims = reads.dims(slot)
        if dims is None or (len(dims) < 2 and prod(dims) == 1):
            return None
        return reads.objection(slot, f"has the shape {list(dims)}, but must be one number")

    return rule


POSITION_RULES: Final[Mapping[tuple[str, str], Rule]] = {
    ("", "CumSum"): _cumulated,
    ("", "Einsum"): _summed,
    ("", "Gather"): _gathered,
    ("", "GatherElements"): _gathered_elements,
    ("", "GatherND"): _gathered_slices,
    ("", "Pad"): _reflected,
    ("", "Resize"): _resized,
    ("", "Scatter"): _scattered_elements,
    ("", "ScatterElements"): _scattered_elements,
    ("", "ScatterND"): _scattered_slices,
    ("", "SpaceToDepth"): _rearranged,
    ("", "Trilu"): _one_number(1),
    ("", "Upsample"): _resized,
}
