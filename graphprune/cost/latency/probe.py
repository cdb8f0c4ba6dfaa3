# SPDX-License-Identifier: Apache-2.0
"""Probing: how long one chunk takes in onnxruntime, at given lengths of its features.

A sample is a chunk at certain lengths. Several samples stand side by side in one model, which runs a few times under
onnxruntime's profiler: so weights are as cold in the caches as in a whole network. What counts is the fastest run of
each kernel; conversions into the layout of the fast kernels are left out, since inside a network there are none.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from graphprune.cost.latency.environment import open_session
from graphprune.model.files.scratch import scratch_folder
from graphprune.model.values.bodies import DOMAIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.cost.latency.chunks import Chunk, ChunkOperand
    from graphprune.cost.latency.environment import Environment

__all__ = ["Sample", "measure", "sample", "sample_model"]

_RUNS = 9
_LARGEST_BATCH = 1 << 27  # bytes of weights in one model
_MOST_SAMPLES = 64
_LAYOUT = frozenset({"ReorderInput", "ReorderOutput"})
_GROUPED = frozenset({"Conv", "ConvTranspose"})
_SMALL = 64  # elements up to which constants that stay whole keep their values: bounds, axes, exponents


@dataclass(frozen=True, eq=False)
class Sample:
    """A chunk at certain lengths.

    Attributes
    ----------
    key : str
        Digest of operators, attributes, shapes and types: equal samples take equally long.
    weight : int
        Bytes of its constants.
    """

    chunk: Chunk
    lengths: tuple[int, ...]
    values: tuple[TensorProto | None, ...]
    opsets: tuple[tuple[str, int], ...]
    key: str
    weight: int


def sample(analysis: Analysis, chunk: Chunk, lengths: tuple[int, ...]) -> Sample:
    """Describe a chunk with features of these lengths."""
    values = tuple(_value(analysis, operand) for operand in chunk.operands)
    imports = tuple(sorted(entry for entry in analysis.graph.opsets.items() if entry[0] != DOMAIN))
    nodes = [node.SerializeToString(deterministic=True) for node in _nodes(chunk, lengths, "")]
    shapes = [
        (operand.dtype, operand.constant, [axis.at(lengths) for axis in operand.axes]) for operand in chunk.operands
    ]
    digest = hashlib.sha256(repr((nodes, shapes, imports)).encode())
    for value in values:
        digest.update(b"" if value is None else value.SerializeToString(deterministic=True))
    weight = sum(_bytes(operand, lengths) for operand in chunk.operands if operand.constant)
    return Sample(chunk, lengths, values, imports, digest.hexdigest()[:32], weight)


def measure(samples: Sequence[Sample], environment: Environment) -> dict[str, int]:
    """Return nanoseconds by the key of each sample; one that onnxruntime cannot run is left out."""
    nanoseconds: dict[str, int] = {}
    for batch in _batches({one.key: one for one in samples}.values()):
        times = _run(batch, environment)
        for one, time in zip(batch, times or [None] * len(batch), strict=True):
            alone = time if time is not None else next(iter(_run([one], environment) or ()), None)
            if alone is not None:
                nanoseconds[one.key] = alone
    return nanoseconds


def _batches(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    batch: list[Sample] = []
    for one in samples:
        if batch and (len(batch) == _MOST_SAMPLES or sum(item.weight for item in batch) + one.weight > _LARGEST_BATCH):
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


def _run(batch: list[Sample], environment: Environment) -> list[int | None] | None:
    """Return nanoseconds by sample, None where no kernel bears its name; None if onnxruntime refuses the model."""
    model, feed = sample_model(batch)
    with scratch_folder() as folder:
        try:
            session = open_session(model.SerializeToString(), environment, profile=folder / "profile")
            for _ in range(_RUNS):
                session.run(None, feed)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        except Exception:  # whatever onnxruntime raises: it has no type of its own for "not implemented"
            return None
    return _fastest(events, len(batch))


def _fastest(events: list[dict[str, Any]], samples: int) -> list[int | None]:
    """Sum up the fastest run of each kernel by sample."""
    kernels: dict[tuple[int, str], list[int]] = defaultdict(list)
    for event in events:
        name = str(event.get("name", ""))
        marked = re.search(r"chunk(\d+):", name)
        is_kernel = event.get("cat") == "Node" and name.endswith("_kernel_time")
        if marked and is_kernel and event["args"].get("op_name") not in _LAYOUT:
            kernels[int(marked[1]), name].append(int(event["dur"]))
    times: list[int | None] = [None] * samples
    for (number, _), durations in kernels.items():
        times[number] = (times[number] or 0) + 1000 * min(durations)
    return times


def sample_model(batch: Sequence[Sample]) -> tuple[ModelProto, dict[str, Any]]:
    """Return a model with all samples side by side, whose outputs have no types yet, and what to feed."""
    model = helper.make_model(helper.make_graph([], "probe", [], []), ir_version=8)
    del model.opset_import[:]
    for domain, version in batch[0].opsets:
        model.opset_import.add(domain=domain, version=version)
    feed: dict[str, Any] = {}
    random = np.random.default_rng(0)
    for number, one in enumerate(batch):
        prefix = f"chunk{number}:"
        model.graph.node.extend(_nodes(one.chunk, one.lengths, prefix))
        for operand, value in zip(one.chunk.operands, one.values, strict=True):
            name, dims = prefix + operand.name, [axis.at(one.lengths) for axis in operand.axes]
            if value is not None:
                stored = model.graph.initializer.add()
                stored.CopyFrom(value)
                stored.name = name
            elif operand.constant:
                model.graph.initializer.append(numpy_helper.from_array(_filled(operand, dims, random), name))
            else:
                model.graph.input.append(helper.make_tensor_value_info(name, operand.dtype, dims))
                feed[name] = _filled(operand, dims, random)
        last = one.chunk.nodes[-1]
        model.graph.output.extend(helper.make_empty_tensor_value_info(prefix + name) for name in last.outputs if name)
    return model, feed


def _nodes(chunk: Chunk, lengths: tuple[int, ...], prefix: str) -> list[NodeProto]:
    """Return the nodes of a chunk for certain lengths; without a prefix under numbers for names, for the digest."""
    numbers: dict[str, str] = {"": ""}
    protos = []
    for node in chunk.nodes:
        proto = NodeProto()
        proto.CopyFrom(node.proto)
        for names in (proto.input, proto.output):
            names[:] = [prefix + name if prefix and name else _number(numbers, name) for name in names]
        proto.name = f"{prefix}{node.index}" if prefix else ""
        proto.doc_string = ""
        del proto.metadata_props[:]
        if node.op_type in _GROUPED and not node.domain:
            _set_group(proto, chunk, node.inputs, lengths)
        protos.append(proto)
    return protos


def _number(numbers: dict[str, str], name: str) -> str:
    return numbers.setdefault(name, str(len(numbers)))


def _set_group(proto: NodeProto, chunk: Chunk, inputs: Sequence[str], lengths: tuple[int, ...]) -> None:
    """Let the group follow from the channels that the convolution reads, and how many of them each filter reads."""
    group = next((attribute for attribute in proto.attribute if attribute.name == "group"), None)
    if group is None or group.i == 1:
        return
    by_name = {operand.name: operand for operand in chunk.operands}
    channels, weight = by_name[inputs[0]].axes[1], by_name[inputs[1]].axes
    if proto.op_type == "Conv":
        group.i = max(1, channels.at(lengths) // max(1, weight[1].at(lengths)))


def _value(analysis: Analysis, operand: ChunkOperand) -> TensorProto | None:
    """Return a small constant that stays whole as it is."""
    value = analysis.shapes.values.get(operand.name)
    whole = all(axis.feature < 0 for axis in operand.axes)
    if not operand.constant or value is None or not whole or value.size > _SMALL:
        return None
    return numpy_helper.from_array(np.asarray(value), "")


def _bytes(operand: ChunkOperand, lengths: tuple[int, ...]) -> int:
    return 4 * int(np.prod([axis.at(lengths) for axis in operand.axes], dtype=np.float64))


def _filled(operand: ChunkOperand, dims: list[int], random: np.random.Generator) -> Any:
    """Return small positive numbers, which overflow nowhere and may be variances; or zeros, which are valid indices."""
    dtype = helper.tensor_dtype_to_np_dtype(operand.dtype)
    if not np.issubdtype(dtype, np.floating):
        return np.zeros(dims, dtype)
    few = random.uniform(0.001, 0.01, 4096)
    return np.resize(few, dims).astype(dtype)
