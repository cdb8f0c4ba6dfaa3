# SPDX-License-Identifier: Apache-2.0
"""The networks of `peer_structures.py` with other layers: reshapes, attention, recurrent ones, and whole networks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from peer_structures_models import IMAGE, Network, Wired, conv
from torch import Tensor, nn
from torchvision import models

TORCHVISION = (
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_v2_s", "googlenet", "inception_v3", "mnasnet0_5"),
    *("mobilenet_v3_small", "regnet_y_400mf", "resnet50", "resnext50_32x4d", "squeezenet1_1", "swin_t", "vit_b_32"),
)
OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
    "vit_b_32": {"image_size": 64},
}
"""Arguments of the torchvision constructors beside ``weights=None``."""
SIDES = {"alexnet": 224, "inception_v3": 128}
"""Sides of images where they are not 64."""
HEADS, SIZE = 3, 64
WIDTH = HEADS * SIZE


def layer_networks() -> Iterator[Network]:
    """Yield the name of each network, what makes it, and the shapes of its inputs."""
    yield from _reshaped()
    yield from _attention()
    yield from _recurrent()
    yield from _ends()
    for name in TORCHVISION:
        side = SIDES.get(name, 64)
        make = partial(models.get_model, name, weights=None, **OPTIONS.get(name, {}))
        yield f"torchvision_{name}", make, ((1, 3, side, side),)


class Scaled(nn.Module):
    """Vectors of length 1, scaled and shifted, then mixed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.rand(width) + 0.5), nn.Parameter(torch.randn(width))
        self.mix = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Any:
        """Normalise, scale, shift and mix."""
        return self.mix(x / x.pow(2).sum(1, keepdim=True).sqrt() * self.scale + self.shift)


def _reshaped() -> Iterator[Network]:
    """Yield networks that move channels to other axes."""
    yield (
        "flatten",
        lambda: nn.Sequential(conv(3, 16), conv(16, 32), nn.Flatten(), nn.Linear(2592, 24), nn.Linear(24, 5)),
        (IMAGE,),
    )
    features = nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)
    )
    dense = nn.Sequential(nn.Linear(256, 60), nn.ReLU(), nn.Linear(60, 40), nn.ReLU(), nn.Linear(40, 10))
    yield "lenet", lambda: nn.Sequential(features, nn.Flatten(), dense), ((1, 1, 28, 28),)

    def decode(net: Any, x: Tensor) -> Tensor:
        y = torch.relu(net.a(x)).reshape(-1, 32, 4, 4)
        return net.d(torch.relu(net.c(torch.relu(net.b(y)))).flatten(1))

    yield (
        "reshape_to_transposed_convolutions",
        lambda: Wired(
            decode,
            a=nn.Linear(64, 512),
            b=nn.ConvTranspose2d(32, 16, 4, 2, 1),
            c=nn.ConvTranspose2d(16, 8, 4, 2, 1),
            d=nn.Linear(2048, 10),
        ),
        ((1, 64),),
    )
    yield "pixel_shuffle", lambda: nn.Sequential(conv(3, 16), nn.PixelShuffle(2), conv(4, 4)), (IMAGE,)

    def shuffle(net: Any, x: Tensor) -> Tensor:
        y = net.a(x)
        batch, channels, height, width = y.shape
        mixed = y.reshape(batch, 2, channels // 2, height, width).transpose(1, 2)
        return net.b(mixed.reshape(batch, -1, height, width))

    for name, side in (("channel_shuffle", 9), ("channel_shuffle_small", 6)):
        yield name, lambda: Wired(shuffle, a=conv(3, 16), b=conv(16, 32)), ((1, 3, side, side),)
    yield "prelu_per_channel", lambda: nn.Sequential(conv(3, 16, 1), nn.PReLU(16), conv(16, 32, 1)), (IMAGE,)
    yield "linear_on_three_axes", lambda: nn.Sequential(nn.Linear(8, 32), nn.Linear(32, 32)), ((16, 16, 8),)
    yield (
        "linear_in_two_rows",
        lambda: Wired(
            lambda net, x: net.b(net.a(x).reshape(1, 2, 16).transpose(1, 2)), a=nn.Linear(16, 32), b=nn.Linear(2, 64)
        ),
        ((1, 16),),
    )

    for name, unused in (("own_layer", False), ("own_layer_and_a_weight_that_nobody_reads", True)):

        def make(unused: bool = unused) -> nn.Module:
            network = nn.Sequential(nn.Linear(24, 32), nn.ReLU(), Scaled(32), nn.Linear(32, 10))
            if unused:
                network.register_parameter("unused", nn.Parameter(torch.randn(10)))
            return network

        yield name, make, ((1, 24),)


def _split_heads(x: Tensor) -> Tensor:
    return x.reshape(1, x.shape[1], HEADS, SIZE).permute(0, 2, 1, 3)


def _attend(net: Any, x: Tensor) -> Tensor:
    """Attend with a residual connection, as a network without a classifier ends."""
    q, k, v = _split_heads(net.q(x)), _split_heads(net.k(x)), _split_heads(net.v(x))
    mixed = (torch.softmax(q @ k.transpose(-1, -2), -1) @ v).permute(0, 2, 1, 3)
    return x + net.o(mixed.reshape(mixed.shape[1], WIDTH)).reshape(1, mixed.shape[1], WIDTH)


def _tokens(net: Any, x: Tensor) -> Tensor:
    """Return the patches of an image behind a constant token."""
    patches = net.p(x).flatten(2).transpose(-1, -2)
    return torch.cat((torch.ones(1, 1, WIDTH), patches), 1)


def _attention() -> Iterator[Network]:
    """Yield parts of transformers."""

    def layers() -> dict[str, nn.Module]:
        return {name: nn.Linear(WIDTH, WIDTH) for name in "qkvo"}

    def scores(net: Any, x: Tensor) -> Tensor:
        x = _tokens(net, x)
        return net.end(_split_heads(net.q(x)) @ _split_heads(net.k(x)).transpose(-1, -2))

    yield (
        "heads_by_reshape",
        lambda: Wired(
            lambda net, x: net.b(net.a(x).reshape(1, x.shape[0], HEADS, SIZE)),
            a=nn.Linear(WIDTH, WIDTH),
            b=nn.Linear(SIZE, SIZE),
        ),
        ((197, WIDTH),),
    )
    yield (
        "scores_of_patches",
        lambda: Wired(
            scores,
            p=nn.Conv2d(3, WIDTH, 16, 16),
            q=nn.Linear(WIDTH, WIDTH),
            k=nn.Linear(WIDTH, WIDTH),
            end=nn.Linear(17, 17),
        ),
        ((1, 3, 64, 64),),
    )
    yield "attention_without_classifier", lambda: Wired(_attend, **layers()), ((1, 197, WIDTH),)
    yield (
        "attention_of_patches_without_classifier",
        lambda: Wired(lambda net, x: _attend(net, _tokens(net, x)), p=nn.Conv2d(3, WIDTH, 16, 16), **layers()),
        ((1, 3, 64, 64),),
    )


def _recurrent() -> Iterator[Network]:
    """Yield recurrent layers before a classifier; those with projections are in `peer_structures_projected.py`."""
    for cell in (nn.RNN, nn.GRU, nn.LSTM):
        for count, both_ways, bias in (
            *((layers, ways, bias) for layers in (1, 2) for ways in (False, True) for bias in (True, False)),
            (4, True, True),
        ):

            def make(cell: Any = cell, count: int = count, both_ways: bool = both_ways, bias: bool = bias) -> nn.Module:
                layer = cell(16, 32, num_layers=count, bidirectional=both_ways, bias=bias)
                return Wired(
                    lambda net, x: net.end(net.layer(x)[0]), layer=layer, end=nn.Linear(64 if both_ways else 32, 64)
                )

            name = f"{cell.__name__.lower()}_{count}{'_both_ways' * both_ways}{'_no_bias' * (not bias)}"
            yield name, make, ((3, 3, 16),)
    for first in (False, True):

        def make_ordered(first: bool = first) -> nn.Module:
            layer = nn.LSTM(16, 32, num_layers=2, batch_first=first, bidirectional=True)
            return Wired(lambda net, x: net.end(net.layer(x)[0]), layer=layer, end=nn.Linear(64, 64))

        yield f"lstm_{'samples' if first else 'steps'}_first", make_ordered, ((3, 3, 16),)

    def columns(net: Any, x: Tensor) -> Tensor:
        batch, _, features, steps = x.shape
        y = net.b(net.a(x.permute(3, 0, 1, 2).reshape(-1, features)))
        return net.c(y.reshape(steps, batch, 104))[0]

    yield (
        "normalised_columns_to_lstm",
        lambda: Wired(columns, a=nn.Linear(205, 104, bias=False), b=nn.BatchNorm1d(104), c=nn.LSTM(104, 64, 3)),
        ((2, 1, 205, 6),),
    )


def _ends() -> Iterator[Network]:
    """Yield networks in which much belongs to the outputs."""

    def two_inputs(net: Any, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        left, right = torch.relu(net.a(x)), torch.relu(net.b(y))
        return left, right, torch.relu(net.c(torch.cat([left, right], 1)))

    yield (
        "every_layer_is_an_output",
        lambda: Wired(two_inputs, a=nn.Linear(128, 64), b=nn.Linear(64, 64), c=nn.Linear(128, 100)),
        ((1, 128), (1, 64)),
    )
    yield (
        "one_channel_at_the_end",
        lambda: nn.Sequential(
            conv(3, 16),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 64, 2, 2),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            conv(64, 1),
        ),
        ((1, 3, 64, 64),),
    )
    yield (
        "flatten_at_the_end",
        lambda: nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        ),
        ((1, 3, 16, 16),),
    )

    def several(net: Any, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        y = net.a(x)
        return net.b(y), [net.c(y), net.d(y)]

    yield (
        "list_of_outputs",
        lambda: Wired(several, a=nn.Linear(8, 8), b=nn.Linear(8, 16), c=nn.Linear(8, 32), d=nn.Linear(8, 64)),
        ((1, 8),),
    )
    yield "one_layer", lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 6, 1)), ((1, 3, 5, 5),)
