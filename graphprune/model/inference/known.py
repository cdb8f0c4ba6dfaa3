# SPDX-License-Identifier: Apache-2.0
"""What is known of the values of a graph before it runs: shapes, types, and small constants."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphprune.array_types import Array

__all__ = ["Shapes"]


@dataclass
class Shapes:
    """What is known of every value for one set of input shapes.

    Attributes
    ----------
    dims : dict of str to tuple of int
        Static shape by value name; values without an entry are unknown.
    dtypes : dict of str to int
        `TensorProto` data type by value name.
    values : dict of str to ndarray
        Small values that depend on initializers and shapes only.
    constant : set of str
        All values that depend on initializers and shapes only, evaluated or not.
    derived : set of str
        The part of `constant` that is made of the shape of some value. Stored data that is moved about by computed
        sizes (`Expand`, `Slice`, ...) is none of it, nor stored data that is scaled by the size of a constant.
    open : set of str
        The part of `derived` that depends on the shape of an activation.
    refusal : str
        What inference objects to; empty where the graph is consistent as far as it can tell.
    """

    dims: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: dict[str, int] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)
    constant: set[str] = field(default_factory=set)
    derived: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)
    refusal: str = ""
