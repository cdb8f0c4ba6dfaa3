# SPDX-License-Identifier: Apache-2.0
"""How many processes take part in training, and whether fewer were started than were asked for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["lonely"]

_COUNTED = ("WORLD_SIZE", "LOCAL_RANK", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def lonely(environment: Mapping[str, str] = os.environ) -> str:
    """Return what to say where `accelerate launch` was to start several processes, and started one; else nothing.

    It names an address where processes meet if several are wanted. On processors, without MPI, it still starts one,
    which is not told how many there should be.
    """
    launched = "ACCELERATE_MIXED_PRECISION" in environment and "MASTER_ADDR" in environment
    if not launched or any(name in environment for name in _COUNTED):
        return ""
    return (
        "accelerate launch was to start several processes, but started only this one; on processors, "
        "accelerate launch --multi_gpu --num_processes 2 -m graphprune ... --device cpu starts two"
    )
