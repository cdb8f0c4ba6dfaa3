# SPDX-License-Identifier: Apache-2.0
"""The networks of `peer_structures.py` made of convolutions and dense layers: joined, split, grouped or summed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as func
from torch import Tensor, nn

Network = tuple[str, Callable[[], nn.Module], tuple[tuple[int, ...], ...]]
IMAGE = (1, 3, 9, 9)


class Wired(nn.Module):
    """Named layers, and a function that calls them.

    Parameters
    ----------
    wire : callable
        Takes the module and its inputs.
    **layers : Module
    """

    def __init__(self, wire: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.wire = wire
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *inputs: Tensor) -> Any:
        """Call the function."""
        return self.wire(self, *inputs)


def conv(before: int, after: int, kernel: int = 3, groups: int = 1) -> nn.Conv2d:
    """Return a convolution that keeps the size of its map."""
    return nn.Conv2d(before, after, kernel, padding=kernel // 2, groups=groups)


def block(*widths: int) -> nn.Sequential:
    """Return 1x1 convolutions from width to width, each with BatchNormalization, GELU between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.GELU()] * bool(layers) + [nn.Conv2d(before, after, 1), nn.BatchNorm2d(after)]
    return nn.Sequential(*layers)


def joined_networks() -> Iterator[Network]:
    """Yield the name of each network, what makes it, and the shapes of its inputs."""
    yield from _joined()
    yield from _grouped()
    yield from _elementwise()


def _joined() -> Iterator[Network]:
    """Yield concatenations, splits and residual additions."""

    def cascade(net: Any, x: Tensor) -> Tensor:
        joined = torch.cat([torch.cat([net.a(x), net.b(x)], 1), net.c(x)], 1)
        return net.end(torch.cat([joined, net.d(x)], 1))

    parts = {"a": block(10, 10, 10), "b": block(10, 20, 20), "c": block(10, 30), "d": block(10, 60)}
    yield "cat_of_cats", lambda: Wired(cascade, **parts, end=conv(120, 10, 1)), ((1, 10, 7, 7),)

    def wide(net: Any, x: Tensor) -> Tensor:
        return torch.sigmoid(net.end(torch.cat([net.wide(x), net.deep(x)], -1)))

    deep = nn.Sequential(
        nn.Linear(32, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 4)
    )
    yield "wide_and_deep", lambda: Wired(wide, wide=nn.Linear(32, 3), deep=deep, end=nn.Linear(7, 1)), ((1, 32),)

    def crossed(net: Any, x: Tensor) -> Tensor:
        first, second = torch.split(net.a(x), (10, 10), 1)
        return net.end(net.c(torch.cat([first, net.b(x)], 1)) + second)

    crossing = {"a": block(10, 10, 20), "b": block(10, 10, 10), "c": block(20, 10), "end": conv(10, 5, 1)}
    yield "split_joined_with_another", lambda: Wired(crossed, **crossing), ((1, 10, 7, 7),)
    bare = {**crossing, "end": nn.Identity()}
    yield "split_joined_with_another_at_the_end", lambda: Wired(crossed, **bare), ((1, 10, 7, 7),)

    def side_by_side(net: Any, x: Tensor) -> Tensor:
        left, _ = torch.split(net.c(torch.cat([net.a(x), net.b(x)], 2)), [7, 7], 2)
        return net.d(left)

    yield (
        "cat_along_space",
        lambda: Wired(side_by_side, a=block(16, 32, 32), b=block(16, 32, 32), c=conv(32, 24, 1), d=conv(24, 8, 1)),
        ((1, 16, 7, 7),),
    )

    def three(net: Any, x: Tensor) -> tuple[Tensor, ...]:
        one, two, rest = torch.split(net.a(x), [8, 8, 16], 1)
        return net.b(one), net.b(two), net.c(rest)

    yield "split_in_three", lambda: Wired(three, a=block(8, 16, 32), b=block(8, 8), c=block(16, 8)), ((1, 8, 7, 7),)

    def residual(net: Any, x: Tensor) -> Tensor:
        first = net.a(x)
        return net.c(net.b(first)) + first

    yield "residual_at_the_end", lambda: Wired(residual, a=conv(3, 16), b=conv(16, 8), c=conv(8, 16)), (IMAGE,)

    def dense(net: Any, x: Tensor) -> Tensor:
        hidden = torch.relu(net.a(x))
        return net.c(torch.relu(net.b(hidden)) + hidden)

    yield (
        "residual_linear",
        lambda: Wired(dense, a=nn.Linear(24, 32), b=nn.Linear(32, 32), c=nn.Linear(32, 5)),
        ((1, 24),),
    )
    yield (
        "cat_then_linear",
        lambda: Wired(
            lambda net, x: net.d(net.c(torch.cat([net.a(x), net.b(x)], 1)).flatten(1)),
            a=conv(3, 8),
            b=conv(3, 8),
            c=conv(16, 32),
            d=nn.Linear(32 * 81, 10),
        ),
        (IMAGE,),
    )
    for name, pad in (("cat_plus_conv", 0), ("cat_plus_conv_padded", 1)):
        yield (
            name,
            lambda pad=pad: Wired(
                lambda net, x: net.d(func.pad(torch.cat([net.a(x), net.b(x)], 1) + net.c(x), (pad,) * 4)),
                a=conv(3, 8),
                b=conv(3, 8),
                c=conv(3, 16),
                d=conv(16, 32),
            ),
            (IMAGE,),
        )

    def again(net: Any, x: Tensor) -> Tensor:
        y = net.a(x)
        return net.b(torch.cat([torch.relu(y)] * 4, 1))

    yield "cat_of_one_value", lambda: Wired(again, a=conv(3, 16), b=conv(64, 32)), (IMAGE,)
    yield (
        "sum_of_one_value",
        lambda: Wired(lambda net, x: (lambda y: net.b(y + y + y))(net.a(x)), a=conv(3, 16), b=conv(16, 32)),
        (IMAGE,),
    )

    def overlapping(net: Any, x: Tensor) -> tuple[Tensor, ...]:
        y = torch.relu(net.a(x))
        first, second, third = net.b(y), net.c(y), net.d(y)
        return net.e(torch.cat([first, second], 1)), net.f(torch.cat([second, third], 1))

    yield (
        "cats_that_overlap",
        lambda: Wired(
            overlapping,
            a=conv(3, 8),
            b=conv(8, 16),
            c=conv(8, 16, groups=4),
            d=conv(8, 16),
            e=conv(32, 24),
            f=conv(32, 24),
        ),
        (IMAGE,),
    )

    def stages(net: Any, x: Tensor) -> Tensor:
        parts = torch.split(net.a(x), 16, 1)
        first = net.b(parts[0])
        second = net.c(first + parts[1])
        return net.e(torch.cat([first, second, net.d(second + parts[2]), parts[3]], 1))

    yield (
        "res2net",
        lambda: Wired(
            stages, a=conv(3, 64, 1), b=conv(16, 16, 1, 8), c=conv(16, 16, 1, 2), d=conv(16, 16, 1), e=conv(64, 24, 1)
        ),
        (IMAGE,),
    )
    for name, axis in (("linear_cat", 1), ("linear_cat_of_samples", 0)):
        width = 32 if axis else 16
        yield (
            name,
            lambda axis=axis, width=width: Wired(
                lambda net, x: net.c(torch.cat([net.a(x), net.b(x)], axis)),
                a=nn.Linear(8, 16),
                b=nn.Linear(8, 16),
                c=nn.Linear(width, 32),
            ),
            ((2, 8),),
        )

    def lines(net: Any, x: Tensor) -> tuple[Tensor, ...]:
        left, right = torch.split(net.a(x), (2, 6), 2)
        return net.b(left), net.c(right)

    yield "linear_split", lambda: Wired(lines, a=nn.Linear(8, 8), b=nn.Linear(2, 32), c=nn.Linear(6, 32)), ((1, 4, 8),)


def _grouped() -> Iterator[Network]:
    """Yield grouped convolutions, alone and where they meet others."""
    yield "grouped", lambda: nn.Sequential(conv(3, 16), conv(16, 32, groups=8), conv(32, 32)), (IMAGE,)
    yield (
        "grouped_behind_cat",
        lambda: Wired(
            lambda net, x: net.c(torch.cat([net.a(x), net.b(x)], 1)),
            a=conv(3, 16),
            b=conv(3, 32),
            c=conv(48, 64, groups=4),
        ),
        (IMAGE,),
    )
    yield (
        "grouped_behind_cat_of_samples",
        lambda: Wired(
            lambda net, x: net.c(torch.cat([net.a(x), net.b(x)], 0)),
            a=conv(3, 16, 1),
            b=conv(3, 16, 1),
            c=conv(16, 32, 1, 4),
        ),
        ((1, 3, 3, 3),),
    )

    def two(net: Any, x: Tensor) -> tuple[Tensor, ...]:
        y = net.a(x)
        return net.b(y), net.c(y)

    yield (
        "two_group_counts",
        lambda: Wired(two, a=conv(3, 16), b=conv(16, 32, groups=4), c=conv(16, 32, groups=8)),
        (IMAGE,),
    )

    def added(net: Any, x: Tensor) -> Tensor:
        y = net.a(x)
        return net.f(torch.cat([net.b(y) + net.c(y), net.e(net.d(x))], 1))

    yield (
        "grouped_sums_joined",
        lambda: Wired(
            added,
            a=conv(3, 16),
            b=conv(16, 32, groups=2),
            c=conv(16, 32, groups=4),
            d=conv(3, 16),
            e=conv(16, 32, groups=8),
            f=conv(64, 24),
        ),
        (IMAGE,),
    )

    def halves(net: Any, x: Tensor) -> tuple[Tensor, ...]:
        left, right = torch.split(net.a(x), 16, 1)
        return net.d(net.b(x) + left), net.e(right + net.c(x))

    yield (
        "split_to_groups",
        lambda: Wired(
            halves, a=conv(3, 32), b=conv(3, 16), c=conv(3, 16), d=conv(16, 32, groups=2), e=conv(16, 32, groups=4)
        ),
        (IMAGE,),
    )

    def shared(net: Any, x: Tensor) -> tuple[Tensor, ...]:
        left, right = net.a(x), net.b(x)
        return net.d(left + right), net.e(right)

    yield (
        "sum_of_group_counts",
        lambda: Wired(
            shared, a=conv(16, 16, groups=2), b=conv(16, 16, groups=4), d=conv(16, 32, groups=8), e=conv(16, 16)
        ),
        ((2, 16, 9, 9),),
    )

    def split_sum(net: Any, x: Tensor) -> tuple[Tensor, ...]:
        y = net.a(x)
        left, right = torch.split(net.b(y) + net.c(y), 16, 1)
        return net.d(left), net.e(right)

    yield (
        "split_sum_of_group_counts",
        lambda: Wired(
            split_sum,
            a=conv(3, 16),
            b=conv(16, 32, groups=2),
            c=conv(16, 32, groups=8),
            d=conv(16, 32, groups=4),
            e=conv(16, 32),
        ),
        (IMAGE,),
    )

    def cat_split(net: Any, x: Tensor) -> tuple[Tensor, ...]:
        left, right = torch.split(torch.cat([net.a(x), net.b(x)], 1), 8, 1)
        return net.c(left), net.d(right)

    yield (
        "cat_split_to_groups",
        lambda: Wired(cat_split, a=conv(3, 8), b=conv(3, 8), c=conv(8, 32, groups=2), d=conv(8, 32, groups=4)),
        (IMAGE,),
    )

    def inverted(net: Any, x: Tensor) -> Tensor:
        y = net.a(x)
        return y + net.e(net.d(net.c(net.b(y))))

    yield (
        "inverted_residual",
        lambda: Wired(
            inverted, a=conv(3, 8, 1), b=conv(8, 16, 1), c=conv(16, 16, 3, 16), d=conv(16, 8, 1), e=nn.BatchNorm2d(8)
        ),
        (IMAGE,),
    )

    def chunks(net: Any, x: Tensor) -> Tensor:
        left, right = net.a(x).chunk(2, 1)
        return net.e(torch.cat([left, net.d(net.c(net.b(right)))], 1))

    yield (
        "shuffle_unit",
        lambda: Wired(
            chunks, a=conv(3, 16, 1), b=conv(8, 8, 1), c=conv(8, 8, 1, 8), d=conv(8, 8, 1), e=conv(16, 32, 1)
        ),
        (IMAGE,),
    )


def _elementwise() -> Iterator[Network]:
    """Yield grouped convolutions that meet dense ones in an elementwise operator."""
    for operator in (torch.add, torch.sub, torch.mul, torch.div):
        name = operator.__name__

        def plain(net: Any, x: Tensor, operator: Any = operator) -> Tensor:
            x = net.first(x)
            return net.c(operator(net.a(x), net.b(x)))

        def split(net: Any, x: Tensor, operator: Any = operator) -> Tensor:
            left, right = torch.split(net.a(x), 16, 1)
            return net.c(operator(net.b(left), right))

        for first, known in ((nn.Identity(), "of_input"), (conv(16, 16, 1), "of_conv")):
            yield (
                f"{name}_{known}",
                lambda plain=plain, first=first: Wired(
                    plain, first=first, a=conv(16, 16, 1, 8), b=conv(16, 16, 1), c=conv(16, 16, 1, 4)
                ),
                ((16, 16, 9, 9),),
            )
        yield (
            f"{name}_of_split",
            lambda split=split: Wired(split, a=conv(3, 32, 1), b=conv(16, 16, 1, 8), c=conv(16, 16, 1, 2)),
            (IMAGE,),
        )
