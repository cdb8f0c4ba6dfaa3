# SPDX-License-Identifier: Apache-2.0
"""Kernel blocks: grouped convolutions whose groups are whole blocks of a kernel, and stay so.

onnxruntime runs a grouped convolution in blocks where each of its groups has a multiple of a block of channels, on both
sides, and falls back to much slower code where one has not: with AVX2, where a block has 8 channels, a RegNetY-400MF
whose groups of 8 had become narrower took 0.67 of its time at half of its FLOPs, and 0.57 with these groups whole.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.analysis.groups import Group, Member
    from graphprune.array_types import Ints

__all__ = ["kernel_steps"]


def kernel_steps(analysis: Analysis, block: int) -> Ints:
    """Return the number of atoms in multiples of which each coupled group keeps kernels in blocks, shape (groups,).

    It is 1 where no convolution of several groups runs in blocks anyway, or where such groups go as a whole.

    Parameters
    ----------
    analysis : Analysis
    block : int
        Channels of a block; with 1 every width is in blocks.
    """
    if block == 1:
        return np.ones(len(analysis.groups), dtype=np.int64)
    convolutions = {
        node.inputs[1]: int(node.attribute("group", 1))
        for node in analysis.graph.nodes
        if node.op_type == "Conv" and node.attribute("group", 1) > 1
    }
    steps = np.ones(len(analysis.groups), dtype=np.int64)
    for number, group in enumerate(analysis.groups if convolutions else ()):
        for member in group.members:
            if member.initializer in convolutions and member.axis < 2:
                shape = analysis.read(member.initializer).shape
                step = _step(group, member, shape, convolutions[member.initializer], block)
                steps[number] = math.lcm(int(steps[number]), step)
    return steps


def _step(group: Group, member: Member, shape: tuple[int, ...], parts: int, block: int) -> int:
    """Return the step that one axis of a convolution's weight asks for."""
    each_reads_and_makes = shape[1], shape[0] // parts
    if any(width % block for width in each_reads_and_makes) or len(member.positions) != shape[member.axis]:
        return 1
    width = each_reads_and_makes[1 - member.axis]
    atoms = member.atoms.reshape(parts, width) if member.axis == 0 else member.atoms[None]
    each = np.sort(atoms, axis=1)
    if (each != each[0]).any() or width % group.size:  # groups of the convolution go as a whole
        return 1
    return block // math.gcd(block, width // group.size)
