# SPDX-License-Identifier: Apache-2.0
"""LSTM layers with a projection of the hidden state, which ONNX's `LSTM` does not have: cells in a `Scan`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, numpy_helper, parser

STEPS, BATCH, FEATURES, HIDDEN, PROJECTED, CLASSES = 3, 3, 16, 32, 8, 64


@dataclass
class Draft:
    """Lines of the graph, and its weights."""

    lines: list[str] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def weight(self, name: str, *shape: int) -> str:
        """Add a random weight and return its name."""
        self.weights[name] = (self.random.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
        return name

    def layer(self, sequence: str, width: int, tag: str, *, backward: bool, bias: bool) -> str:
        """Add a layer that reads a sequence in one direction; returns the sequence that it makes."""
        cell = self.weight(f"cell_{tag}", width + PROJECTED, 4 * HIDDEN)
        project = self.weight(f"project_{tag}", HIDDEN, PROJECTED)
        self.weights[f"state_{tag}"] = np.zeros((BATCH, PROJECTED), np.float32)
        self.weights[f"memory_{tag}"] = np.zeros((BATCH, HIDDEN), np.float32)
        shift = (
            f"biased = Add (gates, {self.weight(f'bias_{tag}', 4 * HIDDEN)})" if bias else "biased = Identity (gates)"
        )
        turned = f"scan_input_directions = [{int(backward)}], scan_output_directions = [{int(backward)}]"
        self.lines.append(
            f"""last_{tag}, kept_{tag}, all_{tag} = Scan <num_scan_inputs = 1, {turned}, body = step
                (float[{BATCH},{PROJECTED}] h, float[{BATCH},{HIDDEN}] c, float[{BATCH},{width}] x)
                => (float[{BATCH},{PROJECTED}] next, float[{BATCH},{HIDDEN}] memory, float[{BATCH},{PROJECTED}] out)
            {{
                both = Concat <axis = 1> (x, h)
                gates = MatMul (both, {cell})
                {shift}
                i, f, g, o = Split <axis = 1> (biased, gate_sizes)
                si = Sigmoid (i) sf = Sigmoid (f) tg = Tanh (g) so = Sigmoid (o)
                old = Mul (sf, c) new = Mul (si, tg) memory = Add (old, new)
                bent = Tanh (memory) hidden = Mul (so, bent) next = MatMul (hidden, {project})
                out = Identity (next)
            }}> (state_{tag}, memory_{tag}, {sequence})"""
        )
        return f"all_{tag}"

    def layers(self, count: int, *, both_ways: bool, bias: bool) -> tuple[str, int]:
        """Add layers on top of one another; returns the sequence of the last one and its width."""
        sequence, width = "x", FEATURES
        for number in range(count):
            made = [
                self.layer(sequence, width, f"{number}{way}", backward=way == "b", bias=bias)
                for way in ("fb" if both_ways else "f")
            ]
            sequence, width = made[0], PROJECTED * len(made)
            if both_ways:
                sequence = f"joined_{number}"
                self.lines.append(f"{sequence} = Concat <axis = 2> ({', '.join(made)})")
        return sequence, width

    def finish(self, sequence: str, width: int) -> ModelProto:
        """Add a classifier and return the model."""
        self.lines.append(f"y = MatMul ({sequence}, {self.weight('classify', width, CLASSES)})")
        inputs, outputs = f"float[{STEPS},{BATCH},{FEATURES}] x", f"float[{STEPS},{BATCH},{CLASSES}] y"
        text = f"({inputs}) => ({outputs}) {{ {' '.join(self.lines)} }}"
        proto = parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> projected {text}')
        self.weights["gate_sizes"] = np.full(4, HIDDEN, dtype=np.int64)
        proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in self.weights.items())
        return proto


def projected() -> Iterator[tuple[str, ModelProto]]:
    """Yield the name and the model of each network."""
    for count, both_ways, bias in (
        *((layers, ways, bias) for layers in (1, 2) for ways in (False, True) for bias in (True, False)),
        (4, True, True),
    ):
        draft = Draft()
        name = f"lstm_projected_{count}{'_both_ways' * both_ways}{'_no_bias' * (not bias)}"
        yield name, draft.finish(*draft.layers(count, both_ways=both_ways, bias=bias))
    for both_ways in (False, True):
        draft = Draft()
        sequence, width = draft.layers(2, both_ways=both_ways, bias=True)
        draft.lines.append(f"beside = MatMul (x, {draft.weight('beside_weight', FEATURES, width)})")
        draft.lines.append(f"sum = Add ({sequence}, beside)")
        yield f"lstm_projected_beside_linear{'_both_ways' * both_ways}", draft.finish("sum", width)
