# SPDX-License-Identifier: Apache-2.0
"""Rules of normalisations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from oracle_check import analyze, check
from rule_cases import BOTH, Case, Stays, groups, rule_tests
from tiny_models import chain, model

VECTORS = {"s": (8,), "b": (8,), "mean": (8,), "var": (8,)}
PER_CHANNEL = ", ".join(f"{name}.0 per_channel" for name in VECTORS)

CASES = [
    Case(
        "batch",
        chain("m = BatchNormalization (h, s, b, mean, var)", VECTORS),
        {"h": (8, f"{BOTH}, {PER_CHANNEL}")},
    ),
    Case(
        "instance",
        chain("m = InstanceNormalization (h, s, b)", {"s": (8,), "b": (8,)}),
        {"h": (8, f"{BOTH}, s.0 per_channel, b.0 per_channel")},
    ),
    Case(
        "group-with-scales-per-channel",
        chain("m = GroupNormalization <num_groups = 4> (h, s, b)", {"s": (8,), "b": (8,)}, opset=21),
        {"h": (4, f"{BOTH}, s.0 per_channel, b.0 per_channel")},
    ),
    Case(
        "group-of-one-channel",
        chain("m = GroupNormalization <num_groups = 8> (h, s, b)", {"s": (8,), "b": (8,)}, opset=21),
        {"h": (8, f"{BOTH}, s.0 per_channel, b.0 per_channel")},
    ),
    Case("layer-over-space", chain("m = LayerNormalization <axis = 2> (h, s)", {"s": (6, 6)}), {"h": (8, BOTH)}),
    Case("mean-variance-over-space", chain("m = MeanVarianceNormalization (h)"), {"h": (8, BOTH)}),
    Case("softmax-over-space", chain("m = Softmax (h)"), {"h": (8, BOTH)}),
    Case("log-softmax-over-space", chain("m = LogSoftmax <axis = 2> (h)"), {"h": (8, BOTH)}),
    Case("hardmax-over-space", chain("m = Hardmax <axis = 3> (h)"), {"h": (8, BOTH)}),
    Case("lp-over-space", chain("m = LpNormalization <axis = 2, p = 2> (h)"), {"h": (8, BOTH)}),
    Case("cumulative-over-space", chain("m = CumSum (h, at)", at=np.int64(2)), {"h": (8, BOTH)}),
]


def _stays(
    name: str, text: str, kind: str, weights: dict[str, tuple[int, ...]] | None = None, opset: int = 17, node: str = "m"
) -> Stays:
    """Freeze `h` while another layer stays free."""
    proto = model(
        f"""(float[2,3,6,6] x) => (float[2,2,6,6] y) {{
            h = Conv (x, first)
            {text}
            n = Conv (m, middle)
            y = Conv (n, last)
        }}""",
        {"first": (8, 3, 1, 1), "middle": (6, 8, 1, 1), "last": (2, 6, 1, 1), **(weights or {})},
        opset=opset,
    )
    return Stays(name, proto, (kind, node), groups={"n": (6, "middle.0 out, last.1 in")})


STAYS = [
    _stays(
        "layer-with-a-computed-scale",
        """pooled = GlobalAveragePool (h)
            flat = Flatten (pooled)
            gate = Sigmoid (flat)
            row = ReduceMean <axes = [0], keepdims = 0> (gate)
            turned = Transpose <perm = [0, 2, 3, 1]> (h)
            normal = LayerNormalization (turned, row)
            m = Transpose <perm = [0, 3, 1, 2]> (normal)""",
        "LayerNormalization",
        node="normal",
    ),
    _stays("softmax", "m = Softmax <axis = 1> (h)", "Softmax"),
    _stays("softmax-negative-axis", "m = Softmax <axis = -3> (h)", "Softmax"),
    _stays("log-softmax", "m = LogSoftmax <axis = 1> (h)", "LogSoftmax"),
    _stays("hardmax", "m = Hardmax <axis = 1> (h)", "Hardmax"),
    _stays("lrn", "m = LRN <size = 3> (h)", "LRN"),
    _stays("lp", "m = LpNormalization <axis = 1> (h)", "LpNormalization"),
    _stays("mean-variance", "m = MeanVarianceNormalization <axes = [1, 2, 3]> (h)", "MeanVarianceNormalization"),
    _stays("layer", "m = LayerNormalization <axis = 1> (h, s)", "LayerNormalization", {"s": (8, 6, 6)}),
    _stays(
        "group-of-all", "m = GroupNormalization <num_groups = 1> (h, s, b)", "fixed axis", {"s": (8,), "b": (8,)}, 21
    ),
    # Before version 13 a softmax sees all axes from `axis` (by default 1) on as one.
    _stays("softmax-by-default-before-13", "m = Softmax (h)", "Softmax", opset=11),
    replace(
        _stays(
            "batch-of-elements",
            "m = BatchNormalization <spatial = 0> (h, s, b, v, w)",
            "BatchNormalization",
            dict.fromkeys("sbvw", (8, 6, 6)),
            8,
        ),
        runs=False,  # no runtime computes it any more
    ),
]

test_keeps, test_numbers, test_freezes = rule_tests(CASES, STAYS)


def test_freezes_cumulative_sum() -> None:
    analysis = analyze(chain("m = CumSum (h, at)", at=np.int64(1)))
    assert analysis.groups == ()
    assert ("CumSum", "m") in {(entry.kind, entry.node) for entry in analysis.frozen}


@pytest.mark.parametrize("opset", [7, 8, 9, 14, 15])
def test_batch_normalization_in_all_operator_sets(opset: int) -> None:
    outcome = check(chain("m = BatchNormalization <epsilon = 0.01> (h, s, b, mean, var)", VECTORS, opset=opset))
    assert [tuple(t.dims) for t in outcome.pruned.graph.initializer if t.name in VECTORS] == [(4,)] * 4


def test_batch_normalization_in_training_mode_keeps_its_statistics_per_channel() -> None:
    text = "m, n, v = BatchNormalization <training_mode = 1> (h, s, b, mean, var)"
    analysis = analyze(chain(text, VECTORS, opset=15))
    assert groups(analysis) == {"h": (8, frozenset(f"{BOTH}, {PER_CHANNEL}".split(", ")))}
    labels = analysis.scope.values["h"][1].expand()
    assert analysis.scope.values["n"][0].expand().tolist() == labels.tolist()


def test_statistics_and_divisors_do_not_mask() -> None:
    (group,) = analyze(chain("m = BatchNormalization (h, s, b, mean, var)", VECTORS)).groups
    masked = {member.initializer: member.masked for member in group.members}
    assert masked == {"first": True, "last": True, "s": True, "b": True, "mean": False, "var": False}


def test_number_of_groups_follows() -> None:
    pruned = check(CASES[2].model).pruned
    (norm,) = (node for node in pruned.graph.node if node.op_type == "GroupNormalization")
    assert {a.name: a.i for a in norm.attribute} == {"num_groups": 2}


def test_layer_normalization_outputs_its_statistics() -> None:
    analysis = analyze(chain("m, mean, dev = LayerNormalization <axis = 2> (h, s)", {"s": (6, 6)}))
    labels = analysis.scope.values["h"][1]
    assert analysis.scope.values["mean"][1].expand().tolist() == labels.expand().tolist()
    assert len(analysis.scope.values["dev"][3]) == 1
