# SPDX-License-Identifier: Apache-2.0
"""Widths that a group may take: aligned, ascending, with the full size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphprune.errors import InternalError, UsageError
from graphprune.solvers.moves import levels as module
from graphprune.solvers.moves.levels import RULES, levels, machine_rule, rule_for


@given(
    size=st.integers(1, 600),
    channels=st.integers(1, 80),
    round_to=st.one_of(st.just("auto"), st.integers(1, 64)),
    data=st.data(),
    relaxed=st.booleans(),
)
def test_levels_ascend_from_the_minimum_to_the_size(size, channels, round_to, data, relaxed):
    minimum = data.draw(st.integers(1, size))
    allowed = levels(size, channels, round_to, minimum=minimum, relaxed=relaxed)
    assert allowed.dtype == np.int64
    assert (np.diff(allowed) > 0).all()
    assert allowed[0] >= minimum
    assert allowed[-1] == size


@given(size=st.integers(1, 600), channels=st.integers(1, 80), round_to=st.integers(1, 64))
def test_a_number_allows_exactly_its_multiples_and_the_full_size(size, channels, round_to):
    expected = [n for n in range(1, size + 1) if n * channels % round_to == 0 or n == size]
    assert levels(size, channels, round_to).tolist() == expected


@given(size=st.integers(1, 600), channels=st.integers(1, 80))
def test_automatic_widths_below_the_full_size_are_multiples_of_four_channels(size, channels):
    allowed = levels(size, channels, "auto")
    if size * channels >= 4:
        assert not (allowed[:-1] * channels % 4).any()
    else:
        assert allowed.tolist() == list(range(1, size + 1))


@given(size=st.integers(1, 600), channels=st.integers(1, 80), step=st.integers(1, 20))
def test_a_step_leaves_its_multiples_and_the_full_size(size, channels, step):
    expected = [n for n in levels(size, channels, "auto").tolist() if n % step == 0 or n == size]
    assert levels(size, channels, "auto", step=step).tolist() == expected


@given(size=st.integers(1, 600), channels=st.integers(1, 80))
def test_relaxing_adds_every_width_below_the_narrowest(size, channels):
    aligned = levels(size, channels, "auto").tolist()
    assert levels(size, channels, "auto", relaxed=True).tolist() == [*range(1, aligned[0]), *aligned]


@given(size=st.integers(1, 600), channels=st.integers(1, 80), round_to=st.integers(1, 64))
def test_a_number_is_never_relaxed(size, channels, round_to):
    relaxed = levels(size, channels, round_to, relaxed=True)
    assert relaxed.tolist() == levels(size, channels, round_to).tolist()


@pytest.mark.parametrize(
    ("size", "channels", "round_to", "expected"),
    [
        (1, 1, "avx512", [1]),
        (3, 1, "avx512", [1, 2, 3]),
        (4, 1, "avx512", [4]),
        (6, 1, "avx512", [4, 6]),
        (24, 1, "avx512", [4, 8, 12, 16, 20, 24]),
        (32, 1, "avx512", [4, 8, 16, 24, 32]),
        (63, 1, "avx512", [4, 8, 16, 24, 32, 40, 48, 56, 63]),
        (64, 1, "avx512", [4, 8, 16, 32, 48, 64]),
        (128, 1, "avx512", [4, 8, 16, 32, 48, 64, 80, 96, 112, 128]),
        (12, 64, "avx512", list(range(1, 13))),  # attention heads of 64 channels: any number is aligned
        (8, 24, "avx512", [1, 2, 4, 6, 8]),  # 24 channels are a multiple of 8, 48 of 16
        (32, 4, "avx512", [1, 2, 4, 8, 12, 16, 20, 24, 28, 32]),
        (64, 1, "avx2", [4, 8, 16, 24, 32, 40, 48, 56, 64]),
        (24, 1, "cuda", [4, 8, 16, 24]),
        (5, 1, 16, [5]),
        (40, 1, 16, [16, 32, 40]),
        (6, 4, 8, [2, 4, 6]),
        (6, 1, 1, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_examples(size, channels, round_to, expected):
    assert levels(size, channels, round_to).tolist() == expected


def test_auto_is_the_rule_of_this_machine_and_unknown_rules_are_refused():
    assert rule_for("auto") == machine_rule()
    assert machine_rule() in RULES
    assert levels(200, 1, "auto").tolist() == levels(200, 1, machine_rule()).tolist()
    with pytest.raises(UsageError, match=r"cannot be rounded to 'sse': .* auto, avx512"):
        rule_for("sse")


def test_auto_follows_the_runtime_in_which_a_network_is_to_be_fast(monkeypatch: pytest.MonkeyPatch):
    assert rule_for("auto", "mnn") == "mnn"
    assert rule_for("auto", "onnxruntime") == rule_for("auto", "opencv") == machine_rule()
    assert rule_for(8, "mnn") == 8 and rule_for("avx2", "mnn") == "avx2"
    for machine, name in (("avx512", "openvino"), ("avx2", "openvino-avx2")):
        monkeypatch.setattr(module, "machine_rule", lambda machine=machine: machine)
        assert rule_for("auto", "openvino") == name


def test_runtimes_have_their_own_blocks():
    assert levels(80, 1, "openvino").tolist() == [4, 8, 16, 32, 48, 64, 80]
    assert levels(80, 1, "openvino-avx2").tolist() == [4, *range(8, 81, 8)]
    assert levels(80, 1, "mnn").tolist() == [*range(4, 81, 4)]


def test_the_minimum_cuts_off_narrower_widths():
    assert levels(64, 1, 16, minimum=17).tolist() == [32, 48, 64]
    assert levels(4, 1, "auto", minimum=2, relaxed=True).tolist() == [2, 3, 4]


@pytest.mark.parametrize("round_to", [0, -4])
def test_rounding_to_nothing_is_wrong_usage(round_to):
    with pytest.raises(UsageError, match="positive number or 'auto'"):
        levels(8, 1, round_to)


@pytest.mark.parametrize("arguments", [(0, 1, 1), (8, 0, 1), (8, 1, 1, 0), (8, 1, 1, 9)])
def test_impossible_sizes_are_our_own_fault(arguments):
    with pytest.raises(InternalError, match="no widths for"):
        levels(*arguments)
