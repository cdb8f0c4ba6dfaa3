# SPDX-License-Identifier: Apache-2.0
"""Random steps without weights: elementwise operators, and everything that moves, joins, cuts or reduces axes."""

from __future__ import annotations

from math import prod
from typing import Any

import hypothesis.strategies as st
import numpy as np
from onnx import TensorProto
from random_drafts import Draft, Value
from random_layers import LARGEST, Step

__all__ = ["SHAPES"]


def activation(d: Draft, x: Value) -> list[Value] | None:
    """Apply a function to every element; some of them make something of zero."""
    kind = d.choose(("Relu", "Sigmoid", "Tanh", "HardSigmoid", "LeakyRelu", "Cos", "Neg", "Abs", "Softplus", "Elu"))
    return [d.on(kind, x)]


def clip(d: Draft, x: Value) -> list[Value] | None:
    """Clip with attributes (before operator set 11) or inputs, cast there and back, or drop out."""
    kind = d.choose(("Clip", "Cast", "Dropout"))
    if kind == "Dropout":
        return [d.on("Dropout", x)]
    if kind == "Cast":
        return [d.on("Cast", d.on("Cast", x, to=TensorProto.DOUBLE), to=TensorProto.FLOAT)]
    if d.opset < 11:
        return [d.on("Clip", x, min=-1.0, max=1.0)]
    bounds = [d.store(np.asarray(bound, dtype=np.float32)) for bound in (-1.0, 1.0)]
    return [d.on("Clip", x, *bounds)]


def constant_operand(d: Draft, x: Value) -> list[Value] | None:
    """Combine with a constant that spans some axes, from either side."""
    axis = d.number(1, len(x.shape) - 1)
    shape = [1] * len(x.shape)
    shape[axis] = x.shape[axis]
    if d.rarely(4):
        other = d.number(1, len(x.shape) - 1)
        shape[other] = x.shape[other]
    shape = shape[d.choose((0, 1, axis)) :]
    op = d.choose(("Mul", "Add", "Sub", "Div", "PRelu"))
    constant = d.vector(shape, positive=op == "Div")
    if op in ("Mul", "Add", "Sub") and d.rarely(3):
        return [d.node(op, [constant, x], x.shape)]
    return [d.on(op, x, constant)]


def where(d: Draft, x: Value) -> list[Value] | None:
    """Choose between a value and a constant by a constant or computed condition."""
    if d.opset < 9:
        return None
    other = d.vector((x.shape[1], *[1 for _ in x.shape[2:]]))
    if d.rarely(2):
        condition: Value | str = d.store(d.random.random(x.shape[1:]) < 0.7)
    else:
        condition = d.on("Less", x, d.store(np.asarray(0.5, dtype=np.float32)))
    return [d.node("Where", d.choose(([condition, x, other], [condition, other, x])), x.shape)]


def _partner(d: Draft, x: Value) -> Value:
    """Find a value of the same shape, else the value itself."""
    equal = [value for value in d.pool if value.shape == x.shape]
    return d.choose(equal[::-1]) if equal else x


def combine(d: Draft, x: Value) -> list[Value] | None:
    """Combine values of one shape."""
    op = d.choose(("Add", "Mul", "Max", "Min", "Sum", "Mean") if d.opset >= 8 else ("Add", "Mul"))
    values = [x, _partner(d, x)]
    if op not in ("Add", "Mul") and d.rarely(3):
        values.append(_partner(d, x))
    return [d.node(op, values, x.shape)]


def _spelt(d: Draft, axis: int, x: Value) -> int:
    """Count an axis from the end now and then, which operator sets before 11 do not allow."""
    return d.choose((axis, axis - len(x.shape))) if d.opset >= 11 else axis


def concat(d: Draft, x: Value) -> list[Value] | None:
    """Join values that differ along one axis only, the same one twice included, or with a constant."""
    axis = d.number(1, len(x.shape) - 1)

    def rest(value: Value) -> tuple[int, ...]:
        return (*value.shape[:axis], *value.shape[axis + 1 :])

    fitting = [v for v in d.pool if len(v.shape) == len(x.shape) and rest(v) == rest(x)][::-1] or [x]
    parts: list[Value] = [x, d.choose(fitting)]
    if d.rarely(3):
        parts.append(d.choose(fitting))
    inputs: list[Value | str] = list(parts)
    total = sum(part.shape[axis] for part in parts)
    if d.rarely(6) and not d.dynamic:
        shape = (*x.shape[:axis], 2, *x.shape[axis + 1 :])
        inputs.insert(d.number(0, len(inputs)), d.vector(shape))
        total += 2
    shape = (*x.shape[:axis], total, *x.shape[axis + 1 :])
    return [d.node("Concat", inputs, shape, axis=_spelt(d, axis, x))] if total <= 24 else None


def split(d: Draft, x: Value) -> list[Value] | None:
    """Cut an axis into parts, equal or not."""
    axis = d.number(1, len(x.shape) - 1)
    size = x.shape[axis]
    if size < 2:
        return None
    count = d.number(2, min(3, size))
    chunk = -(-size // count)
    equal = [min(chunk, size - chunk * at) for at in range(count)]
    first = d.number(1, size - count + 1)
    uneven = [first, *[1 for _ in range(count - 2)], size - first - (count - 2)]
    form = d.choose(("sizes", "equal"))
    sizes = equal if form == "equal" else uneven
    if min(sizes) < 1 or (form == "equal" and d.opset < 18 and len(set(sizes)) > 1):
        sizes, form = uneven, "sizes"
    attributes: dict[str, Any] = {"axis": axis}
    inputs: list[Value | str] = [x]
    if form == "sizes" and d.opset < 13:
        attributes["split"] = sizes
    elif form == "sizes":
        inputs.append(d.ints(sizes))
    elif d.opset >= 18:
        attributes["num_outputs"] = count
    return d.split("Split", inputs, [(*x.shape[:axis], part, *x.shape[axis + 1 :]) for part in sizes], **attributes)


def cut(d: Draft, x: Value) -> list[Value] | None:
    """Slice an axis."""
    axis = d.number(1, len(x.shape) - 1)
    size = x.shape[axis]
    start = d.number(0, size - 1)
    end = d.number(start + 1, size)
    step = d.choose((1, 1, 1, 2, -1)) if d.opset >= 10 else 1
    length = len(range(start, end, abs(step)))
    first, last = d.choose(((start, end), (start - size, end if end < size else 1 << 40)))
    if step == -1:
        first, last = end - 1, start - 1 if start else -(1 << 40)
    shape = (*x.shape[:axis], length, *x.shape[axis + 1 :])
    if d.opset < 10:
        return [d.node("Slice", [x], shape, starts=[first], ends=[last], axes=[axis])]
    inputs: list[Value | str] = [x, d.ints([first]), d.ints([last]), d.ints([_spelt(d, axis, x)])]
    return [d.node("Slice", inputs if step == 1 else [*inputs, d.ints([step])], shape)]


def gather(d: Draft, x: Value) -> list[Value] | None:
    """Pick slices by constant indices: a list (channel shuffle), or one."""
    axis = d.number(1, len(x.shape) - 1)
    size = x.shape[axis]
    if d.rarely(4) and len(x.shape) > 2:
        index = d.store(np.asarray(d.number(0, size - 1), dtype=np.int64))
        return [d.node("Gather", [x, index], (*x.shape[:axis], *x.shape[axis + 1 :]), axis=axis)]
    picked = d.random.permutation(size) if d.rarely(2) else d.random.integers(-size, size, d.number(1, size))
    shape = (*x.shape[:axis], len(picked), *x.shape[axis + 1 :])
    return [d.node("Gather", [x, d.ints(picked.tolist())], shape, axis=axis)]


def pad(d: Draft, x: Value) -> list[Value] | None:
    """Pad an axis in front and behind, or crop it."""
    axis = d.number(1, len(x.shape) - 1)
    front, back = d.number(0, 2), d.choose((0, 1, 3, -1))
    if x.shape[axis] + front + back < 1 or prod(x.shape) > LARGEST // 2 or (x.shape[axis] < 2 and back < 0):
        return None
    pads = [0] * (2 * len(x.shape))
    pads[axis], pads[axis + len(x.shape)] = front, back
    shape = (*x.shape[:axis], x.shape[axis] + front + back, *x.shape[axis + 1 :])
    if d.opset >= 18 and d.rarely(2):
        return [d.node("Pad", [x, d.ints([front, back]), "", d.ints([axis])], shape)]
    if d.opset >= 11 and d.rarely(2):
        return [d.node("Pad", [x, d.ints(pads), d.store(np.asarray(0.5, dtype=np.float32))], shape)]
    return [d.sized("Pad", x, shape, "pads", pads, 11)]


def transpose(d: Draft, x: Value) -> list[Value] | None:
    """Permute all axes but the batch's."""
    perm = [0, *d.draw(st.permutations(range(1, len(x.shape))))]
    return [d.node("Transpose", [x], [x.shape[axis] for axis in perm], perm=perm)]


def regroup(d: Draft, x: Value) -> list[Value] | None:
    """Merge neighbouring axes, split one, or shuffle channels."""
    kind = d.choose(("merge", "split", "shuffle", "batch"))
    axis = d.number(1, len(x.shape) - 1)
    if kind == "batch" and len(x.shape) > 2:
        flat = d.reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:]))
        return [d.reshape(d.on("Relu", flat), x.shape)]
    if kind == "merge" and len(x.shape) > 2:
        axis = min(axis, len(x.shape) - 2)
        return [d.reshape(x, (*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :]))]
    factor = d.choose([each for each in range(1, x.shape[axis] + 1) if x.shape[axis] % each == 0][::-1])
    if len(x.shape) > 4:
        return None
    split = d.reshape(x, (*x.shape[:axis], factor, x.shape[axis] // factor, *x.shape[axis + 1 :]))
    if kind != "shuffle":
        return [split]
    perm = list(range(len(split.shape)))
    perm[axis], perm[axis + 1] = axis + 1, axis
    turned = d.node("Transpose", [split], [split.shape[each] for each in perm], perm=perm)
    return [d.reshape(turned, x.shape)]


def flatten(d: Draft, x: Value) -> list[Value] | None:
    """Flatten all axes but the batch's."""
    return [d.node("Flatten", [x], (x.shape[0], prod(x.shape[1:])))] if prod(x.shape[1:]) <= 128 else None


def unsqueeze(d: Draft, x: Value) -> list[Value] | None:
    """Insert an axis of length 1, or remove one; without axes where the batch cannot be meant."""
    ones = [axis for axis, size in enumerate(x.shape) if size == 1 and axis]
    if ones and d.rarely(2) and len(x.shape) > 2:
        if not d.dynamic and x.shape[0] > 1 and len(ones) < len(x.shape) - 1 and d.rarely(2):
            return [d.node("Squeeze", [x], [size for size in x.shape if size != 1])]
        axis = d.choose(ones)
        return [d.sized("Squeeze", x, (*x.shape[:axis], *x.shape[axis + 1 :]), "axes", [axis], 13)]
    if len(x.shape) > 4:
        return None
    axis = d.number(1, len(x.shape))
    return [d.sized("Unsqueeze", x, (*x.shape[:axis], 1, *x.shape[axis:]), "axes", [axis], 13)]


def reduction(d: Draft, x: Value) -> list[Value] | None:
    """Reduce one or two axes, channels included."""
    if len(x.shape) < 3:
        return None
    op = d.choose(("ReduceMean", "ReduceSum", "ReduceL2", "ReduceL1", "ReduceSumSquare", "ReduceMax"))
    axes = sorted({d.number(1, len(x.shape) - 1), d.number(1, len(x.shape) - 1)})
    keep = d.number(0, 1)
    if not keep and len(axes) == len(x.shape) - 1:
        axes = axes[:1]
    shape = [1 if axis in axes else size for axis, size in enumerate(x.shape) if keep or axis not in axes]
    return [d.sized(op, x, shape, "axes", axes, 13 if op == "ReduceSum" else 18, keepdims=keep)]


def gate(d: Draft, x: Value) -> list[Value] | None:
    """Scale a value by its own mean over an axis."""
    axis = d.number(1, len(x.shape) - 1)
    shape = [1 if at == axis else size for at, size in enumerate(x.shape)]
    mean = d.sized("ReduceMean", x, shape, "axes", [axis], 18, keepdims=1)
    return [d.on("Mul", x, d.on("Sigmoid", mean))]


def resize(d: Draft, x: Value) -> list[Value] | None:
    """Enlarge the spatial axes by scales or to sizes."""
    if len(x.shape) != 4 or x.size > LARGEST // 4:
        return None
    scales = np.asarray([1, 1, 2, 2], dtype=np.float32)
    shape = (*x.shape[:2], x.shape[2] * 2, x.shape[3] * 2)
    if d.opset < 9:
        return [d.node("Upsample", [x], shape, scales=scales.tolist())]
    if d.opset < 11:
        return [d.node("Upsample" if d.opset == 9 else "Resize", [x, d.store(scales)], shape)]
    roi = d.store(np.zeros(0, dtype=np.float32)) if d.opset < 13 else ""
    if d.rarely(2):
        return [d.node("Resize", [x, roi, d.store(scales)], shape)]
    if d.dynamic:
        parts = [d.size_of(x, 0), d.size_of(x, 1) if d.rarely(2) else d.ints(shape[1:2]), d.ints(shape[2:])]
        sizes = d.node("Concat", parts, (4,), axis=0).name
    else:
        sizes = d.ints(shape)
    empty = d.store(np.zeros(0, dtype=np.float32)) if d.opset < 13 else ""
    return [d.node("Resize", [x, roi, empty, sizes], shape)]


def pixels(d: Draft, x: Value) -> list[Value] | None:
    """Move blocks of pixels into channels or back."""
    if len(x.shape) != 4:
        return None
    batch, channels, height, width = x.shape
    if channels % 4 == 0 and d.rarely(2):
        attributes = {"mode": d.choose(("DCR", "CRD"))} if d.opset >= 11 else {}
        shape: tuple[int, ...] = (batch, channels // 4, height * 2, width * 2)
        return [d.node("DepthToSpace", [x], shape, blocksize=2, **attributes)]
    if height % 2 or width % 2 or channels > 8:
        return None
    return [d.node("SpaceToDepth", [x], (batch, channels * 4, height // 2, width // 2), blocksize=2)]


def spread(d: Draft, x: Value) -> list[Value] | None:
    """Repeat an axis, or expand axes of length 1 (and spell the others out)."""
    if x.size > LARGEST // 4:
        return None
    axis = d.number(1, len(x.shape) - 1)
    if x.shape[axis] == 1 and d.opset >= 8:
        shape = (*x.shape[:axis], 3, *x.shape[axis + 1 :])
        target = [1 if (at == 0 or d.rarely(2)) and at != axis else size for at, size in enumerate(shape)]
        return [d.node("Expand", [x, d.ints(target)], shape)]
    if x.shape[axis] > 8:
        return None
    repeats = [2 if at == axis else 1 for at in range(len(x.shape))]
    shape = (*x.shape[:axis], x.shape[axis] * 2, *x.shape[axis + 1 :])
    return [d.node("Tile", [x, d.ints(repeats)], shape)]


def product(d: Draft, x: Value) -> list[Value] | None:
    """Multiply a value by its own transpose: both operands are activations."""
    if len(x.shape) < 3 or x.size > LARGEST // 8:
        return None
    perm = [*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2]
    turned = d.node("Transpose", [x], [x.shape[axis] for axis in perm], perm=perm)
    if d.rarely(2):
        return [d.node("MatMul", [x, turned], (*x.shape[:-1], x.shape[-2]))]
    return [d.node("MatMul", [turned, x], (*x.shape[:-2], x.shape[-1], x.shape[-1]))]


SHAPES: tuple[Step, ...] = (
    *(activation, activation, combine, concat, split, constant_operand, constant_operand, cut, gather, pad),
    *(transpose, regroup, regroup, flatten, unsqueeze, reduction, gate, resize, pixels, spread, product, where, clip),
)
