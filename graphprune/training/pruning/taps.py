# SPDX-License-Identifier: Apache-2.0
"""Taps: values inside a module that are looked at while it runs, as their reader gets them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx

from graphprune.labels.space import MultiplyAdds
from graphprune.training.bridge import Trainable
from graphprune.training.inner_values import Tap

__all__ = ["attach_taps", "reading"]


def attach_taps(net: Trainable, readers: Sequence[MultiplyAdds]) -> list[Tap | None]:
    """Look at the first input of some layers, behind its gates.

    Parameters
    ----------
    net : Trainable
        Changed in place; its outputs stay what they are.
    readers : sequence of MultiplyAdds

    Returns
    -------
    list of Tap or None
        For each layer; None where the module does not have it.
    """
    taps: list[Tap | None] = []
    for cost in readers:
        node = net.graph.producer.get(cost.node.outputs[0])
        source = net.values.get(cost.node.inputs[0])
        place = None if node is None or source is None else reading(net.made[node.index], source)
        if place is None:
            taps.append(None)
            continue
        reader, value = place
        name = f"tap_{len([item for item in net.module.children() if isinstance(item, Tap)])}"
        tap = Tap()
        net.module.add_submodule(name, tap)
        with net.module.graph.inserting_before(reader):
            reader.replace_input_with(value, net.module.graph.call_module(name, (value,)))
        taps.append(tap)
    net.module.recompile()
    return taps


def reading(made: Sequence[fx.Node], source: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """Return which of the nodes reads a value, and what it reads in its place (a gated value)."""
    for item in made:
        for read in item.all_input_nodes:
            origin: object = read
            while isinstance(origin, fx.Node):
                if origin is source:
                    return item, read
                origin = origin.meta.get("gate_of")
    return None
